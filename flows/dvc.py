"""DVC as a child process that, with its stages, never outlives its parent, even after `kill -9`.

A keeper process, `python -m flows.dvc`, stands between the two. Its standard input is a pipe that
only the parent holds: when the pipe closes, the keeper stops DVC's whole process group.
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
"""Prefect and Slurm kill what has not stopped 30 s after they cancelled it."""


@contextmanager
def dvc(
    arguments: Sequence[str], *, stdout: int | None = None, held: Sequence[int] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """Run `dvc <arguments>`; it has ended when the block ends. Errors go to the same place as
    output.

    `held` are descriptors, of locks for example, that stay open until the last stage has ended.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.dvc", *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=None if stdout is None else subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=held,
        start_new_session=True,  # Signals to the parent's group must not reach the keeper.
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def main() -> int:
    """The keeper, `python -m flows.dvc <arguments>`; returns the exit status of DVC."""
    # Slurm sends SIGTERM to every process. This needs a handler, since DVC would inherit SIG_IGN.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    # Stages call `python`, which must be this interpreter.
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
    """Ask the whole group to stop; after STOP_TIMEOUT_S, kill it."""
    give_up = time.monotonic() + STOP_TIMEOUT_S
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < give_up:
            time.sleep(0.1)
            process.poll()  # Until it is polled, a dead process counts as a member of the group.
            os.killpg(process.pid, 0)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
