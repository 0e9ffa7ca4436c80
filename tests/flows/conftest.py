"""A project folder with six tiny recordings, and one server for all flows of the test session."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import yaml

from flows.server import answering_url, auth_string, is_locked

REPOSITORY = Path(__file__).resolve().parents[2]


class Project:
    """A folder to run stages in, and what its server has recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(REPOSITORY / "prefect.toml", folder)
        self.environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
        self.environment |= {"PYTHONPATH": str(REPOSITORY), "MATPAC_SERVER_IDLE_S": "120"}

    def write_recordings(self, num_recordings: int = 6) -> None:
        for number in range(num_recordings):
            path = self.folder / "mine" / ("a", "b")[number % 2] / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).normal(scale=0.1, size=8_000)
            soundfile.write(path, noise, 16_000, subtype="PCM_16")

    def write_params(self, **shards) -> None:
        params = yaml.safe_load((REPOSITORY / "presets/demo.yaml").read_text())
        params["datasets"]["mine"] = {
            "kind": "folder",
            "source": "mine",
            "labels": "folders",
            "multi_label": False,
            "num_folds": 3,
            "split_fractions": None,
        }
        params["shards"] |= {"clips_per_shard": 2, **shards}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))

    def start(self, stage: str, dataset: str = "mine") -> subprocess.Popen:
        return self.launch(stage, dataset)

    def launch(self, module: str, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", f"flows.{module}", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, stage: str, dataset: str = "mine") -> tuple[int, str]:
        process = self.start(stage, dataset)
        output, _ = process.communicate(timeout=240)
        return process.returncode, output

    def recorded(self, what: str) -> list[dict]:
        """Flow runs, task runs or artifacts, oldest first."""
        return sorted(self.ask(what, {}), key=lambda item: item["created"])

    def logs_of(self, run: dict) -> list[str]:
        """What the Logs tab of a flow run shows."""
        return [log["message"] for log in self.ask("logs", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})]

    def ask(self, what: str, wanted: dict) -> list[dict]:
        url = answering_url(self.folder / ".prefect")
        assert url is not None
        found = httpx.post(f"{url}/{what}/filter", json=wanted | {"limit": 200}, auth=self.auth)
        return found.raise_for_status().json()

    @property
    def auth(self) -> httpx.BasicAuth:
        return httpx.BasicAuth(*auth_string(self.folder / ".prefect").split(":"))

    def wait_for_end_of_server(self) -> None:
        lock = self.folder / ".prefect/server.lock"
        deadline = time.monotonic() + 60
        while is_locked(lock) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not is_locked(lock)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("project"))
    project.write_recordings()
    project.write_params()
    return project
