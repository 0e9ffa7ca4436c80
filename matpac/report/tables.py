"""shards, experiments, printed numbers -> Tables I to III and Figure 2 of the paper, with our numbers."""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from matpac.datasets.registry import PAGES
from matpac.files import read_json
from matpac.params import Params
from matpac.probing.scores import mean_and_interval, more_than_chance, percent, protocol
from matpac.report.experiments import (
    Experiment,
    Settings,
    difference,
    is_other,
    repeats_of,
    same_data,
)
from matpac.shards.folder import read_task

NOT_RUN = "not run"
NOT_HERE = "not here"
OTHER_DATA = "other data"
ALPHA, N_TAU, CLUSTERS = "pretrain.alpha", "pretrain.teacher_temperature_epochs", "model.num_clusters"
NAMES = {ALPHA: "alpha", N_TAU: "n_tau", CLUSTERS: "K"}
MAX_DIFFERENCES = 3
EXPLAINED = (
    "Percent; ours with 95 % intervals over the repeats of the probe. Differences are taken repeat by "
    "repeat, since repeats share their seeds; * where the interval of the difference leaves out 0, which "
    "is more than the chance of probing, at 95 %. Another seed of pre-training is not in the intervals."
)


class Table(NamedTuple):
    name: str
    """Of the file, without its suffix."""
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


class Column(NamedTuple):
    title: str
    printed: str
    """How printed.yaml calls it; empty where papers print nothing."""
    datasets: tuple[str, ...]
    """Whose mean it is; empty where params.yaml does not probe all of them."""


class Run(NamedTuple):
    """A row of ours: what was asked for, and the experiment if there was one."""

    label: str
    settings: Settings
    experiment: Experiment | None


@cache
def printed() -> dict[str, Any]:
    return yaml.safe_load(files("matpac.report").joinpath("printed.yaml").read_text(encoding="utf-8"))


def paper_tables(
    shards: Path, experiments: Sequence[Experiment], settings: Settings, params: Params
) -> list[Table]:
    """Those of the run with `settings`, and of all experiments that can stand beside it."""
    return [
        table_1(shards, params),
        table_2(experiments, settings, params),
        table_3(experiments, settings, params),
        figure_2(experiments, settings, params),
    ]


def table_1(shards: Path, params: Params) -> Table:
    header = ["Dataset", "Used for", "Clips", "Complete", "Hours", "Classes", "Metric", "Protocol"]
    rows = []
    for name, source in params.datasets.items():
        page = PAGES.get(source.kind)
        complete = f"{page.num_clips:,}" if page else ""
        if not (shards / name / "statistics.json").exists():
            asked = [str(page.num_classes), page.metric, page.protocol] if page else ["", "", ""]
            rows.append([name, used_for(name, params), NOT_HERE, complete, NOT_HERE, *asked])
            continue
        found, task = read_json(shards / name / "statistics.json"), read_task(shards / name)
        asked = ["", "", ""]
        if task is not None:
            asked = [f"{len(task.classes):,}", task.metric, protocol(task.num_folds)]
        hours = f"{found['duration_s'] / 3600:,.2f}"
        rows.append([name, used_for(name, params), f"{found['num_clips']:,}", complete, hours, *asked])
    note = (
        "As found on disk (data/shards). Complete: clips of a public dataset when nothing is missing; "
        f'"{NOT_HERE}": its shards have not been made.'
    )
    return Table("table_1", "Table I: the datasets", header, rows, [note])


def used_for(name: str, params: Params) -> str:
    uses = [
        use
        for use, names in (
            ("pre-training", params.pretrain.datasets),
            ("a look while training", params.online_datasets),
            ("probing", params.probe.datasets),
        )
        if name in names
    ]
    return " and ".join(uses) or "nothing yet"


def table_2(experiments: Sequence[Experiment], settings: Settings, params: Params) -> Table:
    """Printed rows, the run of params.yaml, the paper's variations of it, every other experiment, and
    every encoder that is not ours."""
    known = printed()
    columns = [
        *(Column(title, kind, of_kinds([kind], params)) for kind, title in known["datasets"].items()),
        Column("Mean", "mean", of_kinds(known["datasets"], params)),
        *means_of(own_datasets(params)),
    ]
    this_run = Run("this run", settings, find(experiments, settings))
    of_paper = [
        *(varied(experiments, settings, N_TAU, value) for value in (10, 20)),
        varied(experiments, settings, ALPHA, 1.0),
    ]
    asked = [this_run, *(run for run in of_paper if run.settings != settings)]
    others = [
        Run(label_of(one, experiments, settings), one.settings, one)
        for one in experiments
        if all(one.settings != run.settings for run in asked)
    ]
    runs = asked + sorted(others, key=lambda run: (is_other(run.settings), run.label))
    rows = []
    for row in known["table_2"]:
        scores = dict(zip(known["datasets"], row["scores"], strict=True)) | {"mean": row["mean"]}
        rows.append([row["row"], row["source"], *printed_cells(scores, columns)])
    for run in runs:
        rows += our_rows(run, this_run, columns)
    header = ["Encoder", "Source", *(column.title for column in columns)]
    notes = [missing(runs, "temperature", "alpha")]
    return Table("table_2", "Table II: linear probes, beside printed ones", header, rows, notes)


def table_3(experiments: Sequence[Experiment], settings: Settings, params: Params) -> Table:
    known = printed()["table_3"]
    columns = group_columns(params) + means_of(own_datasets(params))
    runs = along(experiments, settings, ALPHA, known["rows"])
    rows = []
    for run in runs:
        means = known["rows"].get(run.settings[ALPHA])
        if means is not None:
            rows.append([run.label, known["source"], *printed_cells(means, columns)])
        rows += our_rows(run, base_of(runs, settings), columns)
    header = ["Weight of prediction", "Source", *(column.title for column in columns)]
    title = "Table III: prediction against classification"
    return Table("table_3", title, header, rows, [missing(runs, "alpha")])


def figure_2(experiments: Sequence[Experiment], settings: Settings, params: Params) -> Table:
    columns = figure_columns(params)
    runs = cluster_runs(experiments, settings)
    rows = [row for run in runs for row in our_rows(run, base_of(runs, settings), columns)]
    header = ["Classes K", "Source", *(column.title for column in columns)]
    title = "Figure 2: how many classes the pretext has"
    return Table("figure_2", title, header, rows, [missing(runs, "clusters")])


def cluster_runs(experiments: Sequence[Experiment], settings: Settings) -> list[Run]:
    """Those of Figure 2, along K."""
    return along(experiments, settings, CLUSTERS, printed()["figure_2"]["rows"])


def figure_columns(params: Params) -> list[Column]:
    """Groups that are not probed whole are left out: the figure prints no numbers to stand there instead."""
    groups = [column for column in group_columns(params) if column.datasets]
    return groups + means_of(own_datasets(params))


def group_columns(params: Params) -> list[Column]:
    groups = printed()["groups"]
    return [Column(name.capitalize(), name, of_kinds(kinds, params)) for name, kinds in groups.items()]


def of_kinds(kinds: Iterable[str], params: Params) -> tuple[str, ...]:
    """The probed datasets of these kinds, one of each; empty where a kind is not probed."""
    names = [
        next((name for name in params.probe.datasets if params.datasets[name].kind == kind), None)
        for kind in kinds
    ]
    return () if None in names else tuple(name for name in names if name is not None)


def own_datasets(params: Params) -> list[str]:
    taken = {name for kind in printed()["datasets"] for name in of_kinds([kind], params)}
    return [name for name in params.probe.datasets if name not in taken]


def means_of(datasets: Sequence[str]) -> list[Column]:
    """A column for each, and one for their mean where there are several."""
    columns = [Column(name, "", (name,)) for name in datasets]
    return columns + ([Column("Mean of these", "", tuple(datasets))] if len(datasets) > 1 else [])


def find(experiments: Sequence[Experiment], settings: Settings) -> Experiment | None:
    return next((one for one in experiments if one.settings == settings), None)


def varied(experiments: Sequence[Experiment], settings: Settings, key: str, value: object) -> Run:
    wanted = settings | {key: value}
    return Run(what_differs(wanted, settings), wanted, find(experiments, wanted))


def along(
    experiments: Sequence[Experiment], settings: Settings, key: str, values: Iterable[float]
) -> list[Run]:
    """A run for each of `values` and for each other one that was tried, all else being equal."""
    tried = [one.settings[key] for one in experiments if one.settings | {key: settings[key]} == settings]
    runs = []
    for value in sorted({*values, *tried, settings[key]}):
        wanted = settings | {key: value}
        label = f"{value:g} (this run)" if value == settings[key] else f"{value:g}"
        runs.append(Run(label, wanted, find(experiments, wanted)))
    return runs


def base_of(runs: Sequence[Run], settings: Settings) -> Run:
    return next(run for run in runs if run.settings == settings)


def label_of(one: Experiment, experiments: Sequence[Experiment], base: Settings) -> str:
    """What differs from `base`. Of another encoder its name first; of several of one name also whatever
    tells them apart."""
    if not is_other(one.settings):
        return what_differs(one.settings, base)
    name = one.settings["encoder.name"]
    namesakes = [other.settings for other in experiments if other.settings.get("encoder.name") == name]
    keys = [
        key
        for key, value in one.settings.items()
        if base.get(key, value) != value
        or (key.startswith("encoder.") and any(other[key] != value for other in namesakes))
    ]
    return ", ".join([name, *values_of(one.settings, keys)])


def what_differs(settings: Settings, base: Settings) -> str:
    """`pretrain.alpha 0.25`, ...; another corpus is named by its datasets, not by its fingerprint."""
    keys = [
        key
        for key in sorted(settings.keys() | base.keys())
        if settings.get(key) != base.get(key) and not key.startswith("corpus.")
    ]
    return ", ".join(values_of(settings, keys)) or "other recordings"


def values_of(settings: Settings, keys: Sequence[str]) -> list[str]:
    words = [f"{NAMES.get(key, key)} {settings.get(key)}" for key in keys[:MAX_DIFFERENCES]]
    return words + ([f"and {len(keys) - MAX_DIFFERENCES} more"] if len(keys) > MAX_DIFFERENCES else [])


def printed_cells(scores: dict[str, float], columns: Sequence[Column]) -> list[str]:
    return [f"{scores[column.printed]:.1f}" if column.printed in scores else "" for column in columns]


def our_rows(run: Run, base: Run, columns: Sequence[Column]) -> list[list[str]]:
    """Scores, and below them how far they are from those of `base`, where the two can be compared."""
    source = "measured here" if is_other(run.settings) else "ours"
    scores = [run.label, source, *(score_cell(run, base, column) for column in columns)]
    gaps = [gap_cell(run, base, column) for column in columns]
    return [scores, ["minus this run", source, *gaps]] if any(gaps) else [scores]


def score_cell(run: Run, base: Run, column: Column) -> str:
    if run.experiment is None or not column.datasets:
        return NOT_RUN
    if base.experiment is not None and not same_data(run.experiment, base.experiment, column.datasets):
        return OTHER_DATA
    repeats = repeats_of(run.experiment, column.datasets)
    return NOT_RUN if repeats is None else percent(mean_and_interval(repeats))


def gap_cell(run: Run, base: Run, column: Column) -> str:
    if run is base or run.experiment is None or base.experiment is None or not column.datasets:
        return ""
    gap = difference(run.experiment, base.experiment, column.datasets)
    if gap is None:
        return ""
    return percent(gap, signed=True) + (" *" if more_than_chance(gap) else "")


def missing(runs: Sequence[Run], *grids: str) -> str:
    labels = [run.label for run in runs if run.experiment is None]
    commands = " and ".join(f"`python -m flows.grid {grid}`" for grid in grids)
    return f"Not run: {'; '.join(labels)}. To run what is missing: {commands}." if labels else ""
