"""What Prefect's pages show: choices for a flow's parameters, progress and tables of its runs."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from matpac.params import load_params
from matpac.progress import SECONDS_BETWEEN_LINES, Progress

AT_ONCE_S = 0.5
"""Work reported within this time of the start was done by an earlier run."""


@dataclass(frozen=True)
class Shown:
    """Annotates a flow's parameter with a description and the values of a drop-down.

    The values are those at the time of deployment. A pydantic `Field` does not work here: Prefect
    overrides it with a field of its own, which has neither.
    """

    description: str
    values: Callable[[], Iterable[str]] | None = None

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(core_schema) | {"description": self.description}
        if self.values and (values := list(self.values())):
            schema["enum"] = values
        return schema


def names_of_datasets() -> list[str]:
    try:
        return list(load_params().datasets)
    except (ValueError, OSError):
        return []  # The flow itself reports what is wrong with params.yaml.


DatasetName = Annotated[str, Shown("A name under `datasets` in params.yaml.", names_of_datasets)]


class Meter:
    """Shows the progress of a stage: as lines on the terminal and in the run's log, and as an
    artifact.

    The artifact is updated every few seconds, and not at all while the total is unknown (0).
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

    def advance(self) -> None:
        """One more item of an unknown number is done."""
        self.show(self._lines.done + 1, 0)

    def show(self, done: int, total: int) -> None:
        starts = self._is_first and time.monotonic() - self._started < AT_ONCE_S
        if starts or done < self._lines.done:
            # Work of an earlier run counts as done, but not towards the rate.
            self._lines = self._new_lines(done)
        self._is_first = False
        self._lines.total = total
        self._lines.advance(done - self._lines.done)
        now = time.monotonic()
        if 0 < total <= done or (total and now - self._shown >= SECONDS_BETWEEN_LINES):
            self._shown = now
            update_progress_artifact(self._artifact, 100 * done / total)


def table(stage: str, dataset: str, rows: list[dict[str, object]]) -> None:
    create_table_artifact(rows, key=key_of(stage, dataset, "counts"))


def key_of(*parts: str) -> str:
    """A key of an artifact: Prefect allows lower-case letters, digits and dashes only."""
    return "-".join(parts).replace("_", "-")
