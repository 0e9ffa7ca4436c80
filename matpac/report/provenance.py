"""shards, corpus, checkpoint, parameters -> what the numbers were made from."""

from collections.abc import Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from matpac.clip import REASONS
from matpac.files import read_json
from matpac.params import Params
from matpac.progress import duration
from matpac.report.experiments import Experiment, Settings, is_other
from matpac.report.markup import facts, folded, paragraph, section, table
from matpac.report.runs import label_of
from matpac.report.seeds import SEED, without_seed

PACKAGES = ("matpac", "torch", "timm", "numpy", "librosa", "soxr", "scikit-learn", "zarr", "webdataset")


def data(shards: Path, params: Params) -> str:
    rows, reasons = [], []
    for name in params.datasets:
        if not (shards / name / "statistics.json").exists():
            continue
        statistics = read_json(shards / name / "statistics.json")
        rows.append(
            [
                f"<b>{escape(name)}</b>",
                f"{statistics['num_clips']:,}",
                f"{statistics['mean']:.2f} ± {statistics['std']:.2f}",
                f"{sum(statistics['num_rejected'].values()):,}",
            ]
        )
        reasons += [
            [escape(name), escape(reason), f"{number:,}", escape(REASONS[reason])]
            for reason, number in statistics["num_rejected"].items()
        ]
    if not rows:
        return ""
    header = ["Dataset", "Clips", "Log-mel mean ± deviation", "Rejected"]
    rejected = table(["Dataset", "Reason", "Recordings", "What it means"], reasons) if reasons else ""
    return section(
        "The data",
        table(header, rows),
        rejected and f"<h3>Why recordings were rejected</h3>{rejected}",
        paragraph(
            "Rejected recordings are in no number on this page; each is listed with its reason in "
            "data/shards/<dataset>/rejected.csv.",
            "note",
        ),
    )


def read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def run_facts(meta: dict[str, Any], params: Params) -> dict[str, str]:
    """What a reader wants to know first about the encoder."""
    trained_on = ", ".join(params.pretrain.datasets) if params.pretrain.num_epochs else "nothing here"
    known = {
        "Pre-trained on": trained_on,
        "Model": f"{params.model.size}, {params.model.num_clusters:,} classes, "
        f"{params.model.mask_ratio:.0%} hidden",
    }
    if params.pretrain.init is not None:
        known["Initial weights"] = params.pretrain.init
    if meta.get("update"):
        known["Training"] = f"{meta['update']:,} updates of {params.pretrain.batch_size:,} crops"
    if meta.get("duration_s"):
        known["Time"] = duration(meta["duration_s"])
    if meta.get("hardware"):
        known["Hardware"] = str(meta["hardware"])
    return known


def provenance(
    meta: dict[str, Any],
    corpus: dict[str, Any],
    experiments: Sequence[Experiment],
    this_run: Settings,
    params: Params,
) -> str:
    known = {}
    if "git_revision" in meta:
        known["Git revision"] = str(meta["git_revision"]) or "no git"
    if "data_digest" in meta:
        known["Data digest"] = str(meta["data_digest"])
    for name, fingerprint in (corpus.get("datasets", {}) | corpus.get("online", {})).items():
        known[f"Shards of {name}"] = str(fingerprint)
    if "versions" in meta:
        known["Versions when training"] = listed(meta["versions"])
    known["Versions of this report"] = listed(installed())
    settings = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return section(
        "Where this comes from",
        paragraph(
            "The same revision, data and parameters give the same report: `dvc repro` makes it again.",
            "note",
        ),
        facts(known),
        records(experiments, this_run),
        folded("All parameters (params.yaml)", f"<pre>{escape(settings)}</pre>"),
    )


def records(experiments: Sequence[Experiment], this_run: Settings) -> str:
    """When each run of the tables was recorded, and by which code; empty where there is none."""
    rows, base = [], without_seed(this_run)
    for one in experiments:
        settings = without_seed(one.settings)
        results = one.results.values()
        label = "this run" if settings == base else label_of(settings, experiments, base)
        told = [
            ", ".join(sorted(words - {""})) or "unknown"
            for words in (
                {result.recorded.removesuffix("+00:00").replace("T", " ") for result in results},
                {result.trained_revision for result in results},
                {result.git_revision for result in results},
            )
        ]
        if is_other(settings):
            told[1] = ""
        rows.append([escape(word) for word in (label, str(one.settings.get(SEED, "")), *told)])
    if not rows:
        return ""
    header = ["Run", "Seed", "Recorded (UTC)", "Trained by revision", "Recorded by revision"]
    note = paragraph(
        "+ marks a tree with changes that were not committed; an edited params.yaml is one.", "note"
    )
    return folded("All records of the tables (data/experiments)", table(header, sorted(rows), "paper") + note)


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
