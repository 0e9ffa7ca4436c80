"""One Prefect server for all stages of this project, for as long as any of them needs it.

    with server.shared():
        ...  # flows are recorded, and can be watched at the printed address

If PREFECT_API_URL is set, that server is used and nothing of this happens. Two locks, which the
kernel releases however a process ends, are all the state there is. The server holds `server.lock`
while it lives; the stages that use it share `users.lock`. After a minute without users, the server
takes `users.lock` for itself, so that no stage joins while it stops.

Whoever may change a deployment may run commands here, so the server asks for a password, which lies
in `.prefect/auth_string` for the owner's eyes only. It refuses requests that name another host (DNS
rebinding) or come from another site's page. The password also keeps out runs of another project
that are left without a server: should ours start at that port, they report their tasks to us, and
each fails in the log with an IntegrityError, since its flow run is not in our database.

The server's own process is `python -m flows.server <home>`, the second half of this file.
"""

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from matpac.files import locked, partial_path, write_json
from matpac.progress import say

START_TIMEOUT_S = 180
MOST_FAILURES = 3
IDLE_S = float(os.environ.get("MATPAC_SERVER_IDLE_S", "60"))
"""Seconds without users after which the server stops. DVC hashes outs between two stages."""
DEFAULT_PORT = 4200
STOP_TIMEOUT_S = 20
HOSTS = ("127.0.0.1", "localhost")
ROOM_BYTES = 4_000_000
"""Free space that the server's database, passwords and log need to begin with."""
EVENTS_AT_ONCE = 500
"""SQLite takes a limited number of parameters in a query."""
UI = "/v2"
"""Pages of the newer kind. The others show no login to those who follow the link of a run."""
NOT_FINAL = ["PENDING", "RUNNING", "CANCELLING"]


@contextmanager
def shared() -> Iterator[None]:
    """Have a server that answers; start one if there is none."""
    # Prefect reads its settings when it is first imported: in the server's process, after its port
    # is chosen.
    exempt_from_proxies()
    from prefect import context
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_UI_URL,
        get_current_settings,
        temporary_settings,
    )

    settings = get_current_settings()
    if settings.api.url:
        yield
        return
    home = settings.home
    make_home(home)
    with locked(home / "users.lock", shared=True, wait=True):
        url = running_server(home)
        ours = {
            PREFECT_API_URL: url,
            PREFECT_API_AUTH_STRING: auth_string(home),
            PREFECT_UI_URL: f"{pages_of(url)}{UI}",
            # The server itself ends the runs of dead processes, so nobody needs heartbeats. Each
            # flow would wait up to a second for the thread that sends them.
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        }
        with temporary_settings(ours):
            # The thread that passes on what worker processes report knows only global settings. It
            # would start a second server (Prefect 3.8.8), and that one may stay behind.
            before = context.GLOBAL_SETTINGS_CONTEXT
            context.GLOBAL_SETTINGS_CONTEXT = context.get_settings_context()
            try:
                yield
            finally:
                context.GLOBAL_SETTINGS_CONTEXT = before


def pages_of(url: str) -> str:
    """Address of the pages of a server whose API is at `url`."""
    return url.removesuffix("/api")


def make_home(home: Path) -> None:
    """Make Prefect's folder. Raises RuntimeError if the server could not write there."""
    if "?" in str(home):
        # Prefect puts the path into a URL as it is: the records would lie in another place.
        raise RuntimeError(
            f"{home}: need a folder for Prefect without ? in its path. Name another one in PREFECT_HOME."
        )
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(bytes(ROOM_BYTES))
    except OSError as error:
        raise RuntimeError(
            f"{home}: need a folder to write to, with {ROOM_BYTES / 1e6:.0f} MB of room, for the records of "
            f"Prefect's server; found: {error.strerror}. Mend that, or name another folder in PREFECT_HOME."
        ) from None


def exempt_from_proxies() -> None:
    """Reach servers on this machine without the proxies that the environment names."""
    named = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = dict.fromkeys([*filter(None, (host.strip() for host in named.split(","))), *HOSTS])
    exempt = "*" if "*" in hosts else ",".join(hosts)
    os.environ |= {"no_proxy": exempt, "NO_PROXY": exempt}


def auth_string(home: Path) -> str:
    """User and password that the project's server asks for; drawn at the first call.

    Only a process that holds `server.lock` may make that call.
    """
    path = home / "auth_string"
    if not path.exists():
        partial = partial_path(path)
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(f"matpac:{secrets.token_urlsafe(24)}\n")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path.read_text().strip()


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
            if started is not None:
                say(f"{pages_of(url)} asks once for the line in {home / 'auth_string'}.", out=True)
            return url
        # A server that ends with 0 found the lock taken, by another server or by a process that
        # tried it.
        if (started is None or started.poll() == 0) and not is_locked(home / "server.lock"):
            started = start(home)
        elif started is not None and started.poll():
            # On a busy machine the next try may succeed: the database may have been locked, for
            # example.
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
    """Start the server in its own session: it outlives this stage, and Ctrl-C does not reach it."""
    with (home / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.server", home],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def answering_url(home: Path) -> str | None:
    """URL of this project's server if it is alive and healthy."""
    if not is_locked(home / "server.lock"):
        return None
    try:
        url: str = json.loads((home / "server.json").read_text())["url"]
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return url
    except (OSError, json.JSONDecodeError):
        return None


def is_locked(path: Path) -> bool:
    with locked(path) as ours:
        return ours is None


def main(home: Path) -> None:
    """The server's process: `python -m flows.server <home>`."""
    with locked(home / "server.lock") as ours:
        if ours is not None:  # Otherwise another server was first.
            serve(home)


def serve(home: Path) -> None:
    (home / "server.json").unlink(missing_ok=True)
    listener = listen()
    port = listener.getsockname()[1]
    hosts = [f"{host}:{port}" for host in HOSTS]
    os.environ["PREFECT_SERVER_API_HOST"] = "127.0.0.1"
    os.environ["PREFECT_SERVER_API_PORT"] = str(port)
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = auth_string(home)
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(f"http://{host}" for host in hosts)
    import uvicorn
    from docket import Worker
    from prefect.server.api import background_workers
    from prefect.server.api.server import create_app
    from prefect.server.events.services import event_persister

    # Prefect's periodic work is due once a minute. Its worker looks for it eight times a second, and
    # no setting changes that.
    rarely = partial(
        Worker, minimum_check_interval=timedelta(seconds=1), scheduling_resolution=timedelta(seconds=1)
    )
    background_workers.Worker = rarely  # type: ignore[attr-defined, assignment]
    event_persister.write_events = write_once  # type: ignore[attr-defined]

    server = uvicorn.Server(uvicorn.Config(OwnSite(create_app(), hosts), log_level="warning"))
    url = f"http://127.0.0.1:{port}/api"
    threading.Thread(target=keep, args=(server, home, url), daemon=True).start()
    server.run(sockets=[listener])


async def write_once(session: Any, events: Sequence[Any]) -> None:  # noqa: ANN401 - of SQLAlchemy, of Prefect
    """Write the events that are not stored yet.

    A client whose connection broke sends its last events again. Prefect's writer for SQLite (3.8.8)
    fails on those with an IntegrityError and, after five tries, drops all that came with them.
    """
    from prefect.server.database import provide_database_interface
    from prefect.server.events.storage.database import write_events
    from sqlalchemy import select

    known = provide_database_interface().Event.id
    sent = list({event.id: event for event in events}.values())
    for first in range(0, len(sent), EVENTS_AT_ONCE):
        some = sent[first : first + EVENTS_AT_ONCE]
        stored = set(await session.scalars(select(known).where(known.in_([event.id for event in some]))))
        if new := [event for event in some if event.id not in stored]:
            await write_events(session, new)


class OwnSite:
    """ASGI application that refuses requests to other hosts' names and from other sites' pages."""

    def __init__(self, app: Any, hosts: Sequence[str]) -> None:  # noqa: ANN401 - an ASGI application
        self.app = app
        self.hosts = {host.encode() for host in hosts}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        headers = dict(scope.get("headers", ()))
        origin = headers.get(b"origin")
        is_ours = headers.get(b"host") in self.hosts and (
            origin is None or origin.removeprefix(b"http://") in self.hosts
        )
        if is_ours or scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            names = b" or ".join(sorted(self.hosts))
            await send({"type": "http.response.body", "body": b"Refused: need a request to " + names})


def listen() -> socket.socket:
    """Listen at PREFECT_SERVER_API_PORT or Prefect's usual port; if that is taken, any free one."""
    wanted = int(os.environ.get("PREFECT_SERVER_API_PORT", DEFAULT_PORT))
    for port in (wanted, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio sets this only for sockets it opens itself. Without it, answers wait 40 ms for an
        # acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind(("127.0.0.1", port))
            # At once: until one of them listens, any number of servers can bind the same port.
            listener.listen()
        except OSError:
            listener.close()
        else:
            return listener
    raise OSError("no free port on 127.0.0.1")


def keep(server: Any, home: Path, url: str) -> None:  # noqa: ANN401 - a uvicorn.Server
    """Announce the server once it answers; stop it after IDLE_S seconds without users."""
    try:
        while not server.started:
            time.sleep(0.05)
        end_abandoned_runs(url, home)
        write_json(home / "server.json", {"url": url, "pid": os.getpid()})
        last_used = time.monotonic()
        while True:
            time.sleep(min(IDLE_S, 1))
            with locked(home / "users.lock") as ours:
                if ours is None:
                    last_used = time.monotonic()
                elif time.monotonic() - last_used >= IDLE_S:
                    end_abandoned_runs(url, home)
                    (home / "server.json").unlink(missing_ok=True)
                    server.should_exit = True
                    time.sleep(STOP_TIMEOUT_S)
                    return
    finally:
        # Only reached if something went wrong: a server without its keeper would never stop.
        traceback.print_exc()
        os._exit(1)


def end_abandoned_runs(url: str, home: Path) -> None:
    """Mark runs without an end as crashed. No stage is running, so their processes were killed."""
    state = {"type": "CRASHED", "message": "The process of this run ended without a word."}
    for kind in ("task", "flow"):
        runs = post(
            f"{url}/{kind}_runs/filter",
            {f"{kind}_runs": {"state": {"type": {"any_": NOT_FINAL}}}, "limit": 200},
            home,
        )
        for run in runs:
            post(f"{url}/{kind}_runs/{run['id']}/set_state", {"state": state, "force": True}, home)


def post(url: str, value: object, home: Path) -> Any:  # noqa: ANN401 - whatever JSON can hold
    credentials = base64.b64encode(auth_string(home).encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
    request = urllib.request.Request(url, json.dumps(value).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
