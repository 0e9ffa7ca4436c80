"""shards, corpus, checkpoint, parameters -> what the numbers were made from."""

from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from matpac.datasets.reasons import REASONS
from matpac.files import read_json
from matpac.params import Params
from matpac.report.markup import facts, folded, paragraph, section, table
from matpac.text import duration

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


def provenance(meta: dict[str, Any], corpus: dict[str, Any], params: Params) -> str:
    known = {}
    if "git_revision" in meta:
        known["Git revision"] = str(meta["git_revision"])
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
        folded("All parameters (params.yaml)", f"<pre>{escape(settings)}</pre>"),
    )


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
