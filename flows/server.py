"""One Prefect server for all stages of this project, for as long as any of them needs it.

    with server.shared():
        ...  # flows are recorded, and can be watched at the printed address

Where PREFECT_API_URL is set, that server is used and nothing of this happens. Two locks, which the kernel
releases however a process ends, say all there is to know: `server.lock` is held by the server while it lives,
`users.lock` is shared by the stages that use it. A server that nobody has used for a minute takes
`users.lock` for itself, so that nobody comes while it stops.
"""

import fcntl
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    get_current_settings,
    temporary_settings,
)

START_TIMEOUT_S = 180
MOST_FAILURES = 3


@contextmanager
def shared() -> Iterator[None]:
    """Have a server that answers; start one where there is none."""
    settings = get_current_settings()
    if settings.api.url:
        yield
        return
    home = settings.home
    home.mkdir(parents=True, exist_ok=True)
    with (home / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        url = running_server(home)
        # Nobody needs heartbeats: the server itself ends the runs of dead processes. Each flow would wait up
        # to a second for the thread that sends them.
        with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield


def running_server(home: Path) -> str:
    """URL of the API of the project's server, started if need be.

    Raises RuntimeError that names the server's log.
    """
    started: subprocess.Popen[bytes] | None = None
    num_failures = 0
    give_up = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up:
        url = answering_url(home)
        if url is not None:
            return url
        # One that ends with 0 found the lock taken: by another server, or by somebody who looked at it.
        if (started is None or started.poll() == 0) and not is_locked(home / "server.lock"):
            started = start(home)
        elif started is not None and started.poll():
            # On a busy machine it may be in its own way: a database that is locked, for example.
            num_failures += 1
            if num_failures == MOST_FAILURES:
                break
            started = None
        time.sleep(0.1)
    log = home / "server.log"
    lines = log.read_text(errors="replace").splitlines()[-1:] if log.exists() else []
    raise RuntimeError(
        f"Prefect's server did not start; {log} says why, and ends with: {' '.join(lines)} "
        "To use a server of your own, set PREFECT_API_URL."
    )


def start(home: Path) -> "subprocess.Popen[bytes]":
    """In a session of its own: it outlives this stage, and Ctrl-C does not reach it."""
    with (home / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.server_process", home],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def answering_url(home: Path) -> str | None:
    """URL of this project's server, where it lives and is healthy."""
    if not is_locked(home / "server.lock"):
        return None
    try:
        url: str = json.loads((home / "server.json").read_text())["url"]
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return url
    except (OSError, json.JSONDecodeError):
        return None


def is_locked(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
