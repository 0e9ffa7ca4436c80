"""The whole pipeline as one run: `dvc repro`, watched.

python -m flows.reproduce [stage ...] [--force]
"""

import argparse
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated
from uuid import UUID

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Failed

from flows import server, stage
from flows.dvc import dvc
from flows.prefect_ui import Shown
from matpac.files import line_of
from matpac.params import load_params
from matpac.progress import stop

NEXT_STAGE = re.compile(r"(Running stage|Stage) '(?P<stage>[^']+)'")
IS_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")

Targets = Annotated[
    tuple[str, ...],
    Shown("Stages to bring up to date, such as pretrain or shards@esc10. If empty, the whole pipeline."),
]
Force = Annotated[bool, Shown("Run the stages even if nothing that they depend on has changed.")]


def run_name() -> str:
    return " ".join(["reproduce", *flow_run.parameters["targets"]])


@flow(flow_run_name=run_name, persist_result=False)
def reproduce(targets: Targets = (), force: Force = False) -> State[None] | None:
    """Bring the pipeline up to date: run the stages whose inputs have changed, keep the others.

    A failed run ends with the last line of the stage that failed, or of DVC.
    """
    try:
        watch = Watch(stages_of(targets))
        with dvc(["repro", *targets, *(["--force"] if force else [])], stdout=subprocess.PIPE) as process:
            for line in lines_of(process):
                get_run_logger().info(line)
                watch.read(line)
        watch.finish(process.returncode)
    except Stopped as error:
        # Returned and not raised: a traceback would bury the one line that matters.
        return Failed(message=str(error))
    return None


class Stopped(Exception):
    """DVC stopped; the message is one line."""


class Watch:
    """Reads DVC's output for the stage it is at and for errors, and shows the progress."""

    def __init__(self, stages: set[str]) -> None:
        self._stages = stages
        self._seen: dict[str, str] = {}
        self._line = self._error = ""
        artifact = create_progress_artifact(0.0, key="reproduce-progress", description="Asking DVC")
        assert isinstance(artifact, UUID)
        self._artifact = artifact

    def read(self, line: str) -> None:
        if found := NEXT_STAGE.match(line):
            self._show(100 * len(self._seen) / max(len(self._stages), 1), found["stage"])
            self._seen[found["stage"]] = what_happened(line)
        elif line.startswith("ERROR: "):
            self._error = line.removeprefix("ERROR: ")
        elif not self._error:
            self._line = line

    def finish(self, code: int) -> None:
        """Raises Stopped if DVC's exit status `code` is not 0."""
        if code:
            raise Stopped(reason_of_stop(self._error, self._line))
        self._show(100.0, "Done")
        create_markdown_artifact(
            page_of(self._seen),
            key="reproduce-summary",
            description="Scores, and what happened to each stage",
        )

    def _show(self, percent: float, what: str) -> None:
        update_progress_artifact(self._artifact, min(percent, 100.0), description=what)


def what_happened(line: str) -> str:
    if line.startswith("Running"):
        return "ran"
    return "taken from DVC's cache" if "is cached" in line else "nothing had changed"


def reason_of_stop(error: str, line_before: str) -> str:
    """One line on why DVC stopped: its `error`, or the last line of the stage before it."""
    if any(phrase in error for phrase in IS_BUSY):
        return "another `dvc` is at work in this folder. Wait for it and run again; nothing was changed."
    if failed := re.match(r"failed to reproduce '([^']+)': failed to run: ", error):
        return f"stage {failed[1]} failed: {line_before}"
    return error or line_before


def page_of(stages: dict[str, str]) -> str:
    """Markdown page: scores and report, if there are any, and what happened to each stage."""
    text = ""
    scores, report = Path("data/scores"), Path("data/report/index.html")
    if any(scores.glob("*.json")):
        from matpac.probing.scores import score_table  # imports torch, which takes seconds

        text = f"# Scores\n\n```text\n{score_table(scores, load_params().probe.datasets)}\n```\n\n"
    if report.exists():
        text += f"The report: `{report.resolve()}`\n\n"
    rows = "\n".join(f"| {name} | {what} |" for name, what in stages.items())
    return f"{text}# Stages\n\n| stage | what happened |\n|---|---|\n{rows}\n"


def stages_of(targets: Sequence[str]) -> set[str]:
    """The stages that `targets` need; without targets, all stages.

    Raises Stopped with DVC's message if it does not know a target.
    """
    stages: set[str] = set()
    for wanted in [[target] for target in targets] or [[]]:
        with dvc(["dag", "--dot", *wanted], stdout=subprocess.PIPE) as process:
            said = list(lines_of(process))
        if process.returncode:
            errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
            raise Stopped(reason_of_stop(" ".join(errors), "".join(said[-1:])))
        stages |= {line.strip('";') for line in said if line.endswith('";') and "->" not in line}
    return stages


def lines_of(process: "subprocess.Popen[str]") -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            yield line.rstrip()
    process.wait()


def main() -> None:
    """`python -m flows.reproduce`; an error that the user can fix ends in one line."""
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce", description=reproduce.description)
    parser.add_argument(
        "targets", nargs="*", metavar="stage", help="such as pretrain or shards@esc10; by default all"
    )
    parser.add_argument("--force", action="store_true", help="run stages even if nothing has changed")
    wanted = parser.parse_args()
    stage.quiet_prefect()
    try:
        with server.shared():
            reproduce(tuple(wanted.targets), wanted.force)
    except (FailedRun, RuntimeError, OSError) as error:
        stop(f"reproduce: {line_of(error)}")


if __name__ == "__main__":
    main()
