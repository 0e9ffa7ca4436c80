"""update reports -> what a person sees of a run as it goes on."""

import sys
import time

from matpac.params import Params
from matpac.progress import Progress
from matpac.training.health import complaint
from matpac.training.history import History, LivePlots, Row, row_of
from matpac.training.loop import Report
from matpac.training.schedules import Durations

FEWEST_UPDATES = 80
"""Nothing can be said of a run before."""


class Log:
    """Rows of metrics.csv and online.csv, DVCLive's plots, progress, and a warning of collapse."""

    def __init__(
        self,
        history: History,
        params: Params,
        lasting: Durations,
        live: LivePlots,
        *,
        flops_per_crop: float,
        first_update: int,
    ) -> None:
        """New rows are appended to `history`, that of the run so far. `flops_per_crop` are one GPU's."""
        self.history = history
        self.params, self.lasting, self.flops_per_crop = params, lasting, flops_per_crop
        self._live = live
        self._progress = Progress("pretrain", lasting.total, "updates", done=first_update)
        self._last = (first_update, time.monotonic(), 0.0)

    def __call__(self, report: Report, waited_s: float) -> None:
        """`waited_s`: for data, since the run began."""
        rows = self.history.updates
        if report.health is not None:
            row = row_of(report, self.lasting.total / self.params.pretrain.num_epochs)
            # Only now is the clock right: the host runs ahead of the device, and has just waited for it.
            row |= self._speed(report.update + 1, waited_s)
            trouble = self._trouble(row)
            if trouble and not (rows and rows[-1]["collapsing"]):
                say(f"WARNING: this run seems to collapse at update {row['step']:,}: {trouble}.")
            rows.append(row | {"collapsing": int(trouble is not None)})
            self._live.log(rows[-1])
        self._progress.advance(note=note(rows[-1], self.history.looks))

    def look(self, row: Row) -> None:
        """A row of online.csv. The time it took is none of training's."""
        self.history.looks.append(row)
        self._live.log(row)
        done, before, waited_s = self._last
        self._last = (done, before + row["seconds"], waited_s)

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

    def _trouble(self, row: Row) -> str | None:
        if row["step"] < first_counted(self.lasting):
            return None
        return complaint(row, self.params.model.num_clusters)


def first_counted(lasting: Durations) -> float:
    """The update from which on a complaint counts. At first every student predicts badly: with the demo's
    parameters a sound one until update 50 of 1,406. The paper's warm-up is the first fifteenth of the run."""
    return max(lasting.warmup, lasting.total / 20, FEWEST_UPDATES)


def note(row: Row, looks: list[Row]) -> str:
    seen = f", k-NN {looks[-1]['knn_accuracy']:.1%}" if looks else ""
    return (
        f"loss {row['loss']:.3f} (prediction {row['prediction_loss']:.3f}, "
        f"classification {row['classification_loss']:.3f}){seen}, {row['crops_per_s']:,.0f} crops/s"
    )


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
