"""A project folder with shards of noise, and training runs of at most half a minute in it."""

import csv
import io
import os
import signal
import subprocess
import sys
import time
from contextlib import chdir, nullcontext, redirect_stderr
from pathlib import Path

import psutil
import pytest
import yaml

from matpac.params import load_params
from matpac.shards.corpus import write_corpus
from matpac.training import run
from tests.recordings import LOGMEL, NETWORKS, build, plan_of, write_recordings

REPOSITORY = Path(__file__).resolve().parents[2]


class Project:
    """A folder with shards and parameters, in which `matpac pretrain` runs as users run it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.temporary = folder, folder / "temporary"
        self.temporary.mkdir()
        write_recordings(folder / "audio", [1.0] * 12)
        build(plan_of(folder / "audio", folder / "work"), folder / "data/shards/noise")
        self.change()

    def change(
        self, online: str | None = None, save_every_s: float = 0.2, size: str = "custom", **pretrain
    ) -> None:
        """Write params.yaml for a tiny run, with changes to its section `pretrain`.

        `online` names the dataset of the online probe. Networks of another `size` than `custom` can learn,
        and differ less with the order of sums.
        """
        params = yaml.safe_load((REPOSITORY / "presets/demo.yaml").read_text())
        params["datasets"] = {"noise": params["datasets"]["demo_melodies"]}
        params["probe"]["datasets"] = []
        params["online"] |= {"dataset": online, "every_updates": 20, "k": 2}
        params["logmel"] = LOGMEL.model_dump()
        params["model"] |= {"size": size, "num_clusters": 16}
        params["model"] |= {"custom": NETWORKS} if size == "custom" else {}
        params["pretrain"] |= {
            "datasets": ["noise"],
            "crop_frames": 64,
            "batch_size": 8,
            "num_epochs": 40,
            **pretrain,
        }
        params["compute"] |= {"micro_batch_size": 4, "save_every_s": save_every_s, "log_every_updates": 5}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))
        checked, data = load_params(self.folder / "params.yaml"), self.folder / "data"
        write_corpus(
            data / "shards", checked.pretrain.datasets, checked.online_datasets, data / "corpus.json"
        )

    def pretrain(self, stop_after: int | None = None) -> str:
        """Pre-train in this process, which saves the start of another; return what it says.

        With `stop_after` it is told to stop once it has saved so many updates.
        """
        replace_state = run.replace_state

        def replace_and_stop(folder: Path, *others: object) -> None:
            replace_state(folder, *others)
            if stop_after is not None and int(folder.name.removeprefix("update-")) >= stop_after:
                signal.raise_signal(signal.SIGTERM)

        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patched, chdir(self.folder), redirect_stderr(said):
            patched.setattr(run, "replace_state", replace_and_stop)
            places = Path("data/shards"), Path("data/checkpoints/pretrained")
            stops = nullcontext() if stop_after is None else pytest.raises(SystemExit, match="143")
            with stops:
                run.pretrain_stage(*places, load_params(Path("params.yaml")), Path("data/corpus.json"))
        return said.getvalue()

    def start(self, ranks: int = 1) -> subprocess.Popen:
        params = yaml.safe_load((self.folder / "params.yaml").read_text())
        params["compute"]["num_processes"] = ranks
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))
        return subprocess.Popen(
            [sys.executable, "-m", "matpac", "pretrain"],
            cwd=self.folder,
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, ranks: int = 1) -> str:
        process = self.start(ranks)
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        return said

    def interrupt(self, number: signal.Signals, updates: int, ranks: int = 1) -> tuple[int, str]:
        """Start a run and send it a signal once it has saved `updates`; return exit code and stderr."""
        process = self.start(ranks=ranks)
        deadline = time.monotonic() + 300
        while self.saved_updates() < updates and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        # Processes that torchrun started outlive it.
        family = psutil.Process(process.pid).children(recursive=True) if number == signal.SIGKILL else []
        for one in [process, *family]:
            one.send_signal(number)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def saved_updates(self) -> int:
        names = [path.name for path in self.folder.glob("data/.work/pretrain/*/update-*")]
        return max((int(name[7:16]) for name in names if not name.endswith("partial")), default=0)

    def losses(self) -> list[float]:
        with (self.folder / "data/checkpoints/pretrained/metrics.csv").open() as table:
            return [float(row["loss"]) for row in csv.DictReader(table)]

    def weights(self) -> bytes:
        return (self.folder / "data/checkpoints/pretrained/networks.safetensors").read_bytes()


@pytest.fixture(scope="session")
def project_of_noise(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("pretrain"))
