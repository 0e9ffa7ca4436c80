"""The pipeline as users run it: `dvc repro` in a clone or an archive, on a few recordings."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
IN_GIT = (REPOSITORY / ".git").exists()
pytestmark = pytest.mark.slow


def sources() -> list[str]:
    """Files that a clone or an archive of this project holds."""
    if IN_GIT:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        return subprocess.check_output(command, cwd=REPOSITORY, text=True).splitlines()
    made_here = {".venv", ".venv-hear", ".prefect", "data", "site", "dvc_plots", "dvc.lock"}
    tops = [top for top in REPOSITORY.iterdir() if top.name not in made_here]
    paths = [path for top in tops for path in (top, *top.rglob("*")) if "__pycache__" not in path.parts]
    unfinished = (REPOSITORY / ".dvc/cache", REPOSITORY / ".dvc/tmp")
    return [str(path.relative_to(REPOSITORY)) for path in paths if not set(unfinished) & set(path.parents)]


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in sources():
            if (REPOSITORY / name).is_file():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, target)
        self.environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "OMP_NUM_THREADS": "1",
            "MATPAC_SERVER_IDLE_S": "30",
        }
        commands = (
            ["init", "--quiet"],
            ["add", "--all"],
            ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--message=a"],
        )
        for command in commands if IN_GIT else ():
            subprocess.run(["git", *command], cwd=folder, check=True)
        self.original = yaml.safe_load((REPOSITORY / "presets/demo.yaml").read_text())
        del self.original["datasets"]["demo_rhythms"]
        self.original["probe"]["datasets"].remove("demo_rhythms")
        for dataset in self.original["datasets"].values():
            dataset["num_clips"] = 60
        self.original["pretrain"] |= {"batch_size": 8, "num_epochs": 4}
        self.original["pretrain"] |= {"warmup_epochs": 1, "teacher_temperature_epochs": 2}
        self.original["compute"] |= {"micro_batch_size": 8, "save_every_s": 0.05}
        self.original["probe"] |= {"max_epochs": 3, "num_repeats": 2}
        self.change()

    def change(self, key: str | None = None, value: object = None) -> None:
        """Write params.yaml with one value changed, or none."""
        params = json.loads(json.dumps(self.original))
        if key is not None:
            *sections, last = key.split(".")
            section = params
            for name in sections:
                section = section[name]
            section[last] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["dvc", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def dvc(self, *arguments: str) -> str:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        return said

    def would_run(self) -> set[str]:
        """Stages that are stale themselves, without what follows from them."""
        stale = json.loads(self.dvc("status", "--json"))
        own = {
            name: reasons
            for name, reasons in stale.items()
            if any(
                "params.yaml" in str(reason) or "deleted" in str(reason) or "new" in str(reason)
                for reason in reasons
            )
        }
        return {name.split("@")[0] for name in own}

    def digest(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("pipeline"))
    said = project.dvc("repro")
    assert "log-mel statistics" in said
    assert "The whole report: data/report/index.html" in said
    return project


@pytest.fixture(autouse=True)
def _same_parameters_again(project):
    yield
    project.change()


def test_a_second_repro_runs_no_stage_and_is_quick(project):
    started = time.monotonic()
    said = project.dvc("repro")
    assert re.findall(r"Running stage '(.*)'", said) == ["sources"]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("probe.learning_rate", 0.002, {"probe", "record", "report"}),
        ("pretrain.alpha", 0.25, {"pretrain", "record", "report"}),
        ("pretrain.datasets", ["demo_melodies"], {"fingerprint", "corpus", "pretrain", "record", "report"}),
        ("online.k", 5, {"pretrain", "report"}),
        ("logmel.num_mels", 64, {"shards", "pretrain", "record", "report"}),
        ("datasets.demo_scenes.seed", 9, {"download", "shards", "report"}),
        ("embed.batch_size", 8, {"embed", "report"}),
        ("embed.others", {"own": {"module": "matpac.hear", "model": None}}, {"embed", "report"}),
        ("shards.num_workers", 1, set()),
    ],
)
def test_a_changed_parameter_makes_stale_what_depends_on_it(project, key, value, stages):
    project.change(key, value)
    assert project.would_run() == stages


def test_swapping_the_corpus_and_back_costs_no_computation(project):
    project.change("pretrain.datasets", ["demo_melodies"])
    said = project.dvc("repro", "pretrain")
    assert re.findall(r"Running stage '(.*)'", said) == [
        *("sources", "fingerprint@demo_melodies", "corpus", "pretrain"),
    ]
    project.change()
    said = project.dvc("repro")
    assert re.findall(r"Running stage '(.*)'", said) == ["sources"]
    assert "Stage 'pretrain' is cached - skipping run, checking out outputs" in said


def test_a_killed_repro_goes_on_where_it_was(project):
    project.change("pretrain.alpha", 0.25)
    process = project.start("repro", "pretrain")
    deadline = time.monotonic() + 120
    saved = "data/.work/pretrain/*/update-*[0-9]"
    while not list(project.folder.glob(saved)) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "Going on from update" in project.dvc("repro", "pretrain")


def test_a_grid_lays_its_runs_side_by_side_and_leaves_the_parameters_as_they_were(project):
    (project.folder / "presets/grids/two.yaml").write_text("pretrain.alpha: [0.5, 0.25]\n")
    before = project.digest("params.yaml")
    subprocess.run(
        [sys.executable, "-m", "flows.grid", "two"],
        cwd=project.folder,
        env=project.environment,
        check=True,
        timeout=600,
    )
    assert project.digest("params.yaml") == before
    with (project.folder / "data/report/table_3.csv").open(newline="") as file:
        ours = {row[0]: row[-1] for row in csv.reader(file) if row[1] == "ours"}
    assert ours["0.75"] == ours["1, without classification"] == "not run"
    for label in ("0.25", "0.5 (this run)", "minus this run"):
        assert "±" in ours[label]


def test_metrics_and_parameters_can_be_compared(project):
    assert "demo_scenes" in project.dvc("metrics", "show")
    said = project.dvc("plots", "show")
    assert "WARNING" not in said
    page = (project.folder / "dvc_plots/index.html").read_text()
    plots = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["plots"]
    assert len(re.findall(r"vegaEmbed\('#", page)) == len(plots)
    if IN_GIT:
        project.change("probe.learning_rate", 0.002)
        assert "probe.learning_rate" in project.dvc("params", "diff")
