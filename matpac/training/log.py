"""update reports -> what a person sees of a run as it goes on."""

import sys
import time

from matpac.params import Params
from matpac.progress import Progress
from matpac.training.health import complaint
from matpac.training.history import LivePlots, Row, row_of
from matpac.training.loop import Report
from matpac.training.schedules import Durations


class Log:
    """Rows of metrics.csv, DVCLive's plots, progress, and a warning where training goes wrong."""

    def __init__(
        self,
        rows: list[Row],
        params: Params,
        lasting: Durations,
        live: LivePlots,
        *,
        flops_per_crop: float,
        first_update: int,
    ) -> None:
        """`rows` are those of the run so far; new ones are appended. `flops_per_crop` are one GPU's."""
        self.rows, self.params, self.lasting, self.flops_per_crop = rows, params, lasting, flops_per_crop
        self._live = live
        self._progress = Progress("pretrain", lasting.total, "updates", done=first_update)
        self._last = (first_update, time.monotonic(), 0.0)

    def __call__(self, report: Report, waited_s: float) -> None:
        """`waited_s`: for data, since the run began."""
        if report.health is not None:
            row = row_of(report, self.lasting.total / self.params.pretrain.num_epochs)
            # Only now is the clock right: the host runs ahead of the device, and has just waited for it.
            self.rows.append(row | self._speed(report.update + 1, waited_s))
            self._live.log(self.rows[-1])
            self._warn_of_collapse()
        self._progress.advance(note=note(self.rows[-1]))

    def _speed(self, done: int, waited_s: float) -> Row:
        """Since the row before. Of the time per GPU, and the share of it that was spent waiting."""
        now = time.monotonic()
        before_done, before, before_waited_s = self._last
        self._last = (done, now, waited_s)
        spent_s = max(now - before, 1e-9)
        crops_per_s = (done - before_done) * self.params.pretrain.batch_size / spent_s
        return {
            "crops_per_s": crops_per_s,
            "tflop_per_s": crops_per_s * self.flops_per_crop / 1e12,
            "waiting_for_data": (waited_s - before_waited_s) / spent_s,
        }

    def _warn_of_collapse(self) -> None:
        """Say it once when it begins."""
        before, now = self._trouble(self.rows[-2:-1]), self._trouble(self.rows[-1:])
        if now and not before:
            say(f"WARNING: this run seems to collapse at update {self.rows[-1]['step']:,}: {now}.")

    def _trouble(self, rows: list[Row]) -> str | None:
        """Of the one row, if it is there; what the very first updates show does not count."""
        counted = [row for row in rows if row["step"] > self.lasting.total / 50]
        return complaint(counted[0], self.params.model.num_clusters) if counted else None


def note(row: Row) -> str:
    return (
        f"loss {row['loss']:.3f} (prediction {row['prediction_loss']:.3f}, "
        f"classification {row['classification_loss']:.3f}), {row['crops_per_s']:,.0f} crops/s"
    )


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
