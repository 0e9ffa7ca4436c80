"""experiments -> rows of ours in the paper's tables, by name; several seeds are one row."""

from collections import ChainMap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matpac.report.experiments import Experiment, Result, Settings, is_other
from matpac.report.seeds import Seeds, seeds_of, without_seed

ALPHA, N_TAU, CLUSTERS = "pretrain.alpha", "pretrain.teacher_temperature_epochs", "model.num_clusters"
NAMES = {ALPHA: "alpha", N_TAU: "n_tau", CLUSTERS: "K"}
GRIDS = {ALPHA: "alpha", N_TAU: "temperature", CLUSTERS: "clusters"}
"""presets/grids/<name>.yaml runs what the paper varies."""
OF_PAPER = {(ALPHA, 1.0): "without classification"}
"""What the paper calls a value."""
MAX_DIFFERENCES = 3


class Run(NamedTuple):
    """A row of ours: what was asked for, and the experiments if there were any."""

    label: str
    settings: Settings
    """Without the seed of pre-training."""
    seeds: Seeds
    grid: str = ""
    """Of `presets/grids`, which has it; empty where none has."""


def this_run(experiments: Sequence[Experiment], settings: Settings) -> Run:
    return Run("this run", without_seed(settings), seeds_of(experiments, settings))


def baselines_of(base: Run) -> list[Run]:
    """What was probed beside each seed of a run."""
    untrained: Seeds = {
        seed: one._replace(results=of_baseline(one, "random_init")) for seed, one in base.seeds.items()
    }
    # Whatever the seed, they are the same.
    same = [of_baseline(one, "logmel_statistics") for one in base.seeds.values()]
    statistics: Seeds = {None: Experiment(base.settings, dict(ChainMap(*same)))}
    found = {"untrained encoder": untrained, "log-mel statistics": statistics}
    return [
        Run(label, {**base.settings, "encoder.name": label}, seeds)
        for label, seeds in found.items()
        if any(one.results for one in seeds.values())
    ]


def of_baseline(experiment: Experiment, name: str) -> dict[str, Result]:
    """Without what was probed before records had baselines."""
    return {
        dataset: result._replace(repeats=result.baselines[name])
        for dataset, result in experiment.results.items()
        if name in result.baselines
    }


def varied(experiments: Sequence[Experiment], base: Run, key: str, value: float) -> Run:
    """As the base, but for one value."""
    wanted = base.settings | {key: value}
    named = OF_PAPER.get((key, value))
    label = what_differs(wanted, base.settings)
    return Run(f"{named}, {label}" if named else label, wanted, seeds_of(experiments, wanted), GRIDS[key])


def along(
    experiments: Sequence[Experiment], base: Run, key: str, values: Iterable[float]
) -> list[tuple[float, Run]]:
    """A run for each of `values`, which a grid has, and each other one that was tried, all else equal."""
    ours = base.settings[key]
    tried = [
        one.settings[key] for one in experiments if without_seed(one.settings) | {key: ours} == base.settings
    ]
    wanted, runs = set(values), []
    for value in sorted({*wanted, *tried, ours}):
        run = base if value == ours else varied(experiments, base, key, value)
        runs.append((value, run if value in wanted else run._replace(grid="")))
    return runs


def all_others(experiments: Sequence[Experiment], runs: Sequence[Run], base: Run) -> list[Run]:
    """A run for each of the experiments that are in none of `runs`; other encoders come last."""
    found: list[Run] = []
    for one in experiments:
        settings = without_seed(one.settings)
        if all(settings != run.settings for run in [*runs, *found]):
            label = label_of(settings, experiments, base.settings)
            found.append(Run(label, settings, seeds_of(experiments, settings)))
    return sorted(found, key=lambda run: (is_other(run.settings), run.label))


def label_of(settings: Settings, experiments: Sequence[Experiment], base: Settings) -> str:
    """What differs from `base`. Of another encoder its name first; of several of one name also whatever
    tells them apart."""
    if not is_other(settings):
        return what_differs(settings, base)
    name = settings["encoder.name"]
    namesakes = [other.settings for other in experiments if other.settings.get("encoder.name") == name]
    keys = [
        key
        for key, value in settings.items()
        if base.get(key, value) != value
        or (key.startswith("encoder.") and any(other[key] != value for other in namesakes))
    ]
    return ", ".join([name, *values_of(settings, keys)])


def what_differs(settings: Settings, base: Settings) -> str:
    """`alpha 0.25`, ...; another corpus is named by its datasets, not by its fingerprint."""
    keys = [
        key
        for key in sorted(settings.keys() | base.keys())
        if settings.get(key) != base.get(key) and not key.startswith("corpus.")
    ]
    return ", ".join(values_of(settings, keys)) or "other recordings"


def values_of(settings: Settings, keys: Sequence[str]) -> list[str]:
    words = [f"{NAMES.get(key, key)} {plain(settings.get(key))}" for key in keys[:MAX_DIFFERENCES]]
    return words + ([f"and {len(keys) - MAX_DIFFERENCES} more"] if len(keys) > MAX_DIFFERENCES else [])


def plain(value: object) -> str:
    """1.0 as 1: a grid may write either."""
    return f"{value:g}" if isinstance(value, float) else str(value)
