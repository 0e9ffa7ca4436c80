"""What Prefect shows beside a run: how far it is, and what came of it."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from matpac.progress import SECONDS_BETWEEN_LINES, Progress

Item = TypeVar("Item")
AT_ONCE_S = 0.5
"""What is done so soon was done before."""


class Meter:
    """Says how far a stage is: in lines for the terminal and the run's log, and in a progress artifact.

    The server hears of it every few seconds only, and not at all where the total is unknown (0).
    """

    def __init__(self, stage: str, dataset: str, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        artifact = create_progress_artifact(0.0, key=key_of(stage, dataset, "progress"))
        assert isinstance(artifact, UUID)
        self._artifact = artifact
        self._started = self._shown = time.monotonic()
        self._lines = self._new_lines(0)
        self._is_first = True

    def _new_lines(self, done: int) -> Progress:
        return Progress(self._what, 0, self._unit, done=done, write=get_run_logger().info)

    def show(self, done: int, total: int) -> None:
        starts = self._is_first and time.monotonic() - self._started < AT_ONCE_S
        if starts or done < self._lines.done:
            # What an earlier run had done counts as done, but not for the rate.
            self._lines = self._new_lines(done)
        self._is_first = False
        self._lines.total = total
        self._lines.advance(done - self._lines.done)
        now = time.monotonic()
        if 0 < total <= done or (total and now - self._shown >= SECONDS_BETWEEN_LINES):
            self._shown = now
            update_progress_artifact(self._artifact, 100 * done / total)


def counted(items: Iterable[Item], meter: Meter) -> Iterator[Item]:
    """The items themselves; the meter hears of every hundredth."""
    for number, item in enumerate(items):
        if number % 100 == 0:
            meter.show(number, 0)
        yield item


def table(stage: str, dataset: str, rows: list[dict[str, object]]) -> None:
    create_table_artifact(rows, key=key_of(stage, dataset, "counts"))


def key_of(*parts: str) -> str:
    """Prefect's keys have lower-case letters, digits and dashes only."""
    return "-".join(parts).replace("_", "-")
