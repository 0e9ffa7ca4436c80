import asyncio
import json
import os
import socket
import time
import urllib.request
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from flows.server import (
    answering_url,
    auth_string,
    exempt_from_proxies,
    is_locked,
    listen,
    make_home,
    write_once,
)
from matpac.files import locked
from tests.files import files_end_at
from tests.flows.conftest import Project


def test_a_taken_port_is_left_alone(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("PREFECT_SERVER_API_PORT", str(port))
        with listen() as other:
            assert other.getsockname()[1] != port


def test_servers_of_two_projects_that_start_together_take_two_ports(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PREFECT_SERVER_API_PORT", str(free.getsockname()[1]))
    with listen() as first, listen() as second:
        assert first.getsockname() != second.getsockname()


def test_answers_do_not_wait_for_acknowledgements(monkeypatch):
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "0")
    with listen() as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_server_that_is_gone_does_not_answer(tmp_path):
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:9/api"}')
    assert answering_url(tmp_path) is None
    assert not is_locked(tmp_path / "server.lock")


def test_the_password_is_drawn_once_for_the_owner_alone(tmp_path):
    drawn = auth_string(tmp_path)
    assert auth_string(tmp_path) == drawn
    assert (tmp_path / "auth_string").stat().st_mode & 0o777 == 0o600
    (tmp_path / "other").mkdir()
    assert auth_string(tmp_path / "other") != drawn


@pytest.mark.slow
def test_an_event_that_is_sent_again_is_written_once(tmp_path):
    """With Prefect's own writer, the second and the third batch are lost to an IntegrityError."""
    from prefect.server.database import provide_database_interface
    from prefect.server.events.schemas.events import ReceivedEvent
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings
    from sqlalchemy import select

    first, second, third = (
        ReceivedEvent(
            id=uuid4(), occurred=datetime.now(UTC), event="ran", resource={"prefect.resource.id": "shard"}
        )
        for _ in range(3)
    )

    async def stored_after(*batches):
        database = provide_database_interface()
        engine = await database.engine()
        async with engine.begin() as connection:
            tables = [database.Event.__table__, database.EventResource.__table__]
            await connection.run_sync(database.Base.metadata.create_all, tables=tables)
        for batch in batches:
            async with database.session_context(begin_transaction=True) as session:
                await write_once(session, batch)
        async with database.session_context() as session:
            stored = sorted(await session.scalars(select(database.Event.id)))
        await engine.dispose()
        return stored

    url = f"sqlite+aiosqlite:///{tmp_path / 'events.db'}"
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: url}):
        stored = asyncio.run(stored_after([first], [first], [second, second, third]))
    assert stored == sorted(event.id for event in (first, second, third))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "127.0.0.1,localhost"),
        ("example.org", "example.org,127.0.0.1,localhost"),
        ("*", "*"),
        ("127.0.0.1,localhost", "127.0.0.1,localhost"),
    ],
)
def test_this_machine_is_exempt_from_proxies(monkeypatch, before, after):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
    exempt_from_proxies()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == after
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert urllib.request.proxy_bypass("127.0.0.1:4200")


def test_a_home_that_cannot_be_written_is_one_line_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    for home, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file/home", "Not a directory")):
        with pytest.raises(RuntimeError, match=f"{home}: need a folder .* found: {reason}") as error:
            make_home(home)
        assert "PREFECT_HOME" in str(error.value)
        assert "\n" not in str(error.value)
    with files_end_at(100_000), pytest.raises(RuntimeError, match=r"4 MB of room.*found: File too large"):
        make_home(tmp_path / "full")
    assert not list((tmp_path / "full").iterdir())
    make_home(tmp_path / "full")


def test_a_home_whose_records_would_lie_elsewhere_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match=r"why\?: need a folder for Prefect without \? in its path"):
        make_home(tmp_path / "why?")
    assert list(tmp_path.iterdir()) == []


def test_a_password_that_finds_no_room_leaves_nothing(tmp_path):
    with files_end_at(10), pytest.raises(OSError, match="File too large"):
        auth_string(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("exempt", ["", "example.org"])
def test_a_dead_proxy_does_not_come_between_a_flow_and_its_server(tmp_path, exempt):
    project = Project(tmp_path)
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        project.environment |= {name: "http://127.0.0.1:9", name.upper(): "http://127.0.0.1:9"}
    project.environment |= {"no_proxy": exempt, "MATPAC_SERVER_IDLE_S": "2"}
    project.environment.pop("NO_PROXY", None)
    project.write_recordings()
    project.write_params()
    with kept_up(project):
        code, output = project.run("download")
        assert code == 0, output
        assert {run["state"]["type"] for run in project.recorded("task_runs")} == {"COMPLETED"}


def kept_up(project: Project) -> AbstractContextManager[object]:
    """A user of the server beside the stages, which take seconds to exit on a busy machine."""
    home = project.folder / ".prefect"
    home.mkdir(exist_ok=True)
    return locked(home / "users.lock", shared=True, wait=True)


def refuse_events_of_others(project: Project) -> None:
    """Runs of a project that lost its server at this port have no flow run here: IntegrityErrors."""
    url = f"{answering_url(project.folder / '.prefect')}/events/in".replace("http", "ws")
    for token in (None, "matpac:guess"):
        with connect(url, subprotocols=["prefect"]) as socket:
            socket.send(json.dumps({"type": "auth", "token": token}))
            with pytest.raises(ConnectionClosed, match=r"\(policy violation\).* token"):
                socket.recv()


@pytest.mark.slow
def test_two_stages_share_a_server_that_stops_by_itself_and_records_what_was_killed(tmp_path):
    project = Project(tmp_path)
    project.environment["MATPAC_SERVER_IDLE_S"] = "2"
    project.write_recordings()
    project.write_params()
    with kept_up(project):
        both = [project.start("download"), project.start("download")]
        outputs = [process.communicate(timeout=240)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        assert len(project.recorded("flow_runs")) == 2
        refuse_events_of_others(project)
        assert "IntegrityError" not in (tmp_path / ".prefect/server.log").read_text()

    killed = project.start("shards")
    assert killed.stdout is not None
    while "Beginning flow run" not in killed.stdout.readline():
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    project.wait_for_end_of_server()
    assert not list(tmp_path.glob(".prefect/server.json"))

    with kept_up(project):
        code, output = project.run("download")
        assert code == 0, output
        [run] = [run for run in project.recorded("flow_runs") if run["name"] == "shards mine"]
        assert run["state"]["type"] == "CRASHED"
        assert {run["state"]["type"] for run in project.recorded("task_runs")} <= {"COMPLETED", "CRASHED"}


@pytest.mark.slow
def test_a_server_that_cannot_start_is_an_error_that_names_its_log(tmp_path):
    project = Project(tmp_path)
    project.write_params()
    (tmp_path / ".prefect/prefect.db").mkdir(parents=True)
    started = time.monotonic()
    code, output = project.run("download")
    assert code == 1
    assert "Prefect's server did not start" in output.splitlines()[-1]
    assert ".prefect/server.log" in output.splitlines()[-1]
    assert time.monotonic() - started < 150
