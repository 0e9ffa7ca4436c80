"""scores of a run <-> data/experiments, the records of all runs made here.

Records outlive changes of the parameters. A run adds its record, or renews the one with its settings.
DVC carries the folder (`dvc push`), and takes back an older one if it is told to (`dvc checkout`,
`dvc exp apply`); so data/.work has a copy, with which the next run makes the folder complete again.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from matpac.files import WORK, read_json, write_json, write_text
from matpac.finetuning.scores import DESCRIPTION
from matpac.git import git_revision
from matpac.params import BEFORE, Params, ScoreOn, digest, flat
from matpac.probing.scores import DETAILS, repeat_scores
from matpac.probing.store import BASELINES
from matpac.shards.corpus import fingerprint

FORMAT = 1
KEPT = WORK / "experiments"
ABOUT = """Records of runs, one `.json` for each setting: its parameters, and its scores by dataset.
`matpac record` writes them, `matpac report` makes its tables of them.
A run that probes no dataset has none.
"""
"""Tells readers what the folder is, and keeps DVC from warning that it is empty."""
SECTIONS = ("logmel", "model", "pretrain", "probe")
"""Sections that our scores depend on, besides the recordings."""
SECTIONS_OF_FINETUNED = ("logmel", "model", "pretrain", "finetune")
"""The same for scores of fine-tuning."""
SECTIONS_OF_OTHERS = ("logmel", "probe")
"""The same for other encoders: `logmel` has the resampler, and decides which clips are too short."""

SCORE_ON, INIT_DIGEST = "probe.score_on", "pretrain.init_digest"
OLDER = {**flat({"pretrain": BEFORE}), SCORE_ON: "test", "probe.pooling": "mean"}
"""What results that are older than these keys were made with."""
SECOND_READINGS = ("probe.knn", "probe.attentive")
"""Keys that change no score; older records name them."""

Settings = dict[str, Any]
"""The sections as flat keys (`pretrain.alpha: 0.5`), and fingerprints of the recordings
(`corpus.<dataset>`) and initial weights. Other encoders have their name and `Origin` as `encoder.<field>`."""


class Result(NamedTuple):
    """Scores of the probes, or of fine-tuning, on one dataset."""

    data: str
    """Fingerprint of the dataset's shards."""
    repeats: list[float]
    """Score of each repeat, a fraction: the mean over its folds."""
    baselines: Mapping[str, list[float]] = {}
    """Repeats of each of `BASELINES`. This and the next three fields are empty in older records."""
    recorded: str = ""
    """Time of the record in UTC: 2025-01-31T12:00:00+00:00."""
    git_revision: str = ""
    """Revision of the code that made the record, with `+` if the tree had changes; empty without git."""
    trained_revision: str = ""
    """Revision of the code that trained the encoder; empty without git, and for other encoders."""
    heard: Mapping[str, Any] | None = None
    """How many test clips were in pre-training (`heard_of`); None if nobody knows, as for other encoders."""


class Experiment(NamedTuple):
    settings: Settings
    results: dict[str, Result]


def record_run(root: Path, params: Params, elsewhere: Sequence[Path] = ()) -> None:
    """Record the finished run in `root`/data, and the other encoders that it probed.

    Other encoders have their own records, because their scores do not depend on our training, and so has
    fine-tuning, because probes do not depend on it. Datasets that were probed earlier with the same
    settings keep their results.

    Args:
        root: Folder that holds `data`.
        params: Parameters of the run.
        elsewhere: Records of experiments that ran in other folders; they are added.

    Raises:
        ValueError: If the run is not finished, or was made with other parameters.
    """
    data = root / "data"
    meta = read_finished(data / "checkpoints" / "pretrained" / "meta.json")
    refuse_others(params, meta, "the checkpoint")
    corpus = read_finished(data / "corpus.json")
    ours = settings_of(params, corpus, meta)
    recorded, revision = datetime.now(UTC).isoformat(timespec="seconds"), git_revision()
    folder, kept = data / "experiments", root / KEPT
    folder.mkdir(exist_ok=True)
    write_text(folder / "README.md", ABOUT)
    gather(folder, [*sorted(kept.glob("*.json")), *elsewhere])
    for dataset in params.probe.datasets:
        details = read_finished(data / "scores" / f"{dataset}{DETAILS}")
        refuse_others(params, details, f"the scores of {dataset}")
        repeats = {name: repeat_scores(found["scores"]) for name, found in details["features"].items()}
        result = Result(
            fingerprint(data / "shards" / dataset),
            repeats["pretrained"],
            {name: repeats[name] for name in BASELINES},
            recorded,
            revision,
            trained_revision=meta.get("git_revision", ""),
            heard=details["summary"].get("heard"),
        )
        add(folder, ours, dataset, result)
        for name, origin in details["others"].items():
            settings = settings_of_other(params, name, origin)
            other = result._replace(repeats=repeats[name], baselines={}, trained_revision="", heard=None)
            add(folder, settings, dataset, other)
    for dataset in params.finetune.datasets:
        found = read_finished(data / "finetuned" / dataset / DESCRIPTION)
        refuse_others(params, found["origin"], f"what was fine-tuned on {dataset}", ("finetune",))
        result = Result(
            fingerprint(data / "shards" / dataset),
            repeat_scores(found["scores"]["folds"]),
            {},
            recorded,
            revision,
            trained_revision=found["origin"]["git_revision"],
            heard=found["scores"].get("heard"),
        )
        add(folder, settings_of_finetuned(params, corpus, meta), dataset, result)
    for path in folder.glob("*.json"):
        write_text(kept / path.name, path.read_text(encoding="utf-8"))


def gather(folder: Path, records: Iterable[Path]) -> None:
    """Add records to those of the folder. Of two results for one dataset, the later one stays."""
    ours = {digest(one.settings): one.results for one in read_experiments(folder)}
    for path in records:
        found = read_experiment(path)
        results = ours.setdefault(digest(found.settings), {})
        for dataset, result in found.results.items():
            if dataset not in results or results[dataset].recorded < result.recorded:
                add(folder, found.settings, dataset, result)
                results[dataset] = result


def refuse_others(
    params: Params, made_with: Mapping[str, Any], what: str, names: Sequence[str] = SECTIONS
) -> None:
    """Raise ValueError if a result was made with other values of the sections `names` than `params` has.

    That happens if params.yaml was edited between the stages of one `dvc repro`.
    """
    needed = flat(sections_of(params, names))
    there = [name for name in names if name in made_with]
    found = older(there) | flat({name: made_with[name] for name in there})
    for key in sorted(needed.keys() & found.keys()):
        if needed[key] != found[key]:
            raise ValueError(
                f"record: need results of {key}: {needed[key]}, as in params.yaml; {what} was made with "
                f"{found[key]}. Run `dvc repro` again, and edit params.yaml between two runs."
            )


def older(names: Iterable[str]) -> Settings:
    """Keys of `OLDER` in these sections."""
    return {key: value for key, value in OLDER.items() if key.partition(".")[0] in names}


def read_finished(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(f"record: need the scores of a finished run, found no {path}. Run `dvc repro`.")
    found: dict[str, Any] = read_json(path)
    return found


def add(folder: Path, settings: Settings, dataset: str, result: Result) -> None:
    path = folder / f"{digest(settings)}.json"
    # File names are digests of settings, so older records may sit under another name: merge them.
    records = {one: read_experiment(one) for one in sorted(folder.glob("*.json"))}
    same = sorted((one for one in records if records[one].settings == settings), key=lambda one: one == path)
    results: dict[str, Result] = {}
    for one in same:
        results |= records[one].results
    before = results.get(dataset)
    # Equal scores keep their date: an unchanged file makes no report stale.
    if before is None or not before.recorded or before[:3] != result[:3] or before.heard != result.heard:
        results[dataset] = result
    plain = {name: found._asdict() for name, found in results.items()}
    write_json(path, {"format": FORMAT, "settings": settings, "results": plain})
    for one in same:
        if one != path:
            one.unlink()


def read_experiments(folder: Path) -> list[Experiment]:
    """Read all records; ValueError if one is broken or has another format."""
    return [read_experiment(path) for path in sorted(folder.glob("*.json"))]


def read_experiment(path: Path) -> Experiment:
    """Read a record. Records written before a key existed get that key's old behavior."""
    try:
        raw = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error} Remove the file; running it again records it again.") from None
    found = raw.get("format") if isinstance(raw, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: need an experiment of format {FORMAT}, found {found}. Remove the file.")
    settings = {key: value for key, value in raw["settings"].items() if key not in SECOND_READINGS}
    settings = older({key.partition(".")[0] for key in settings}) | settings
    return Experiment(settings, {name: Result(**result) for name, result in raw["results"].items()})


def settings_of(params: Params, corpus: dict[str, Any], meta: dict[str, Any]) -> Settings:
    """Settings of the probes of the checkpoint with `meta`."""
    return _settings(params, SECTIONS, corpus, meta)


def settings_of_finetuned(params: Params, corpus: dict[str, Any], meta: dict[str, Any]) -> Settings:
    """Settings of fine-tuning the checkpoint with `meta`."""
    return _settings(params, SECTIONS_OF_FINETUNED, corpus, meta)


def _settings(params: Params, names: Sequence[str], corpus: dict[str, Any], meta: dict[str, Any]) -> Settings:
    settings = flat({**sections_of(params, names), "corpus": corpus.get("datasets", {})})
    # The file that `pretrain.init` names may change; its digest tells.
    init = meta.get("init_digest")
    return settings | {INIT_DIGEST: init[:16]} if init else settings


def settings_of_other(params: Params, name: str, origin: dict[str, Any]) -> Settings:
    return flat({**sections_of(params, SECTIONS_OF_OTHERS), "encoder": {"name": name, **origin}})


def sections_of(params: Params, names: Sequence[str]) -> dict[str, Any]:
    """Sections without the keys that change no score: datasets to score, and second readings."""
    sections = params.model_dump(mode="json", include=set(names))
    for key in ("probe.datasets", "finetune.datasets", *SECOND_READINGS):
        section, name = key.split(".")
        sections.get(section, {}).pop(name, None)
    return {name: sections[name] for name in names}


def is_other(settings: Settings) -> bool:
    """Whether these are settings of an encoder that is not ours."""
    return "encoder.name" in settings


def is_finetuned(settings: Settings) -> bool:
    """Whether these are settings of fine-tuning, not of probes."""
    return "finetune.num_epochs" in settings


def scored_on(experiments: Iterable[Experiment], score_on: ScoreOn) -> list[Experiment]:
    """Records of probes that were scored on these clips, so that no table mixes the two."""
    return [one for one in experiments if one.settings.get(SCORE_ON) == score_on]


def repeats_of(experiment: Experiment, datasets: Sequence[str]) -> list[float] | None:
    """Mean over the datasets in each repeat; None if one is missing or has other repeats."""
    found = [experiment.results[name].repeats for name in datasets if name in experiment.results]
    if not found or len(found) < len(datasets) or len({len(repeats) for repeats in found}) > 1:
        return None
    return [float(score) for score in np.mean(found, axis=0)]
