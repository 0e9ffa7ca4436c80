"""the paper's tables -> a section of the page, the same as files, and the drawing of Figure 2."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from matpac.files import write_text
from matpac.grids import GRIDS
from matpac.params import Params
from matpac.report.columns import columns_of_figure, printed
from matpac.report.experiments import Experiment, Settings
from matpac.report.html import COLORS, Section, data_url, section, styled, svg_of, unbox_
from matpac.report.rows import on_same_data, score
from matpac.report.tables import (
    NOT_HERE,
    NOT_RUN,
    OTHER_DATA,
    Table,
    cluster_runs,
    find,
    named_settings,
    paper_tables,
)


def paper_section(
    shards: Path,
    out: Path,
    experiments: Sequence[Experiment],
    settings: Settings,
    params: Params,
    grids: Path = GRIDS,
) -> Section:
    """The tables as a section; in `out`, a CSV of each table, and the figure."""
    tables = paper_tables(shards, experiments, settings, params)
    tables += named_settings(experiments, settings, params, shards, grids)
    for table in tables:
        write_text(out / f"{table.name}.csv", csv_of(table))
    svg = draw_figure_2(experiments, settings, params)
    if svg is not None:
        write_text(out / "figure_2.svg", svg.decode())
    return section(
        "The paper's tables",
        "paper.html.j2",
        tables=tables,
        missing=(NOT_RUN, NOT_HERE, OTHER_DATA),
        drawings={} if svg is None else {"figure_2": data_url(svg, "image/svg+xml")},
        papers=printed()["papers"],
    )


def csv_of(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows(table.rows)
    return text.getvalue()


@styled()
def draw_figure_2(experiments: Sequence[Experiment], settings: Settings, params: Params) -> bytes | None:
    """Our numbers as SVG; None until two numbers of classes have been run."""
    runs = [(number, run.seeds) for number, run in cluster_runs(experiments, settings) if run.seeds]
    if len(runs) < 2:
        return None
    drawing = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = drawing.subplots()
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
            color=COLORS[index % len(COLORS)],
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
    axes.set_ylabel("percent" if params.probe.score_on == "test" else "percent, validation clips")
    unbox_(axes)
    drawing.legend(frameon=False, fontsize=8, loc="outside right upper")
    return svg_of(drawing)
