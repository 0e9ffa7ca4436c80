"""shards, experiments, printed numbers -> Tables I to III and Figure 2 of the paper, with our numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matpac.datasets.registry import READERS
from matpac.files import read_json
from matpac.grids import read_grid
from matpac.params import Params
from matpac.probing.scores import percent, protocol, with_star
from matpac.report.columns import (
    Column,
    columns_of_figure,
    columns_of_groups,
    columns_of_paper,
    printed,
)
from matpac.report.experiments import SCORE_ON, Experiment, Settings, is_other
from matpac.report.footnotes import notes_of
from matpac.report.rows import (
    ALPHA,
    CLUSTERS,
    GRIDS,
    N_TAU,
    NAMES_IN_PAPER,
    Compute,
    Measured,
    Run,
    baselines_of,
    compute_of,
    difference,
    named_runs,
    on_same_data,
    remaining_runs,
    runs_along,
    score,
    shared_seeds,
    this_run,
    varied,
)
from matpac.shards.folder import read_task

NOT_RUN = "not run"
NOT_HERE = "not here"
OTHER_DATA = "other data"


class Table(NamedTuple):
    name: str
    """Name of the file, without its suffix."""
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]
    begun: bool
    """Whether it compares anything yet; tables that do not are folded away."""


def paper_tables(
    shards: Path, experiments: Sequence[Experiment], settings: Settings, params: Params
) -> list[Table]:
    """Tables of the run with `settings`, beside all experiments that compare with it."""
    return [
        table_1(shards, params),
        table_2(experiments, settings, params),
        table_3(experiments, settings, params),
        figure_2(experiments, settings, params),
    ]


def table_1(shards: Path, params: Params) -> Table:
    header = ["Dataset", "Used for", "Clips", "Complete", "Hours", "Classes", "Metric", "Protocol"]
    rows, leaks, public = [], [], False
    for name, source in params.datasets.items():
        page = READERS[source.kind].page
        complete = f"{page.num_clips:,}" if page else ""
        if not (shards / name / "statistics.json").exists():
            asked = [str(page.num_classes), page.metric, page.protocol] if page else ["", "", ""]
            rows.append([name, used_for(name, params), NOT_HERE, complete, NOT_HERE, *asked])
            continue
        found, task = read_json(shards / name / "statistics.json"), read_task(shards / name)
        public = public or page is not None
        asked = ["", "", ""]
        if task is not None:
            asked = [f"{len(task.classes):,}", task.metric, protocol(task.num_folds)]
        hours = f"{found['duration_s'] / 3600:,.2f}"
        rows.append([name, used_for(name, params), f"{found['num_clips']:,}", complete, hours, *asked])
        # Shards built before this check have no such field.
        leaks += [
            f"The official split of {name} is kept, though it has a {leak}."
            for leak in found.get("official_leaks", [])
        ]
    note = (
        "As found on disk (`data/shards`). Complete: clips of a public dataset when nothing is missing; "
        f'"{NOT_HERE}": its shards have not been made, `dvc repro` makes them.'
    )
    return Table("table_1", "Table I: the datasets", header, rows, [note, *leaks], begun=public)


def used_for(name: str, params: Params) -> str:
    uses = [
        use
        for use, names in (
            ("pre-training", params.pretrain.datasets),
            ("k-NN while training", params.online_datasets),
            ("probing", params.probe.datasets),
        )
        if name in names
    ]
    return ", ".join(uses) or "nothing yet"


def table_2(experiments: Sequence[Experiment], settings: Settings, params: Params) -> Table:
    """Rows, from the top: the paper's, this run and its baselines, the paper's variations of it, other
    experiments, and other encoders."""
    known, columns, base = printed(), columns_of_paper(params), this_run(experiments, settings)
    of_paper = [
        varied(experiments, base, key, value) for key, value in ((N_TAU, 10), (N_TAU, 20), (ALPHA, 1.0))
    ]
    asked = [base, *(run for run in of_paper if run.settings != base.settings)]
    reference = find(experiments, settings)
    runs, baselines = asked + remaining_runs(experiments, asked, base), baselines_of(base)
    rows = []
    for row in known["table_2"]:
        scores = dict(zip(known["datasets"], row["scores"], strict=True)) | {"mean": row["mean"]}
        rows.append([row["row"], row["source"], "", *printed_cells(scores, columns)])
    for run in (base, *baselines, *runs[1:]):
        rows += our_rows(run, run.label, base, reference, columns)
    notes = notes_of(runs, base, reference, columns, (GRIDS[N_TAU], GRIDS[ALPHA]), params, baselines)
    title = "Table II: linear probes, beside printed ones"
    return Table("table_2", title, header("Encoder", columns), rows, notes, begun(runs, base, columns))


def table_3(experiments: Sequence[Experiment], settings: Settings, params: Params) -> Table:
    known, columns, base = printed()["table_3"], columns_of_groups(params), this_run(experiments, settings)
    reference = find(experiments, settings)
    runs = runs_along(experiments, base, ALPHA, known["rows"])
    rows = []
    for value, run in runs:
        label = (
            f"{value:g}, {NAMES_IN_PAPER[ALPHA, value]}" if (ALPHA, value) in NAMES_IN_PAPER else f"{value:g}"
        )
        if value in known["rows"]:
            rows.append([label, known["source"], "", *printed_cells(known["rows"][value], columns)])
        rows += our_rows(run, named(label, run, base), base, reference, columns)
    weights = [run for _, run in runs]
    notes = notes_of(weights, base, reference, columns, (GRIDS[ALPHA],), params)
    title, names = "Table III: prediction against classification", header("Weight of prediction", columns)
    return Table("table_3", title, names, rows, notes, begun(weights, base, columns))


def figure_2(experiments: Sequence[Experiment], settings: Settings, params: Params) -> Table:
    columns, base = columns_of_figure(params), this_run(experiments, settings)
    reference = find(experiments, settings)
    runs = cluster_runs(experiments, settings)
    rows = []
    for value, run in runs:
        rows += our_rows(run, named(f"{value:g}", run, base), base, reference, columns)
    sizes = [run for _, run in runs]
    notes = notes_of(sizes, base, reference, columns, (GRIDS[CLUSTERS],), params)
    title, names = "Figure 2: how many classes the pretext has", header("Classes K", columns)
    return Table("figure_2", title, names, rows, notes, begun(sizes, base, columns))


def cluster_runs(experiments: Sequence[Experiment], settings: Settings) -> list[tuple[float, Run]]:
    """Runs of Figure 2 by their number of classes K."""
    return runs_along(experiments, this_run(experiments, settings), CLUSTERS, printed()["figure_2"]["rows"])


def named_settings(
    experiments: Sequence[Experiment], settings: Settings, params: Params, shards: Path, grids: Path
) -> list[Table]:
    """A table for each grid with named settings, once one of them has been run beside this run.

    A file that is no grid gets a table that says so, since one broken file must not cost the whole report.
    """
    tables, base = [], this_run(experiments, settings)
    for path in sorted(grids.glob("*.yaml")):
        try:
            grid = read_grid(path)
        except ValueError as error:
            name, title = named_after(path.stem)
            tables.append(Table(name, title, ["Setting"], [], [f"Not read: {error}"], begun=True))
            continue
        if not params.pretrain.num_epochs or not any(label for label, _ in grid.settings):
            continue
        runs, left_out = named_runs(experiments, base, path.stem, grid, params, shards)
        if any(run.seeds and run.settings != base.settings for run, _ in runs):
            table = table_of_names(path.stem, runs, base, experiments, settings, params, shards)
            tables.append(table._replace(notes=[*table.notes, *left_out]))
    return tables


def table_of_names(
    name: str,
    named_as: Sequence[tuple[Run, Compute]],
    base: Run,
    experiments: Sequence[Experiment],
    settings: Settings,
    params: Params,
    shards: Path,
) -> Table:
    def cells(compute: Compute) -> list[str]:
        per_crop, crops = compute.flop_a_crop, compute.num_crops
        whole = "" if crops is None else f"{per_crop * crops / 1e15:.3g}"
        return [f"{compute.num_epochs:.4g}", f"{per_crop / 1e9:.3g}", whole]

    reference = find(experiments, settings)
    columns = [column for column in columns_of_paper(params) if column.datasets]
    rows = []
    missing = all(run.settings != base.settings for run, _ in named_as)
    for run, compute in [*([(base, compute_of(params, shards))] if missing else []), *named_as]:
        label = run.label if run.label == base.label else named(run.label, run, base)
        for number, row in enumerate(our_rows(run, label, base, reference, columns)):
            rows.append([*row[:3], *(["", "", ""] if number else cells(compute)), *row[3:]])
    runs = [run for run, _ in named_as]
    first, *titles = header("Setting", columns)
    names = [first, *titles[:2], "Epochs", "GFLOP a crop", "PFLOP", *titles[2:]]
    return Table(
        *named_after(name),
        names,
        rows,
        [
            "Compute is counted, not measured: crops times the operations for a crop (`matpac cost`).",
            *notes_of(runs, base, reference, columns, (name,), params),
        ],
        begun=True,
    )


def named_after(grid: str) -> tuple[str, str]:
    """Name and title of a grid's table."""
    return f"grid_{grid}", f"The settings of presets/grids/{grid}.yaml"


def begun(runs: Sequence[Run], base: Run, columns: Sequence[Column]) -> bool:
    """Whether a run beside the base was recorded, or the base was probed on datasets of the paper."""
    of_paper = [column.datasets for column in columns if column.printed and column.datasets]
    return any(run.seeds and run.settings != base.settings for run in runs) or any(
        score(base.seeds, datasets) for datasets in of_paper
    )


def header(first: str, columns: Sequence[Column]) -> list[str]:
    return [first, "Source", "Seeds", *(column.title for column in columns)]


def named(label: str, run: Run, base: Run) -> str:
    return f"{label} (this run)" if run.settings == base.settings else label


def find(experiments: Sequence[Experiment], settings: Settings) -> Experiment | None:
    return next((one for one in experiments if one.settings == settings), None)


def printed_cells(scores: dict[str, float], columns: Sequence[Column]) -> list[str]:
    return [f"{scores[column.printed]:.1f}" if column.printed in scores else "" for column in columns]


def our_rows(
    run: Run, label: str, base: Run, reference: Experiment | None, columns: Sequence[Column]
) -> list[list[str]]:
    """A row of scores and, if they can be compared, one of their differences from `base`.

    Only scores on the same recordings as `reference` are shown.
    """
    source = "measured here" if is_other(run.settings) else "ours"
    if run.settings.get(SCORE_ON) == "validation":
        source += ", VALIDATION"
    num_seeds = len(run.seeds.keys() - {None})
    num_shared = len(shared_seeds(run.seeds, base.seeds))
    scores = [score_cell(run, num_seeds, reference, column) for column in columns]
    gaps = [gap_cell(run, base, num_shared, reference, column) for column in columns]
    rows = [[label, source, str(num_seeds or ""), *scores]]
    if any(gaps):
        rows.append(["minus this run", source, str(num_shared), *gaps])
    return rows


def score_cell(run: Run, num_seeds: int, reference: Experiment | None, column: Column) -> str:
    if not run.seeds or not column.datasets:
        return NOT_RUN
    seeds = on_same_data(run.seeds, reference, column.datasets)
    if not seeds:
        return OTHER_DATA
    found = score(seeds, column.datasets)
    return NOT_RUN if found is None else percent(found.score) + fewer(found, num_seeds)


def gap_cell(run: Run, base: Run, num_shared: int, reference: Experiment | None, column: Column) -> str:
    if run.settings == base.settings or not column.datasets:
        return ""
    ours, theirs = (on_same_data(one.seeds, reference, column.datasets) for one in (run, base))
    gap = difference(ours, theirs, column.datasets)
    return "" if gap is None else with_star(gap.score, fewer(gap, num_shared))


def fewer(measured: Measured, num_seeds: int) -> str:
    """A remark if only some seeds of a row have been probed on the datasets."""
    return f" ({measured.num_seeds} of {num_seeds} seeds)" if measured.num_seeds < num_seeds else ""
