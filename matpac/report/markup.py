"""values -> pieces of HTML. Everything that comes from outside is escaped here."""

import base64
from collections.abc import Mapping, Sequence
from html import escape


def section(title: str, *parts: str) -> str:
    """Empty where all parts are: nothing to show leaves no heading behind."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML already. On a narrow screen a row becomes a card, labelled by the header."""
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


def picture(data: bytes, media_type: str, description: str, kind: str = "") -> str:
    encoded = base64.b64encode(data).decode()
    attribute = f' class="{kind}"' if kind else ""
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
