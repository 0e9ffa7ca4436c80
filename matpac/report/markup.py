"""values -> pieces of HTML. Everything that comes from outside is escaped here."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape


def section(title: str, *parts: str) -> str:
    """Empty where all parts are: nothing to show leaves no heading behind."""
    body = "\n".join(part for part in parts if part)
    heading = f'<h2 id="{anchor(title)}">{escape(title)}</h2>'
    return f"<section>\n{heading}\n{body}\n</section>" if body else ""


def anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def contents(sections: Sequence[str]) -> str:
    """Links to what `section` made."""
    headings = [heading for one in sections for heading in re.findall(r'<h2 id="(.*?)">(.*?)</h2>', one)]
    items = "".join(f'<li><a href="#{place}">{title}</a></li>' for place, title in headings)
    return f"<nav><ul>{items}</ul></nav>"


def paragraph(text: str, kind: str = "") -> str:
    """What stands between backticks is shown as code."""
    attribute = f' class="{kind}"' if kind else ""
    content = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return f"<p{attribute}>{content}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML already. On a narrow screen a row becomes a card, labelled by the header; tables of kind
    `paper` and `classes` stay tables."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td data-label="{escape(name)}"><span>{cell}</span></td>'
            for name, cell in zip(header, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<table class="cards {kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'


def picture(data: bytes, media_type: str, description: str, max_width_px: int | None = None) -> str:
    """As wide as there is room, or up to `max_width_px` with pixels that stay sharp."""
    encoded = base64.b64encode(data).decode()
    attribute = f' class="pixels" style="max-width:{max_width_px}px"' if max_width_px else ""
    return f'<img{attribute} src="data:{media_type};base64,{encoded}" alt="{escape(description)}">'


def figure(content: str, caption: str = "", title: str = "") -> str:
    above = f"<h3>{escape(title)}</h3>" if title else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{above}{content}{below}</figure>"


def grid(figures: Sequence[str], kind: str) -> str:
    return f'<div class="grid {kind}">\n' + "\n".join(figures) + "\n</div>" if figures else ""


def bar(fraction: float | None, kind: str) -> str:
    """A horizontal bar of 0 to 100 %; nothing for None."""
    width = 0.0 if fraction is None else 100 * min(max(fraction, 0.0), 1.0)
    return f'<span class="bar"><span class="fill {kind}" style="width:{width:.1f}%"></span></span>'


def facts(values: Mapping[str, str]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items())
    return f"<dl>{items}</dl>"


def folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>\n{content}\n</details>"
