"""drawings -> SVG: one look, and the same bytes each time."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#495057")


@contextmanager
def styled() -> Iterator[None]:
    """Drawn and written in here: small print, grey edges, ids that do not vary."""
    with mpl.rc_context({"svg.hashsalt": "matpac", "font.size": 9, "axes.edgecolor": "#adb5bd"}):
        yield


def unbox_(axes: Axes) -> None:
    """Two edges and a light grid instead of a frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e9ecef", linewidth=0.7)


def svg_of(drawing: Figure) -> bytes:
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
