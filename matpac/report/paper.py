"""the paper's tables -> a section of the page, and the same as files."""

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from matpac.files import write_text
from matpac.params import Params
from matpac.probing.scores import mean_and_interval
from matpac.report.experiments import Experiment, Settings, repeats_of
from matpac.report.markup import figure, grid, paragraph, picture, section, table
from matpac.report.svg import COLOURS, styled, svg_of, unbox_
from matpac.report.tables import (
    CLUSTERS,
    EXPLAINED,
    NOT_HERE,
    NOT_RUN,
    OTHER_DATA,
    Table,
    cluster_runs,
    figure_columns,
    paper_tables,
    printed,
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
    runs = [run for run in cluster_runs(experiments, settings) if run.experiment is not None]
    if len(runs) < 2:
        return None
    canvas = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = canvas.subplots()
    for index, column in enumerate(figure_columns(params)):
        points = [
            (run.settings[CLUSTERS], mean_and_interval(repeats))
            for run in runs
            if run.experiment is not None
            and (repeats := repeats_of(run.experiment, column.datasets)) is not None
        ]
        axes.errorbar(
            [number for number, _ in points],
            [100 * score["mean"] for _, score in points],
            [100 * score["interval"] for _, score in points],
            color=COLOURS[index % len(COLOURS)],
            marker="o",
            markersize=4,
            capsize=3,
            linewidth=1.4,
            label=column.title,
        )
    numbers = [run.settings[CLUSTERS] for run in runs]
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes.set_xlabel("classes K")
    axes.set_ylabel("percent")
    unbox_(axes)
    canvas.legend(frameon=False, fontsize=8, loc="outside right upper")
    return svg_of(canvas)
