"""update reports -> progress, tables and warnings while a run goes on."""

import time

from matpac.params import Params
from matpac.progress import Progress, say
from matpac.training.history import History, LivePlots, Row, describe_collapse
from matpac.training.loop import Report
from matpac.training.references import Comparison
from matpac.training.schedules import Durations

MIN_UPDATES = 80
"""Updates before the first warning of collapse, however short the run."""


class Log:
    """Rows of metrics.csv and online.csv, DVCLive's plots, progress, and warnings."""

    def __init__(
        self,
        history: History,
        params: Params,
        durations: Durations,
        live: LivePlots,
        *,
        flops_per_crop: float,
        first_update: int,
        comparison: Comparison | None = None,
    ) -> None:
        """New rows are appended to `history`. `flops_per_crop` are the share of one process."""
        self.history = history
        self.params, self.durations, self.flops_per_crop = params, durations, flops_per_crop
        self._live = live
        self._progress = Progress("pretrain", durations.total, "updates", done=first_update)
        self._last = (first_update, time.monotonic(), 0.0)
        self._late: tuple[Report, float] | None = None
        self._comparison = comparison
        self._has_left = comparison is not None and bool(comparison.departures(history))

    def add_update(self, report: Report, waited_s: float) -> None:
        """`waited_s`: seconds spent waiting for data since the run began.

        If the device has not done a watched update yet, its row is made at the next call, so that the
        device has work meanwhile; or by `make_row`.
        """
        self.make_row()
        if report.signs is not None:
            self._late = report, waited_s
            if report.signs.has_arrived():
                self.make_row()
        rows = self.history.updates
        self._progress.advance(note=note(rows[-1], self.history.online) if rows else "")

    def make_row(self) -> None:
        """Make the row of the last watched update, if there is none yet; waits for that update."""
        if self._late is None:
            return
        report, waited_s = self._late
        self._late = None
        row = row_of(report, self.durations.total / self.params.pretrain.num_epochs)
        # Read the clock only now, because `row_of` has waited for the device.
        row |= self._speed(report.update + 1, waited_s)
        collapse = self._collapse(row)
        rows = self.history.updates
        if collapse and not (rows and rows[-1]["collapsing"]):
            say(f"WARNING: this run seems to collapse at update {row['step']:,}: {collapse}.")
        rows.append(row | {"collapsing": int(collapse is not None)})
        self._live.log(rows[-1])
        self._say_if_it_leaves()

    def add_online(self, row: Row) -> None:
        """Add a row of online.csv; the time it took does not count as training."""
        self.history.online.append(row)
        self._live.log(row)
        done, before, waited_s = self._last
        self._last = (done, before + row["seconds"], waited_s)

    def _say_if_it_leaves(self) -> None:
        """Warn once if a curve leaves those of the reference."""
        if self._comparison is None or self._has_left:
            return
        if departures := self._comparison.departures(self.history):
            self._has_left = True
            say(f"WARNING: this run has left its reference: {self._comparison.describe(departures)}.")

    def _speed(self, done: int, waited_s: float) -> Row:
        """Speed since the last row, and the share of the time that was spent waiting for data."""
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

    def _collapse(self, row: Row) -> str | None:
        if row["step"] < first_judged(self.durations):
            return None
        return describe_collapse(row, self.params.model.num_clusters)


def first_judged(durations: Durations) -> float:
    """First update at which a sign of collapse counts.

    Every student predicts badly at first: a sound one of the demo until update 50 of 1,406. The
    paper's warm-up is the first fifteenth of the run.
    """
    return max(durations.warmup, durations.total / 20, MIN_UPDATES)


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


def note(row: Row, online: list[Row]) -> str:
    knn = f", k-NN {online[-1]['knn_accuracy']:.1%}" if online else ""
    return (
        f"loss {row['loss']:.3f} (prediction {row['prediction_loss']:.3f}, "
        f"classification {row['classification_loss']:.3f}){knn}, {row['crops_per_s']:,.0f} crops/s"
    )
