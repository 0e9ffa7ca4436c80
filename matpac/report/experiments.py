"""scores of a run <-> data/experiments: a small record of everything that was ever run here.

The folder outlives a change of parameters: a run adds its record, or renews the one of the same settings.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from matpac.files import read_json, write_json
from matpac.params import BEFORE, Params, digest
from matpac.probing.scores import DETAILS, mean_and_interval, repeat_scores
from matpac.shards.corpus import fingerprint

FORMAT = 1
SECTIONS = ("logmel", "model", "pretrain", "probe")
"""What a score depends on, besides the recordings."""

Settings = dict[str, Any]
"""`pretrain.alpha: 0.5`, ...: the sections flat, and a fingerprint of each corpus as `corpus.<dataset>`."""


class Result(NamedTuple):
    """Of the probes of one dataset."""

    data: str
    """Fingerprint of the shards they were trained and tested on."""
    repeats: list[float]
    """A fraction for each repeat: the mean over its folds."""


class Experiment(NamedTuple):
    settings: Settings
    results: dict[str, Result]


def record_run(root: Path, params: Params) -> None:
    """Add the run that lies in `root`/data to its folder `experiments`.

    A dataset that was probed with the same settings before, and is no longer, keeps its result.
    """
    data = root / "data"
    settings = settings_of(params, read_json(data / "corpus.json"))
    results = {name: result_of(data, name)._asdict() for name in params.probe.datasets}
    path = data / "experiments" / f"{digest(settings)}.json"
    earlier = read_json(path)["results"] if path.exists() else {}
    write_json(path, {"format": FORMAT, "settings": settings, "results": earlier | results})


def result_of(data: Path, dataset: str) -> Result:
    details = read_json(data / "scores" / f"{dataset}{DETAILS}")
    scores = repeat_scores(details["features"]["pretrained"]["scores"])
    return Result(fingerprint(data / "shards" / dataset), scores)


def read_experiments(folder: Path) -> list[Experiment]:
    """Raises ValueError for a record of another format."""
    experiments = []
    for path in sorted(folder.glob("*.json")):
        raw = read_json(path)
        if raw.get("format") != FORMAT:
            raise ValueError(
                f"{path}: need an experiment of format {FORMAT}, got {raw.get('format')}. Delete the file."
            )
        results = {name: Result(**result) for name, result in raw["results"].items()}
        experiments.append(Experiment(flat({"pretrain": BEFORE}) | raw["settings"], results))
    return experiments


def settings_of(params: Params, corpus: dict[str, Any]) -> Settings:
    """Which datasets are probed is left out: it changes no score."""
    sections = params.model_dump(mode="json", include=set(SECTIONS))
    del sections["probe"]["datasets"]
    return flat({name: sections[name] for name in SECTIONS} | {"corpus": corpus.get("datasets", {})})


def flat(section: dict[str, Any], prefix: str = "") -> Settings:
    values: Settings = {}
    for name, value in section.items():
        key = f"{prefix}{name}"
        values |= flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return values


def repeats_of(experiment: Experiment, datasets: Sequence[str]) -> list[float] | None:
    """Mean over the datasets, repeat by repeat; None where one is missing, or has other repeats."""
    found = [experiment.results[name].repeats for name in datasets if name in experiment.results]
    if not found or len(found) < len(datasets) or len({len(repeats) for repeats in found}) > 1:
        return None
    return [float(score) for score in np.mean(found, axis=0)]


def difference(ours: Experiment, base: Experiment, datasets: Sequence[str]) -> dict[str, float] | None:
    """Mean of `ours` minus `base`, and its 95 % interval by Student's t over pairs of repeats.

    Repeats of the same number begin with the same weights and see the clips in the same order, which makes
    them pairs. None where they are not: other recordings, another probe, or nothing to compare.
    """
    probes = [{key: value for key, value in one.settings.items() if probed_by(key)} for one in (ours, base)]
    left, right = repeats_of(ours, datasets), repeats_of(base, datasets)
    if left is None or right is None or probes[0] != probes[1]:
        return None
    if not same_data(ours, base, datasets):
        return None
    return mean_and_interval(np.subtract(left, right).tolist())


def same_data(left: Experiment, right: Experiment, datasets: Sequence[str]) -> bool:
    """Whether those of the datasets that both have been probed on are the same recordings."""
    shared = [name for name in datasets if name in left.results and name in right.results]
    return all(left.results[name].data == right.results[name].data for name in shared)


def probed_by(key: str) -> bool:
    return key.startswith("probe.")


def more_than_chance(gap: dict[str, float]) -> bool:
    return bool(abs(gap["mean"]) > gap["interval"])
