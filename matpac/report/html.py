"""values -> HTML by the templates in templates/, and drawings -> SVG."""

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from matpac.probing.scores import beats_random_init, more_than_chance, percent, with_star

COLORS = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#495057")


class Section(NamedTuple):
    title: str
    body: Markup


def section(title: str, template: str, **values: object) -> Section:
    return Section(title, render(template, **values))


def render(template: str, **values: object) -> Markup:
    """The filled template; every value is escaped unless it is Markup."""
    return Markup(environment().get_template(template).render(values))


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("matpac.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"anchor": anchor, "code": code, "percent": percent, "with_star": with_star}
    made.tests |= {"clearly_ahead": beats_random_init, "more_than_chance": more_than_chance}
    return made


def anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def code(text: str) -> Markup:
    """The text, with `this` shown as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save in here: small print, gray edges, ids that do not vary."""
    with mpl.rc_context({"svg.hashsalt": "matpac", "font.size": 9, "axes.edgecolor": "#adb5bd"}):
        yield


def unbox_(axes: Axes) -> None:
    """Two edges and a light grid instead of a frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e9ecef", linewidth=0.7)


def svg_of(drawing: Figure) -> bytes:
    """The drawing as SVG, with the same bytes each time."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
