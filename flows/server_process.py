"""The server process of flows/server.py: `python -m flows.server_process <home>`."""

import fcntl
import json
import os
import socket
import sys
import threading
import time
import traceback
import urllib.request
from pathlib import Path
from typing import IO, Any

IDLE_S = float(os.environ.get("MATPAC_SERVER_IDLE_S", "60"))
"""Between two stages, DVC hashes what the first one made."""
DEFAULT_PORT = 4200
STOP_TIMEOUT_S = 20
NOT_FINAL = ["PENDING", "RUNNING", "CANCELLING"]


def main(home: Path) -> None:
    lock = (home / "server.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # Two stages began at once, and the other one's server was first.
    (home / "server.json").unlink(missing_ok=True)

    listener = listen()
    port = listener.getsockname()[1]
    os.environ["PREFECT_SERVER_API_HOST"] = "127.0.0.1"
    os.environ["PREFECT_SERVER_API_PORT"] = str(port)
    # Prefect reads its settings when it is imported.
    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(), log_level="warning"))
    url = f"http://127.0.0.1:{port}/api"
    threading.Thread(target=keep, args=(server, home, url), daemon=True).start()
    server.run(sockets=[listener])


def listen() -> socket.socket:
    """The port of PREFECT_SERVER_API_PORT or Prefect's usual one; any other where that is taken."""
    wanted = int(os.environ.get("PREFECT_SERVER_API_PORT", DEFAULT_PORT))
    for port in (wanted, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio does so for sockets of its own only. Else answers wait 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
        else:
            return listener
    raise OSError("no free port on 127.0.0.1")


def keep(server: Any, home: Path, url: str) -> None:  # noqa: ANN401 - a uvicorn.Server
    """Announce the server once it answers; stop it when nobody has used it for IDLE_S."""
    try:
        while not server.started:
            time.sleep(0.05)
        end_abandoned_runs(url)
        announce(home, url)
        with (home / "users.lock").open("a") as users:
            wait_until_idle(users)
            end_abandoned_runs(url)
            (home / "server.json").unlink(missing_ok=True)
            server.should_exit = True
            time.sleep(STOP_TIMEOUT_S)
    finally:
        # Only reached where something went wrong: a server that nobody keeps must not live on.
        traceback.print_exc()
        os._exit(1)


def wait_until_idle(users: IO[str]) -> None:
    """Returns holding the lock."""
    last_used = time.monotonic()
    while True:
        time.sleep(min(IDLE_S, 1))
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            last_used = time.monotonic()
            continue
        if time.monotonic() - last_used >= IDLE_S:
            return
        fcntl.flock(users, fcntl.LOCK_UN)


def announce(home: Path, url: str) -> None:
    partial = home / "server.json.partial"
    partial.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    partial.replace(home / "server.json")


def end_abandoned_runs(url: str) -> None:
    """No stage is running: a run without an end belongs to a process that was killed."""
    state = {"type": "CRASHED", "message": "The process of this run ended without a word."}
    for kind in ("task", "flow"):
        runs = post(
            f"{url}/{kind}_runs/filter",
            {f"{kind}_runs": {"state": {"type": {"any_": NOT_FINAL}}}, "limit": 200},
        )
        for run in runs:
            post(f"{url}/{kind}_runs/{run['id']}/set_state", {"state": state, "force": True})


def post(url: str, value: object) -> Any:  # noqa: ANN401 - whatever JSON can hold
    request = urllib.request.Request(url, json.dumps(value).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
