"""DVC as a child: with its stages it ends before its parent does, however that ends, even by `kill -9`.

Between the two stands this module as a process. Its standard input is a pipe that only the parent holds: at
the end of it, the whole group of DVC is asked to stop.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_TIMEOUT_S = 20
"""Prefect kills a run that it cancels after 30 s, and so does Slurm."""


@contextmanager
def dvc(
    arguments: Sequence[str], *, stdout: int | None = None, held: Sequence[int] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """`dvc <arguments>`, which ends inside; its errors go where its output goes.

    `held` are descriptors, of locks for example, that stay open until no stage is left.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.dvc", *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=None if stdout is None else subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=held,
        start_new_session=True,  # Out of reach of what is sent to the parent's whole group.
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def main() -> int:
    """`python -m flows.dvc <arguments>`: the exit status of DVC."""
    # Slurm sends its SIGTERM to every process. A handler and not SIG_IGN, which DVC would inherit.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    # Stages call `python`, which must be this one.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment["PYTHONUNBUFFERED"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *sys.argv[1:]],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    stop(process)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask the whole group to stop; kill what has not done so in time."""
    give_up = time.monotonic() + STOP_TIMEOUT_S
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < give_up:
            time.sleep(0.1)
            process.poll()  # A dead process counts as one of the group until then.
            os.killpg(process.pid, 0)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
