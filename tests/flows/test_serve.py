"""Deployments: what they offer, and the real thing with a server."""

import signal
import sys
import time

import httpx
import pytest
import yaml

from flows import serve, stage
from flows.download import download
from flows.serve import deployments, prefect_yaml
from flows.server import answering_url
from matpac.params import load_params, parse_params
from tests.flows.conftest import REPOSITORY, Project


def with_schedules(**schedules):
    raw = yaml.safe_load((REPOSITORY / "presets/demo.yaml").read_text())
    raw["schedules"] |= schedules
    return parse_params(raw)


def test_prefect_yaml_is_what_the_default_parameters_give():
    committed = (REPOSITORY / "prefect.yaml").read_text()
    assert committed == prefect_yaml(load_params(REPOSITORY / "presets/demo.yaml")), (
        "run `python -m flows.serve --prefect-yaml > prefect.yaml`"
    )


def test_a_schedule_does_every_dataset_and_the_whole_pipeline_once():
    params = with_schedules(shards="30 3 * * *", reproduce="0 5 * * 1")
    download, shards, reproduce = deployments(params)
    assert download["schedules"] == []
    assert [schedule["parameters"]["dataset"] for schedule in shards["schedules"]] == list(params.datasets)
    assert {schedule["cron"] for schedule in shards["schedules"]} == {"30 3 * * *"}
    assert reproduce["schedules"] == [{"cron": "0 5 * * 1", "timezone": "UTC", "parameters": {}}]


@pytest.mark.parametrize(
    ("arguments", "main"),
    [(["serve"], serve.main), (["download", "mine"], lambda: stage.run(download))],
)
def test_a_file_that_cannot_be_opened_is_one_line_that_names_it(in_tmp, monkeypatch, capsys, arguments, main):
    (in_tmp / "params.yaml").mkdir()
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == f"{' '.join(arguments)}: params.yaml: Is a directory\n"


def test_a_schedule_that_is_none_is_refused_by_name():
    with pytest.raises(ValueError, match=r"schedules\.shards: need a cron line .* found '99 3 \* \* \*'"):
        deployments(with_schedules(shards="99 3 * * *"))


class Served:
    """`python -m flows.serve` in a project of its own, and what its server knows."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.process = project.launch("serve")
        assert self.process.stdout is not None
        self.lines: list[str] = []
        while "/deployments" not in (line := self.process.stdout.readline()):
            assert line, self.lines
            self.lines.append(line)
        url = answering_url(project.folder / ".prefect")
        assert url is not None, self.lines
        self.client = httpx.Client(base_url=url, timeout=30, auth=project.auth)

    def ask(self, method: str, path: str, *, again: int = 503, **body) -> httpx.Response:
        """Asked again while the answer is 503, as Prefect's own client does: SQLite was busy."""
        give_up = time.monotonic() + 30
        while (answer := self.client.request(method, path, json=body or None)).status_code in (503, again):
            assert time.monotonic() < give_up, answer.text
            time.sleep(0.2)
        return answer

    def deployment(self, name: str) -> dict:
        return self.ask("GET", f"/deployments/name/{name}/{name}", again=404).raise_for_status().json()

    def start(self, name: str, **parameters) -> httpx.Response:
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        return self.ask("POST", path, parameters=parameters, state={"type": "SCHEDULED"})

    def wait_for(self, run: str, *states: str) -> dict:
        give_up = time.monotonic() + 60
        while (found := self.ask("GET", f"/flow_runs/{run}").json())["state"]["type"] not in states:
            assert time.monotonic() < give_up, found["state"]
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("served"))
    project.write_recordings()
    project.write_params()
    path = project.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["schedules"]["reproduce"] = "0 5 1 * *"
    path.write_text(yaml.safe_dump(params))
    project.environment["PREFECT_RUNNER_POLL_FREQUENCY"] = "1"
    served = Served(project)
    yield served
    served.process.kill()
    served.process.communicate()
    served.client.close()


@pytest.mark.slow
def test_the_deployments_are_there_with_a_choice_of_datasets_and_a_limit(served):
    download = served.deployment("download")
    assert download["parameters"] == {"dataset": "demo_corpus"}
    assert download["parameter_openapi_schema"]["properties"]["dataset"]["enum"][-1] == "mine"
    assert download["global_concurrency_limit"]["limit"] == 1
    assert served.deployment("shards")["schedules"] == []


def ask_again(ask, *arguments, **named) -> httpx.Response:
    """Ask until the server's database is free, as Prefect's own client does."""
    deadline = time.monotonic() + 30
    while (answer := ask(*arguments, **named)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "knows", "expected"),
    [
        ({}, False, 401),
        ({"Authorization": "Basic bWF0cGFjOmd1ZXNz"}, False, 401),
        ({"Host": "attacker.example:4200"}, True, 403),
        ({"Origin": "https://attacker.example"}, True, 403),
        ({"Origin": "null"}, True, 403),
        ({}, True, 204),
    ],
)
def test_a_deployment_is_changed_only_with_the_password_from_our_own_pages(served, headers, knows, expected):
    deployment = served.deployment("download")
    with httpx.Client(base_url=served.client.base_url, auth=served.client.auth if knows else None) as client:
        answer = ask_again(
            client.patch,
            f"/deployments/{deployment['id']}",
            headers=headers,
            json={"description": f"by {headers}"},
        )
        assert answer.status_code == expected
    changed = served.deployment("download")["description"] != deployment["description"]
    assert changed == (expected == 204)


@pytest.mark.slow
def test_a_foreign_page_gets_neither_a_grant_nor_a_socket(served):
    foreign = {"Origin": "https://attacker.example"}
    asked = foreign | {"Access-Control-Request-Method": "PATCH"}
    answer = served.client.request("OPTIONS", "/deployments/filter", headers=asked)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert served.client.get("/events/out", headers=upgrade | key | foreign).status_code == 403
    rebound = {"Host": "attacker.example"}
    assert served.client.get("/events/out", headers=upgrade | key | rebound).status_code == 403


@pytest.mark.slow
def test_the_terminal_says_where_the_password_is_and_only_the_owner_reads_it(served):
    file = served.project.folder / ".prefect/auth_string"
    assert any("asks once for the line in .prefect/auth_string" in line for line in served.lines), (
        served.lines
    )
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_text()) > 30


@pytest.mark.slow
def test_a_name_that_is_no_dataset_is_refused_before_anything_runs(served):
    answer = served.start("shards", dataset="yours")
    assert answer.status_code == 409
    assert "'yours' is not one of" in answer.text


@pytest.mark.slow
def test_a_run_that_is_started_from_outside_is_done_and_a_retry_finds_its_shards(served):
    assert (
        served.wait_for(served.start("download", dataset="mine").json()["id"], "COMPLETED")["name"]
        == "download mine"
    )
    run = served.start("shards", dataset="mine").json()["id"]
    served.wait_for(run, "COMPLETED")
    shard = next((served.project.folder / "data").rglob("shard-000000.tar"))
    made = shard.stat().st_mtime_ns
    retry = {"type": "SCHEDULED", "name": "AwaitingRetry"}
    served.ask("POST", f"/flow_runs/{run}/set_state", state=retry, force=True).raise_for_status()
    served.wait_for(run, "RUNNING")
    assert served.wait_for(run, "COMPLETED", "FAILED")["state"]["type"] == "COMPLETED"
    assert shard.stat().st_mtime_ns == made


@pytest.mark.slow
def test_the_server_plans_what_the_schedule_says(served):
    deployment = served.deployment("reproduce")
    assert [schedule["schedule"]["cron"] for schedule in deployment["schedules"]] == ["0 5 1 * *"]
    give_up = time.monotonic() + 60
    wanted = {"id": {"any_": [deployment["id"]]}}
    while not (runs := served.ask("POST", "/flow_runs/filter", deployments=wanted, limit=1).json()):
        assert time.monotonic() < give_up
        time.sleep(0.5)
    assert runs[0]["auto_scheduled"]
    assert runs[0]["expected_start_time"][8:16] == "01T05:00"


@pytest.mark.slow
def test_sigterm_cancels_what_runs_and_pauses_nothing_while_a_pause_of_the_user_holds(served):
    run = served.start("download", dataset="demo_corpus").json()["id"]
    served.wait_for(run, "RUNNING")
    served.process.send_signal(signal.SIGTERM)
    output, _ = served.process.communicate(timeout=60)
    assert served.process.returncode == 0, output
    assert served.wait_for(run, "CANCELLED", "COMPLETED")["state"]["message"] == "Runner is shutting down."
    assert not served.deployment("download")["paused"]
    shards = served.deployment("shards")["id"]
    served.ask("POST", f"/deployments/{shards}/pause_deployment").raise_for_status()
    before = served.deployment("shards")
    again = Served(served.project)
    while (after := again.deployment("shards"))["updated"] == before["updated"]:
        assert again.process.poll() is None
        time.sleep(0.2)
    assert [before["paused"], after["paused"]] == [True, True]
    again.process.send_signal(signal.SIGTERM)
    again.process.communicate(timeout=60)
    again.client.close()
