"""the paper's tables -> a section of the page, and the same as files."""

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from matpac.files import write_text
from matpac.params import Params
from matpac.report.columns import columns_of_figure, printed
from matpac.report.experiments import Experiment, Settings
from matpac.report.markup import figure, grid, paragraph, picture, section, table
from matpac.report.seeds import on_same_data, score
from matpac.report.svg import COLOURS, styled, svg_of, unbox_
from matpac.report.tables import (
    NOT_HERE,
    NOT_RUN,
    OTHER_DATA,
    Table,
    cluster_runs,
    find,
    paper_tables,
)

EXPLAINED = (
    "Percent. Runs that differ in nothing but the seed of pre-training are one row. With several seeds a "
    "cell is the mean over seeds with its 95 % interval (Student's t); with one it is the mean over repeats "
    "of the probe, and another seed is not in its interval. Differences are paired, by seed where two rows "
    "share two seeds or more, else by repeat of the probe; the column Seeds counts the shared ones, which "
    "are all that a difference is made of. What has no seed (log-mel statistics, other encoders) is the same "
    "beside each. * means what it means above: the interval leaves out 0."
)


def paper(
    shards: Path, out: Path, experiments: Sequence[Experiment], settings: Settings, params: Params
) -> str:
    """A section of the page; the same as files in `out`: a CSV for each table, and the figure."""
    contents = paper_tables(shards, experiments, settings, params)
    for content in contents:
        write_text(out / f"{content.name}.csv", csv_of(content))
    parts = [html_of(content) for content in contents]
    svg = drawing(experiments, settings, params)
    if svg is not None:
        write_text(out / "figure_2.svg", svg.decode())
        parts.append(
            grid([figure(picture(svg, "image/svg+xml", "Scores over the number of classes"))], "two")
        )
    sources = "; ".join(f"{name}: {title}" for name, title in printed()["papers"].items())
    return section(
        "The paper's tables",
        paragraph(EXPLAINED, "note"),
        *parts,
        paragraph(f"Printed numbers are from {sources}.", "note"),
    )


def csv_of(content: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(content.header)
    writer.writerows(content.rows)
    return text.getvalue()


def html_of(content: Table) -> str:
    rows = [[cell_of(cell) for cell in row] for row in content.rows]
    notes = "".join(paragraph(note, "note") for note in content.notes if note)
    below = paragraph(f"As a file: {content.name}.csv, beside this page.", "note")
    return (
        f'<h3>{escape(content.title)}</h3><div class="wide">{table(content.header, rows, "paper")}</div>'
        f"{notes}{below}"
    )


def cell_of(text: str) -> str:
    if text in (NOT_RUN, NOT_HERE, OTHER_DATA):
        return f'<span class="missing">{text}</span>'
    if text.endswith(" *"):
        return f'<span class="tag {"ahead" if text.startswith("+") else "behind"}">{escape(text)}</span>'
    return escape(text)


@styled()
def drawing(experiments: Sequence[Experiment], settings: Settings, params: Params) -> bytes | None:
    """Figure 2 with our numbers, as SVG; None where fewer than two numbers of classes were tried."""
    runs = [(number, run.seeds) for number, run in cluster_runs(experiments, settings) if run.seeds]
    if len(runs) < 2:
        return None
    canvas = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = canvas.subplots()
    reference = find(experiments, settings)
    for index, column in enumerate(columns_of_figure(params)):
        points = [
            (number, found.score)
            for number, seeds in runs
            if (found := score(on_same_data(seeds, reference, column.datasets), column.datasets)) is not None
        ]
        axes.errorbar(
            [number for number, _ in points],
            [100 * measured["mean"] for _, measured in points],
            [100 * measured["interval"] for _, measured in points],
            color=COLOURS[index % len(COLOURS)],
            marker="o",
            markersize=4,
            capsize=3,
            linewidth=1.4,
            label=column.title,
        )
    numbers = [number for number, _ in runs]
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes.set_xlabel("classes K")
    axes.set_ylabel("percent")
    unbox_(axes)
    canvas.legend(frameon=False, fontsize=8, loc="outside right upper")
    return svg_of(canvas)
