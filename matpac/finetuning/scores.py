"""Scores of fine-tuned encoders, as their classifiers hold them (classifier.json), and the table of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matpac.files import read_json
from matpac.probing.scores import aligned, percent

DESCRIPTION = "classifier.json"


def read_finetuned(folder: Path, datasets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Descriptions of the classifiers, by dataset, of those that have been fine-tuned on.

    Their keys `scores` and `origin` say what was measured and how; scores are fractions.
    """
    paths = {name: folder / name / DESCRIPTION for name in datasets}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def score_table(folder: Path, datasets: Sequence[str]) -> str:
    """Plain text: a line per task."""
    header = ["task", "metric", "chance", "fine-tuned"]
    lines = []
    for name, found in read_finetuned(folder, datasets).items():
        scores = found["scores"]
        measured_by = f"{scores['metric']}, {scores['protocol']}"
        lines.append([name, measured_by, f"{100 * scores['chance']:.1f}", percent(scores)])
    note = "Percent: mean and 95 % interval over repeats. Encoder and head were trained together."
    return "\n".join([*aligned(header, lines), "", note])
