"""scores of a run <-> data/experiments: a small record of everything that was ever run here.

The folder outlives a change of parameters: a run adds its record, or renews the one of the same settings.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from matpac.files import read_json, write_json
from matpac.git import git_revision
from matpac.params import BEFORE, Params, digest
from matpac.probing.scores import DETAILS, repeat_scores
from matpac.probing.store import BASELINES
from matpac.shards.corpus import fingerprint

FORMAT = 1
SECTIONS = ("logmel", "model", "pretrain", "probe")
"""What a score of ours depends on, besides the recordings."""
SECTIONS_OF_OTHERS = ("logmel", "probe")
"""And one of another encoder: `logmel` has the resampler, and decides which clips are too short."""

SECOND_READINGS = ("probe.knn", "probe.attentive")
"""No score depends on them; older records name them."""

Settings = dict[str, Any]
"""`pretrain.alpha: 0.5`, ...: the sections flat, a fingerprint of each corpus as `corpus.<dataset>`, and of
the weights that `pretrain.init` named. Of another encoder: its name and `Origin` as `encoder.<field>`."""


class Result(NamedTuple):
    """Of the probes of one dataset."""

    data: str
    """Fingerprint of the shards they were trained and tested on."""
    repeats: list[float]
    """A fraction for each repeat: the mean over its folds."""
    baselines: Mapping[str, list[float]] = {}
    """The same of `BASELINES`; empty for other encoders, and in older records, as are the next three."""
    recorded: str = ""
    """When, in UTC, as 2025-01-31T12:00:00+00:00."""
    git_revision: str = ""
    """Of the code that recorded it, with `+` where the tree was changed; empty outside a repository."""
    trained_revision: str = ""
    """Of the code that trained the encoder; empty for other encoders."""


class Experiment(NamedTuple):
    settings: Settings
    results: dict[str, Result]


def record_run(root: Path, params: Params) -> None:
    """Add the run that lies in `root`/data to its folder `experiments`; other encoders, too.

    These have records of their own: their scores do not depend on what was trained. A dataset that was
    probed with the same settings before, and is no longer, keeps its result. Raises ValueError where the
    run is not finished.
    """
    data = root / "data"
    meta = read_finished(data / "checkpoints" / "pretrained" / "meta.json")
    ours = settings_of(params, read_finished(data / "corpus.json"), meta)
    recorded, revision = datetime.now(UTC).isoformat(timespec="seconds"), git_revision()
    folder = data / "experiments"
    folder.mkdir(exist_ok=True)
    for dataset in params.probe.datasets:
        details = read_finished(data / "scores" / f"{dataset}{DETAILS}")
        repeats = {name: repeat_scores(found["scores"]) for name, found in details["features"].items()}
        result = Result(
            fingerprint(data / "shards" / dataset),
            repeats["pretrained"],
            {name: repeats[name] for name in BASELINES},
            recorded,
            revision,
            trained_revision=meta.get("git_revision", ""),
        )
        add(folder, ours, dataset, result)
        for name, origin in details["others"].items():
            settings = settings_of_other(params, name, origin)
            other = result._replace(repeats=repeats[name], baselines={}, trained_revision="")
            add(folder, settings, dataset, other)


def read_finished(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(f"record: need the scores of a finished run, got no {path}. Run `dvc repro`.")
    found: dict[str, Any] = read_json(path)
    return found


def add(folder: Path, settings: Settings, dataset: str, result: Result) -> None:
    path = folder / f"{digest(settings)}.json"
    # Records from before a key have other names; two of the same settings would be one too many.
    records = {one: read_experiment(one) for one in sorted(folder.glob("*.json"))}
    same = sorted((one for one in records if records[one].settings == settings), key=lambda one: one == path)
    results: dict[str, Result] = {}
    for one in same:
        results |= records[one].results
    before = results.get(dataset)
    # The same once more is no news: a file that stays as it is makes no report stale.
    if before is None or not before.recorded or before[:3] != result[:3]:
        results[dataset] = result
    plain = {name: found._asdict() for name, found in results.items()}
    write_json(path, {"format": FORMAT, "settings": settings, "results": plain})
    for one in same:
        if one != path:
            one.unlink()


def read_experiments(folder: Path) -> list[Experiment]:
    """Raises ValueError for a record that is broken or of another format."""
    return [read_experiment(path) for path in sorted(folder.glob("*.json"))]


def read_experiment(path: Path) -> Experiment:
    """One that is older than a key did what was done before it. Raises as `read_experiments` does."""
    try:
        raw = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error} Remove the file; its run, done again, adds it again.") from None
    found = raw.get("format") if isinstance(raw, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: need an experiment of format {FORMAT}, got {found}. Remove the file.")
    older = {} if is_other(raw["settings"]) else flat({"pretrain": BEFORE})
    settings = older | {key: value for key, value in raw["settings"].items() if key not in SECOND_READINGS}
    return Experiment(settings, {name: Result(**result) for name, result in raw["results"].items()})


def settings_of(params: Params, corpus: dict[str, Any], meta: dict[str, Any]) -> Settings:
    """Of the run that made the checkpoint with `meta`."""
    settings = flat({**sections_of(params, SECTIONS), "corpus": corpus.get("datasets", {})})
    # What `pretrain.init` names may be another file tomorrow.
    init = meta.get("init_digest")
    return settings | {"pretrain.init_digest": init[:16]} if init else settings


def settings_of_other(params: Params, name: str, origin: dict[str, Any]) -> Settings:
    return flat({**sections_of(params, SECTIONS_OF_OTHERS), "encoder": {"name": name, **origin}})


def sections_of(params: Params, names: Sequence[str]) -> dict[str, Any]:
    """Without what changes no score: which datasets are probed, and second readings."""
    sections = params.model_dump(mode="json", include=set(names))
    for key in ("probe.datasets", *SECOND_READINGS):
        del sections["probe"][key.removeprefix("probe.")]
    return {name: sections[name] for name in names}


def is_other(settings: Settings) -> bool:
    """Whether an encoder was probed that is not ours."""
    return "encoder.name" in settings


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
