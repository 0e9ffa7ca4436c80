"""rows of a run <-> metrics.csv and online.csv, and DVCLive's plots if DVCLive is installed.

Both tables are part of every saved state, so a resumed run has each row once. DVCLive's folder is
written anew from them when a run resumes. The report reads them without loading PyTorch.
"""

import csv
import importlib.util
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from matpac.files import whole_file
from matpac.progress import say

METRICS, ONLINE = "metrics.csv", "online.csv"

Row = dict[str, float]


class History(NamedTuple):
    """Rows logged so far; both lists grow with the run."""

    updates: list[Row]
    """Rows of metrics.csv."""
    online: list[Row]
    """Rows of online.csv."""


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
    """Read a table of numbers.

    Raises:
        ValueError: The table is damaged; the error names file and line.
    """
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        try:
            return [
                {name: int(value) if name == "step" else float(value) for name, value in row.items()}
                for row in table
            ]
        except (ValueError, TypeError, csv.Error) as error:  # a value that is missing is None
            raise ValueError(
                f"{path}: line {table.line_num}: need a number in every column, found none ({error})."
            ) from None


def describe_collapse(row: dict[str, float], num_clusters: int) -> str | None:
    """One line if a row of metrics.csv shows a collapse, else None.

    The last check catches training by classification alone (alpha 0). Answering every patch with
    the mean of the teacher's unit vectors, whose squared length is 1 - variance, costs a prediction
    loss (Eq. 1) of 2 - 2 sqrt(1 - variance); unrelated directions cost 2. If nothing can be
    predicted, as in white noise, a sound student comes close to that constant. A student a quarter
    of the way from there to 2 shares no latent space with the teacher.
    """
    spread, perplexity = row["teacher_variance"], row["teacher_perplexity"]
    if spread < 0.01:
        return f"the teacher's latents hardly differ (variance {spread:.2g})"
    if perplexity < min(2.0, num_clusters / 2):
        return (
            f"the teacher puts nearly everything into one class "
            f"(perplexity {perplexity:.2f} of {num_clusters})"
        )
    constant = 2 - 2 * math.sqrt(1 - min(spread, 1))
    if row["prediction_loss"] > constant + (2 - constant) / 4:
        return (
            f"the student predicts the teacher's latents worse than a constant would "
            f"(prediction loss {row['prediction_loss']:.2f}, constant {constant:.2f}; "
            f"pretrain.alpha weighs this loss)"
        )
    return None


class LivePlots:
    """DVCLive's metrics and plots of a run, in a folder of their own."""

    def __init__(self, folder: Path, history: History) -> None:
        """Begins with all rows of `history`."""
        self._live: Any = None
        if importlib.util.find_spec("dvclive") is None:
            if not history.updates:  # Said once, when a run begins.
                say(f"No plots while training (they need DVCLive): see {METRICS}.")
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
