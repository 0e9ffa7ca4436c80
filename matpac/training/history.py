"""update reports -> metrics.csv and online.csv, and DVCLive's plots if DVCLive is installed.

Both tables are part of every saved state, so a resumed run has each row once. DVCLive's folder is
written anew from them when a run resumes.
"""

import csv
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from matpac.files import whole_file
from matpac.training.loop import Report

METRICS, ONLINE = "metrics.csv", "online.csv"

Row = dict[str, float]


class History(NamedTuple):
    """Rows logged so far; both lists grow with the run."""

    updates: list[Row]
    """Rows of metrics.csv."""
    online: list[Row]
    """Rows of online.csv."""


def row_of(report: Report, updates_per_epoch: float) -> Row:
    """Row of metrics.csv for a watched update; waits until the device has done it."""
    knobs = report.knobs
    prediction, classification, loss = report.losses.tolist()
    return {
        "step": report.update,
        "epoch": report.update / updates_per_epoch,
        "loss": loss,
        "prediction_loss": prediction,
        "classification_loss": classification,
        "learning_rate": knobs.learning_rate,
        "encoder_decay": knobs.encoder_decay,
        "head_decay": knobs.head_decay,
        "teacher_temperature": knobs.teacher_temperature,
        "grad_norm": report.grad_norm.item(),
        **(report.health.values() if report.health is not None else {}),
    }


def write_history(folder: Path, history: History) -> None:
    write_rows(folder / METRICS, history.updates)
    write_rows(folder / ONLINE, history.online)


def read_history(folder: Path) -> History:
    return History(read_rows(folder / METRICS), read_rows(folder / ONLINE))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    rows = list(rows)
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: int(value) if name == "step" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


class LivePlots:
    """DVCLive's metrics and plots of a run, in a folder of their own."""

    def __init__(self, folder: Path, history: History) -> None:
        """Begins with all rows of `history`."""
        self._live: Any = None
        if importlib.util.find_spec("dvclive") is None:
            return
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        from dvclive.live import Live

        self._live = Live(str(folder), report=None, save_dvc_exp=False, dvcyaml=None)
        for row in sorted([*history.updates, *history.online], key=lambda row: row["step"]):
            self.log(row)

    def log(self, row: Row) -> None:
        if self._live is None:
            return
        self._live.step = row["step"]
        for name, value in row.items():
            if name != "step":
                self._live.log_metric(name, value)
        self._live.sync()
