"""experiments that differ in the seed of pre-training only -> scores and differences over the seeds."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from matpac.probing.scores import mean_and_interval
from matpac.report.experiments import Experiment, Settings, repeats_of

SEED = "pretrain.seed"

Seeds = dict[int | None, Experiment]
"""By seed; what does not depend on ours (other encoders, log-mel statistics) is one, under None."""


class Measured(NamedTuple):
    score: dict[str, float]
    """Mean and half of its 95 % interval; fractions."""
    num_seeds: int
    """The interval is over so many of them; of a single one, over repeats of the probe."""


def without_seed(settings: Settings) -> Settings:
    """What the experiments of a row have in common."""
    return {key: value for key, value in settings.items() if key != SEED}


def seeds_of(experiments: Sequence[Experiment], settings: Settings) -> Seeds:
    """Those with `settings`, whatever their seed."""
    wanted = without_seed(settings)
    found = {one.settings.get(SEED): one for one in experiments if without_seed(one.settings) == wanted}
    return dict(sorted(found.items(), key=lambda pair: pair[0] or 0))


def score(seeds: Seeds, datasets: Sequence[str]) -> Measured | None:
    """Mean over seeds of their means; of a single one, over its repeats. None where none has all datasets."""
    found = list(probed(seeds, datasets).values())
    if not found:
        return None
    values = found[0] if len(found) == 1 else [float(np.mean(repeats)) for repeats in found]
    return Measured(mean_and_interval(values), len(found))


def difference(ours: Seeds, base: Seeds, datasets: Sequence[str]) -> Measured | None:
    """Mean of `ours` minus `base`, and its 95 % interval by Student's t, over pairs.

    Pairs are the seeds `in_common`, where these are two or more. Else they are repeats of the probe, of
    the seed that both have or, without one, of the mean over seeds: repeats of the same number see the
    clips in the same order and, where embeddings are of equal length, begin with the same weights. None
    where nothing makes a pair: other recordings, another probe, or nothing to compare.
    """
    left, right = probed(ours, datasets), probed(base, datasets)
    pairs = [(ours[one], base[other]) for one in left for other in right]
    if not pairs or not all(can_be_paired(one, other, datasets) for one, other in pairs):
        return None
    shared = in_common(left, right)
    if len(shared) >= 2:
        gaps = [np.mean(of_seed(left, seed)) - np.mean(of_seed(right, seed)) for seed in shared]
    else:
        ahead, behind = ([of_seed(part, seed) for seed in shared or part] for part in (left, right))
        gaps = list(np.mean(ahead, axis=0) - np.mean(behind, axis=0))
    return Measured(mean_and_interval([float(gap) for gap in gaps]), len(shared))


def in_common(ours: Mapping[int | None, Any], base: Mapping[int | None, Any]) -> Set[int | None]:
    """Seeds that make pairs: what does not depend on the seed is the same for each."""
    if None in ours or None in base:
        return (ours.keys() | base.keys()) - {None}
    return ours.keys() & base.keys()


def of_seed(repeats: Mapping[int | None, list[float]], seed: int | None) -> list[float]:
    return repeats[None if None in repeats else seed]


def probed(seeds: Seeds, datasets: Sequence[str]) -> dict[int | None, list[float]]:
    """Repeats of the seeds that have been probed on all of the datasets."""
    found = {seed: repeats_of(one, datasets) for seed, one in seeds.items()}
    return {seed: repeats for seed, repeats in found.items() if repeats is not None}


def can_be_paired(one: Experiment, other: Experiment, datasets: Sequence[str]) -> bool:
    return probe_of(one) == probe_of(other) and same_data(one, other, datasets)


def on_same_data(seeds: Seeds, base: Experiment | None, datasets: Sequence[str]) -> Seeds:
    """Without those that were probed on other recordings than `base`."""
    if base is None:
        return seeds
    return {seed: one for seed, one in seeds.items() if same_data(one, base, datasets)}


def same_data(left: Experiment, right: Experiment, datasets: Sequence[str]) -> bool:
    """Whether those of the datasets that both have been probed on are the same recordings."""
    shared = [name for name in datasets if name in left.results and name in right.results]
    return all(left.results[name].data == right.results[name].data for name in shared)


def probe_of(experiment: Experiment) -> Settings:
    return {key: value for key, value in experiment.settings.items() if key.startswith("probe.")}
