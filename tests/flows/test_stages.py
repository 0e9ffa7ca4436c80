"""The real flows on six tiny clips, recorded by a real server."""

import hashlib
import json
import random
import shutil
import signal
import time

import psutil
import pytest

from flows.server import answering_url, auth_string
from tests.files import flip_a_bit
from tests.flows.conftest import Project

pytestmark = pytest.mark.slow


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def beside(project, folder):
    """Another project with the same recordings at the same server, which runs for two more minutes."""
    code, output = project.run("download")
    assert code == 0, output
    url = answering_url(project.folder / ".prefect")
    assert url is not None
    other = Project(folder)
    other.environment["PREFECT_API_URL"] = url
    other.environment["PREFECT_API_AUTH_STRING"] = auth_string(project.folder / ".prefect")
    other.write_recordings()
    return other


@pytest.fixture(scope="module")
def converted(project):
    for stage in ("download", "shards"):
        code, output = project.run(stage)
        assert code == 0, output
    return project


def test_recordings_become_shards(converted):
    data = converted.folder / "data"
    raw = sorted(path.name for path in (data / "raw/mine").iterdir())
    assert raw == ["passed_over.json", "recordings.parquet", "tables.json"]
    assert sorted(path.name for path in (data / "shards/mine").iterdir()) == [
        "SHA256SUMS",
        "digests.parquet",
        "index.parquet",
        "logmel.json",
        "notes.csv",
        "passed_over.json",
        "rejected.csv",
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
        "statistics.json",
        "task.json",
    ]


def test_the_shards_say_what_is_taken_for_labels_and_splits(converted):
    found = json.loads((converted.folder / "data/shards/mine/statistics.json").read_text())
    *_, splits, division = found["choices"]
    assert splits == "splits: auto (default)"
    assert division == "none found, so the labelled clips are divided: num_folds: 3"


def test_every_run_and_task_is_recorded_in_its_final_state(converted):
    flows = {run["name"]: run["state"]["type"] for run in converted.recorded("flow_runs")}
    assert flows["download mine"] == flows["shards mine"] == "COMPLETED"
    tasks = {run["name"]: run["state"]["type"] for run in converted.recorded("task_runs")}
    assert {name: tasks[name] for name in ("shard 0", "shard 1", "shard 2")} == {
        "shard 0": "COMPLETED",
        "shard 1": "COMPLETED",
        "shard 2": "COMPLETED",
    }
    assert set(tasks.values()) == {"COMPLETED"}


def test_artifacts_show_progress_counts_and_a_picture(converted):
    artifacts = {artifact["key"]: artifact for artifact in converted.recorded("artifacts")}
    assert artifacts["shards-mine-progress"]["data"] == 100
    assert '"in shards", "number": 6' in artifacts["shards-mine-counts"]["data"]
    assert "data:image/png;base64," in artifacts["shards-mine-summary"]["data"]
    assert '"recordings": 6' in artifacts["download-mine-counts"]["data"]


def test_a_wrong_name_is_one_line_and_no_run(converted):
    num_runs = len(converted.recorded("flow_runs"))
    code, output = converted.run("shards", "yours")
    assert code == 1
    [line] = output.splitlines()
    assert line.startswith("shards yours: need a name under `datasets` (")
    assert len(converted.recorded("flow_runs")) == num_runs


def test_too_many_rejections_end_in_one_line_and_a_failed_run_with_their_counts(converted, tmp_path):
    other = beside(converted, tmp_path)
    other.write_params(max_rejected_fraction=0)
    (tmp_path / "mine/a/0.wav").write_bytes(b"no audio")
    assert other.run("download")[0] == 0
    code, output = other.run("shards")
    assert code == 1
    assert output.splitlines()[-1].startswith(
        "shards mine: 1 of 6 clips could not be used (1 cannot be decoded)"
    )
    assert "Traceback" not in output
    failed = converted.recorded("flow_runs")[-1]
    assert failed["state"]["type"] == "FAILED"
    reason = output.splitlines()[-1].removeprefix("shards mine: ")
    logs = converted.logs_of(failed)
    assert any(reason in message for message in logs), logs
    # Once on the terminal, as its last line.
    assert output.count(reason) == 1
    [*_, counts] = [item for item in converted.recorded("artifacts") if item["key"] == "shards-mine-counts"]
    assert '"rejected: cannot be decoded", "number": 1' in counts["data"]
    # The same if a task of the flow fails.
    shutil.rmtree(tmp_path / "mine")
    code, output = other.run("download")
    assert code == 1
    assert output.splitlines()[-1].startswith("download mine: mine: need a folder of recordings, found none")
    assert output.count("found none") == 1


def test_a_stage_killed_at_random_moments_ends_with_the_same_bytes(converted):
    out = converted.folder / "data/shards/mine"
    whole = digests(out)
    moments = random.Random(0)
    for _ in range(3):
        process = converted.start("shards")
        time.sleep(moments.uniform(1.0, 4.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, output = converted.run("shards")
    assert code == 0, output
    assert digests(out) == whole


def test_a_shard_damaged_since_is_built_again_and_said_so(converted):
    shards = converted.folder / "data/shards/mine"
    whole = digests(shards)
    flip_a_bit(shards / "shard-000001.tar", place=2000)
    code, output = converted.run("shards")
    assert code == 0, output
    assert "/v2/runs/flow-run/" in output, "the page that asks for the password"
    assert "need 3 shards as they were written, found others in place of 1 (shard-000001.tar)" in output
    assert digests(shards) == whole


def test_a_server_of_the_user_is_used_where_there_is_one(converted, tmp_path):
    url = answering_url(converted.folder / ".prefect")
    assert url is not None
    before = len(converted.recorded("flow_runs"))
    other = Project(tmp_path)
    other.environment["PREFECT_API_URL"] = url
    other.environment["PREFECT_API_AUTH_STRING"] = auth_string(converted.folder / ".prefect")
    other.write_recordings()
    other.write_params()
    code, output = other.run("download")
    assert code == 0, output
    assert len(converted.recorded("flow_runs")) == before + 1
    assert not (tmp_path / ".prefect/server.lock").exists()


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_every_task_runner_makes_the_same_bytes(converted, tmp_path, runner):
    other = beside(converted, tmp_path)
    other.write_params(runner=runner)
    for stage in ("download", "shards"):
        code, output = other.run(stage)
        assert code == 0, output
    assert digests(tmp_path / "data/shards/mine") == digests(converted.folder / "data/shards/mine")


def test_two_runs_for_one_dataset_divide_the_shards(converted, tmp_path):
    other = beside(converted, tmp_path)
    other.write_params()
    assert other.run("download")[0] == 0
    together = [other.start("shards") for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0], outputs
    assert "IntegrityError" not in (converted.folder / ".prefect/server.log").read_text()
    assert digests(tmp_path / "data/shards/mine") == digests(converted.folder / "data/shards/mine")


def test_worker_processes_report_to_the_projects_own_server(converted):
    """Prefect's thread that passes on their reports started a second server, which stayed behind."""
    for made in ("data/shards", "data/.work/shards"):
        shutil.rmtree(converted.folder / made)
    converted.write_params(runner="processes")
    try:
        code, output = converted.run("shards")
    finally:
        converted.write_params()
    assert code == 0, output
    assert "temporary server" not in output
    here = [one.info for one in psutil.process_iter(["cmdline", "cwd"])]
    here = [one["cmdline"] for one in here if one["cwd"] == str(converted.folder)]
    assert not [command for command in here if "uvicorn" in command]
