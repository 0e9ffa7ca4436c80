"""`dvc repro` as a run of Prefect's, on pipelines of a stage or two."""

import signal
import subprocess
import sys
import time

import pytest
import yaml

from flows.reproduce import reason_of_stop, what_happened
from tests.flows.conftest import Project

DOWNLOAD = {"cmd": "python -m flows.download mine", "outs": ["data/raw/mine"]}


def test_a_stage_that_failed_is_named_with_what_it_said_last():
    error = "failed to reproduce 'shards@mine': failed to run: python -m flows.shards mine, exited with 1"
    assert (
        reason_of_stop(error, "shards mine: no recordings")
        == "stage shards@mine failed: shards mine: no recordings"
    )


def test_what_dvc_says_of_itself_is_passed_on():
    assert (
        reason_of_stop("Stage 'x' not found inside 'dvc.yaml' file", "")
        == "Stage 'x' not found inside 'dvc.yaml' file"
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("Running stage 'corpus':", "ran"),
        ("Stage 'corpus' didn't change, skipping", "nothing had changed"),
        ("Stage 'corpus' is cached - skipping run, checking out outputs", "taken from DVC's cache"),
    ],
)
def test_what_happened_to_a_stage(line, what):
    assert what_happened(line) == what


def pipeline(project: Project, **stages: dict) -> None:
    (project.folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    if not (project.folder / ".dvc").exists():
        subprocess.run(
            [sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=project.folder, check=True
        )


def reproduce(project: Project, *arguments: str) -> tuple[int, str]:
    process = project.launch("reproduce", *arguments)
    output, _ = process.communicate(timeout=240)
    return process.returncode, output.splitlines()[-1]


def last_run(project: Project) -> dict:
    return [run for run in project.recorded("flow_runs") if run["name"].startswith("reproduce")][-1]


@pytest.mark.slow
def test_stages_are_runs_of_their_own_and_the_end_is_a_page(project):
    pipeline(project, download=DOWNLOAD, other={"cmd": "echo hello", "deps": ["data/raw/mine"]})
    code, said = reproduce(project, "other")
    assert code == 0, said
    runs = [(run["name"], run["state"]["type"]) for run in project.recorded("flow_runs")]
    assert runs[-2:] == [("reproduce other", "COMPLETED"), ("download mine", "COMPLETED")]
    artifacts = {artifact["key"]: artifact for artifact in project.recorded("artifacts")}
    assert artifacts["reproduce-progress"]["data"] == 100
    assert "| download | ran |\n| other | ran |" in artifacts["reproduce-summary"]["data"]


@pytest.mark.slow
def test_a_failing_stage_fails_the_run_with_the_line_of_the_stage(project):
    pipeline(project, shards={"cmd": "python -m flows.shards yours"})
    code, said = reproduce(project)
    assert code == 1
    line = "stage shards failed: shards yours: need a name under `datasets` ("
    assert said.startswith(f"reproduce: {line}")
    assert last_run(project)["state"]["message"].startswith(line)
    assert any(line in message for message in project.logs_of(last_run(project)))


@pytest.mark.slow
def test_a_second_one_is_told_to_wait_and_sigterm_stops_the_stages_too(project):
    saves = "trap 'echo saved > saved; exit 1' TERM; touch started; for _ in $(seq 600); do sleep 0.1; done"
    pipeline(project, long={"cmd": saves, "outs": ["saved"]})
    first = project.launch("reproduce")
    while not (project.folder / "started").exists():
        assert first.poll() is None
        time.sleep(0.05)
    code, said = reproduce(project)
    assert (code, said.split(".")[0]) == (1, "reproduce: another `dvc` is at work in this folder")
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=30)
    assert (project.folder / "saved").read_text() == "saved\n"
    assert last_run(project)["state"]["type"] == "FAILED"
    states = {run["state"]["type"] for run in project.recorded("flow_runs") if run["name"] == "reproduce"}
    assert "CRASHED" in states
