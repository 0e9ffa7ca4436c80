"""shards, corpus, checkpoint, parameters -> the data, and what the numbers were made from."""

from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from matpac.clip import NOTES, REASONS
from matpac.datasets.inventory import read_passed_over
from matpac.files import read_json
from matpac.params import Params
from matpac.progress import duration
from matpac.report.experiments import Experiment, Result, Settings, is_other
from matpac.report.html import Section, section
from matpac.report.rows import SEED, label_of, without_seed
from matpac.walk import kind_in_words

PACKAGES = (
    *("matpac", "torch", "timm", "numpy", "scipy", "librosa", "soundfile", "soxr", "pyarrow", "zarr"),
    *("scikit-learn", "safetensors", "matplotlib", "jinja2", "dvc", "dvclive", "prefect"),
)
"""Packages that the stages run on."""
NO_GIT = "no git"


def data_section(shards: Path, params: Params) -> Section | None:
    """Each dataset's clips, the recordings left out or used with a note, and what is no recording."""
    datasets, rejected, notes, choices, passed_over = [], [], [], [], []
    for name in params.datasets:
        path = shards / name / "statistics.json"
        if not path.exists():
            continue
        statistics = read_json(path)
        datasets.append({"name": name, **statistics})
        rejected += [
            [name, reason, f"{number:,}", REASONS[reason]]
            for reason, number in statistics["num_rejected"].items()
        ]
        notes += [
            [name, note, f"{number:,}", NOTES[note]] for note, number in statistics["num_notes"].items()
        ]
        if statistics.get("choices"):
            choices.append(f"{name} is read as: {'; '.join(statistics['choices'])}.")
        found = read_passed_over(shards / name)
        passed_over += [
            [name, kind_in_words(kind), f"{number:,}", ", ".join(found.examples[kind])]
            for kind, number in found.by_number().items()
        ]
    if not datasets:
        return None
    return section(
        "The data",
        "data.html.j2",
        datasets=datasets,
        choices=choices,
        rejected=rejected,
        notes=notes,
        passed_over=passed_over,
    )


def read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def run_facts(meta: dict[str, Any], params: Params) -> dict[str, str]:
    """Facts about the encoder for the top of the page."""
    trained_on = ", ".join(params.pretrain.datasets) if params.pretrain.num_epochs else "nothing here"
    known = {
        "Pre-trained on": trained_on,
        "Model": f"{params.model.size}, {params.model.num_clusters:,} classes, "
        f"{params.model.mask_ratio:.0%} hidden",
    }
    if params.probe.score_on == "validation":
        known["Scores on"] = "VALIDATION clips, to choose settings; no test clip entered a score"
    if params.pretrain.init is not None:
        known["Initial weights"] = params.pretrain.init
    if meta.get("update"):
        known["Training"] = f"{meta['update']:,} updates of {params.pretrain.batch_size:,} crops"
    if meta.get("duration_s"):
        known["Time"] = duration(meta["duration_s"])
    if meta.get("hardware"):
        known["Hardware"] = str(meta["hardware"])
    return known


def provenance_section(
    meta: dict[str, Any],
    corpus: dict[str, Any],
    experiments: Sequence[Experiment],
    this_run: Settings,
    params: Params,
) -> Section:
    known = {}
    if "git_revision" in meta:
        known["Git revision"] = str(meta["git_revision"]) or NO_GIT
    if "data_digest" in meta:
        known["Data digest"] = str(meta["data_digest"])
    for name, fingerprint in (corpus.get("datasets", {}) | corpus.get("online", {})).items():
        known[f"Shards of {name}"] = str(fingerprint)
    if "versions" in meta:
        known["Versions when training"] = listed(meta["versions"])
    known["Versions of this report"] = listed(installed())
    return section(
        "Where this comes from",
        "provenance.html.j2",
        known=known,
        records=records(experiments, this_run),
        settings=yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def records(experiments: Sequence[Experiment], this_run: Settings) -> list[list[str]]:
    """Rows of all records: run, seed, date, revision that trained, revision that recorded."""
    rows, base = [], without_seed(this_run)
    for one in experiments:
        settings, results = without_seed(one.settings), one.results.values()
        rows.append(
            [
                "this run" if settings == base else label_of(settings, experiments, base),
                str(one.settings.get(SEED, "")),
                all_of(result.recorded.removesuffix("+00:00").replace("T", " ") for result in results),
                ""
                if is_other(settings)
                else all_of(revision_of(result, result.trained_revision) for result in results),
                all_of(revision_of(result, result.git_revision) for result in results),
            ]
        )
    return sorted(rows)


def revision_of(result: Result, revision: str) -> str:
    """Older records, which have no date either, do not know their revision."""
    return revision or (NO_GIT if result.recorded else "")


def all_of(words: Iterable[str]) -> str:
    return ", ".join(sorted({*words} - {""})) or "unknown"


def installed() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
