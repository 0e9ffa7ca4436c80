"""experiments -> rows of the paper's tables, by name; runs that differ only in the seed are one row.

Scores and differences are taken over the seeds of pre-training.
"""

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from matpac.grids import Grid, with_setting
from matpac.params import Params, flat
from matpac.probing.scores import mean_and_interval
from matpac.report.experiments import (
    INIT_DIGEST,
    SECTIONS,
    Experiment,
    Result,
    Settings,
    is_finetuned,
    is_other,
    repeats_of,
    sections_of,
)
from matpac.shards.corpus import fingerprint

ALPHA, N_TAU, CLUSTERS = "pretrain.alpha", "pretrain.teacher_temperature_epochs", "model.num_clusters"
SEED, DATASETS, INIT = "pretrain.seed", "pretrain.datasets", "pretrain.init"
NAMES = {ALPHA: "alpha", N_TAU: "n_tau", CLUSTERS: "K"}
GRIDS = {ALPHA: "alpha", N_TAU: "temperature", CLUSTERS: "clusters"}
"""Grid in presets/grids that varies each key as the paper does."""
NAMES_IN_PAPER = {(ALPHA, 1.0): "without classification"}
MAX_DIFFERENCES = 3

Seeds = dict[int | None, Experiment]
"""Experiments by seed. Other encoders and log-mel statistics, which have no seed, stand under None."""


class Run(NamedTuple):
    """Our row of a table: the settings it asks for, and the experiments that have them."""

    label: str
    settings: Settings
    """Settings without the seed of pre-training."""
    seeds: Seeds
    """Empty if no such run has been recorded."""
    grid: str = ""
    """Name of the grid in presets/grids that makes this run; empty if none does."""


class Compute(NamedTuple):
    num_epochs: float
    flop_a_crop: int
    num_crops: int | None
    """None before the shards are finished."""


class Measured(NamedTuple):
    score: dict[str, float]
    """Mean and half of its 95 % interval; fractions."""
    num_seeds: int
    """Number of seeds behind the interval; with one seed, it is over repeats of the probe."""


def this_run(experiments: Sequence[Experiment], settings: Settings) -> Run:
    return Run("this run", without_seed(settings), seeds_of(experiments, settings))


def baselines_of(base: Run) -> list[Run]:
    """Rows of the untrained encoder and the log-mel statistics that were probed with each seed."""
    untrained: Seeds = {
        seed: one._replace(results=baseline_results(one, "random_init")) for seed, one in base.seeds.items()
    }
    # The statistics do not depend on the seed.
    same = [baseline_results(one, "logmel_statistics") for one in base.seeds.values()]
    statistics: Seeds = {None: Experiment(base.settings, dict(ChainMap(*same)))}
    found = {"untrained encoder": untrained, "log-mel statistics": statistics}
    return [
        Run(label, {**base.settings, "encoder.name": label}, seeds)
        for label, seeds in found.items()
        if any(one.results for one in seeds.values())
    ]


def baseline_results(experiment: Experiment, name: str) -> dict[str, Result]:
    """Results of a baseline by dataset; older records have none."""
    return {
        dataset: result._replace(repeats=result.baselines[name])
        for dataset, result in experiment.results.items()
        if name in result.baselines
    }


def varied(experiments: Sequence[Experiment], base: Run, key: str, value: float) -> Run:
    """The run that differs from the base in one value."""
    wanted = base.settings | {key: value}
    named = NAMES_IN_PAPER.get((key, value))
    label = what_differs(wanted, base.settings)
    return Run(f"{named}, {label}" if named else label, wanted, seeds_of(experiments, wanted), GRIDS[key])


def named_runs(
    experiments: Sequence[Experiment], base: Run, name: str, grid: Grid, params: Params, shards: Path
) -> tuple[list[tuple[Run, Compute]], list[str]]:
    """Runs of a grid's settings, by their names, and their compute; lines on settings left out."""
    found, left_out = [], []
    for label, changes in grid.settings:
        try:
            _, ours = with_setting(params, changes, grid, shards, f"presets/grids/{name}.yaml, {label}")
            check_same_shards(ours, params)
            compute = compute_of(ours, shards)
            wanted = settings_beside(base.settings, ours, experiments, shards)
        except ValueError as error:
            left_out.append(f"{label} is left out: {error}")
            continue
        found.append((Run(label, wanted, seeds_of(experiments, wanted), name), compute))
    return found, left_out


def compute_of(params: Params, shards: Path) -> Compute:
    """Raises ValueError if the shards have too few clips for the run."""
    from matpac.training.cost import clips_in, crops_of, flops_of

    return Compute(
        params.pretrain.num_epochs, flops_of(params).total, crops_of(params, clips_in(shards, params))
    )


def check_same_shards(ours: Params, params: Params) -> None:
    """Raise ValueError if shards of `params` are made otherwise for `ours`: scores would not compare."""
    datasets = {name: ours.datasets.get(name) for name in params.datasets}
    if (datasets, ours.logmel, ours.shards) != (params.datasets, params.logmel, params.shards):
        raise ValueError(
            "it changes how shards are made (datasets, logmel, shards); scores on other shards do not compare"
        )


def settings_beside(
    base: Settings, params: Params, experiments: Sequence[Experiment], shards: Path
) -> Settings:
    """Settings of a run beside `base`, perhaps on other recordings or from other initial weights.

    Weights are told apart by their digest, which is unknown here for other weights than those of `base`.
    So the latest record with all other settings gives it.

    Raises:
        ValueError: The run learns from other datasets, and one of them has no finished shards.
    """
    found = without_seed(base | flat(sections_of(params, SECTIONS)))
    if found[DATASETS] != base[DATASETS]:
        found = {key: value for key, value in found.items() if not key.startswith("corpus.")}
        found |= {f"corpus.{name}": fingerprint(shards / name) for name in params.pretrain.datasets}
    if found[INIT] != base[INIT]:
        found.pop(INIT_DIGEST, None)
        recorded = {
            result.recorded: one.settings
            for one in experiments
            for result in one.results.values()
            if without_seed(one.settings) | {INIT_DIGEST: ""} == found | {INIT_DIGEST: ""}
        }
        if recorded:
            return without_seed(recorded[max(recorded)])
    return found


def runs_along(
    experiments: Sequence[Experiment], base: Run, key: str, values: Iterable[float]
) -> list[tuple[float, Run]]:
    """Runs that differ from the base in one key: for each of the grid's `values`, and for others tried."""
    ours = base.settings[key]
    tried = [
        one.settings[key] for one in experiments if without_seed(one.settings) | {key: ours} == base.settings
    ]
    wanted, runs = set(values), []
    for value in sorted({*wanted, *tried, ours}):
        run = base if value == ours else varied(experiments, base, key, value)
        runs.append((value, run if value in wanted else run._replace(grid="")))
    return runs


def remaining_runs(experiments: Sequence[Experiment], runs: Sequence[Run], base: Run) -> list[Run]:
    """Runs of the experiments that are in none of `runs`; other encoders come last."""
    found: list[Run] = []
    for one in experiments:
        settings = without_seed(one.settings)
        if all(settings != run.settings for run in [*runs, *found]):
            label = label_of(settings, experiments, base.settings)
            found.append(Run(label, settings, seeds_of(experiments, settings)))
    return sorted(found, key=lambda run: (is_other(run.settings), run.label))


def label_of(settings: Settings, experiments: Sequence[Experiment], base: Settings) -> str:
    """The differences from `base`. Other encoders start with their name; namesakes add what differs."""
    if is_finetuned(settings) and not is_finetuned(base):
        # What both have: neither how probes nor how encoders are trained further.
        ours, theirs = (
            {key: value for key, value in one.items() if not key.startswith(("finetune.", "probe."))}
            for one in (settings, base)
        )
        return "fine-tuned" if ours == theirs else f"fine-tuned, {what_differs(ours, theirs)}"
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
    return ", ".join([name, *in_words(settings, keys)])


def what_differs(settings: Settings, base: Settings) -> str:
    """`alpha 0.25`, for example. Fingerprints of the corpus are left out: no reader knows them."""
    keys = [
        key
        for key in sorted(settings.keys() | base.keys())
        if settings.get(key) != base.get(key) and not key.startswith("corpus.")
    ]
    return ", ".join(in_words(settings, keys)) or "other recordings"


def in_words(settings: Settings, keys: Sequence[str]) -> list[str]:
    words = [f"{NAMES.get(key, key)} {plain(settings.get(key))}" for key in keys[:MAX_DIFFERENCES]]
    return words + ([f"and {len(keys) - MAX_DIFFERENCES} more"] if len(keys) > MAX_DIFFERENCES else [])


def plain(value: object) -> str:
    """1.0 as 1: a grid may write either."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def without_seed(settings: Settings) -> Settings:
    """Settings that all experiments of a row share."""
    return {key: value for key, value in settings.items() if key != SEED}


def seeds_of(experiments: Sequence[Experiment], settings: Settings) -> Seeds:
    """Experiments with these settings, whatever their seed."""
    wanted = without_seed(settings)
    found = {one.settings.get(SEED): one for one in experiments if without_seed(one.settings) == wanted}
    return dict(sorted(found.items(), key=lambda pair: pair[0] or 0))


def score(seeds: Seeds, datasets: Sequence[str]) -> Measured | None:
    """Mean over the seeds; of a single seed, over its repeats. None if no seed has all datasets."""
    found = list(repeats_by_seed(seeds, datasets).values())
    if not found:
        return None
    values = found[0] if len(found) == 1 else [float(np.mean(repeats)) for repeats in found]
    return Measured(mean_and_interval(values), len(found))


def difference(ours: Seeds, base: Seeds, datasets: Sequence[str]) -> Measured | None:
    """Mean of `ours` minus `base` over pairs, and its 95 % interval by Student's t.

    With two shared seeds or more, each shared seed is a pair. Otherwise each repeat of the probe is
    a pair: of the one shared seed or, if there is none, of the mean over seeds. Repeats of the same
    number see the clips in the same order, and embeddings of equal length begin with the same probe
    weights. None if no pairs can be made: other recordings, another probe, or nothing to compare.
    """
    left, right = repeats_by_seed(ours, datasets), repeats_by_seed(base, datasets)
    pairs = [(ours[one], base[other]) for one in left for other in right]
    if not pairs or not all(can_be_paired(one, other, datasets) for one, other in pairs):
        return None
    shared = shared_seeds(left, right)
    if len(shared) >= 2:
        gaps = [np.mean(repeats_at(left, seed)) - np.mean(repeats_at(right, seed)) for seed in shared]
    else:
        ahead, behind = ([repeats_at(part, seed) for seed in shared or part] for part in (left, right))
        gaps = list(np.mean(ahead, axis=0) - np.mean(behind, axis=0))
    return Measured(mean_and_interval([float(gap) for gap in gaps]), len(shared))


def shared_seeds(ours: Mapping[int | None, Any], base: Mapping[int | None, Any]) -> Set[int | None]:
    """Seeds that make pairs. An experiment without a seed pairs with every seed of the other side."""
    if None in ours or None in base:
        return (ours.keys() | base.keys()) - {None}
    return ours.keys() & base.keys()


def repeats_at(repeats: Mapping[int | None, list[float]], seed: int | None) -> list[float]:
    return repeats[None if None in repeats else seed]


def repeats_by_seed(seeds: Seeds, datasets: Sequence[str]) -> dict[int | None, list[float]]:
    """Repeats of the seeds that have been probed on all of the datasets."""
    found = {seed: repeats_of(one, datasets) for seed, one in seeds.items()}
    return {seed: repeats for seed, repeats in found.items() if repeats is not None}


def can_be_paired(one: Experiment, other: Experiment, datasets: Sequence[str]) -> bool:
    return probe_of(one) == probe_of(other) and same_data(one, other, datasets)


def on_same_data(seeds: Seeds, base: Experiment | None, datasets: Sequence[str]) -> Seeds:
    """The seeds that were probed on the same recordings as `base`."""
    if base is None:
        return seeds
    return {seed: one for seed, one in seeds.items() if same_data(one, base, datasets)}


def same_data(left: Experiment, right: Experiment, datasets: Sequence[str]) -> bool:
    """Whether the datasets that both have been probed on are the same recordings."""
    shared = [name for name in datasets if name in left.results and name in right.results]
    return all(left.results[name].data == right.results[name].data for name in shared)


def probe_of(experiment: Experiment) -> Settings:
    return {key: value for key, value in experiment.settings.items() if key.startswith("probe.")}
