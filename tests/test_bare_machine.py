"""A GPU machine without a package registry: what docs/training.md has people carry there is enough."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

from matpac.weights.released import PAPER_LOGMEL
from tests.packages import REFUSING, distributions_below, names_outside
from tests.recordings import build, plan_of, write_recordings

PAGE = Path(__file__).resolve().parent.parent / "docs/training.md"
CARRIED = re.compile(r"^pip download --only-binary=:all: --no-deps .*-d wheels (.+)$", re.MULTILINE)

COMMANDS = """
import os, sys
from matpac.cli import main
import torch
torch.set_num_threads(1)
os.environ["PATH"] = ""  # nor is git there
for command in sys.argv[1:]:
    sys.argv = ["matpac", *command.split()]
    try:
        main()
    except SystemExit as done:
        assert done.code in (0, None), f"{command}: {done.code}"
"""

BENCHMARKS = """
import os
os.environ["PATH"] = ""
import benchmarks.training
from benchmarks.__main__ import git_revision, machine
assert machine()["versions"]["torch"]
assert git_revision() == ""
"""


@pytest.fixture(scope="module")
def carried() -> list[list[str]]:
    """The wheels of the page: those for training, for embedding and probing too, for several labels too."""
    return [line.split() for line in CARRIED.findall(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def there() -> set[str]:
    """Distributions of the bare machine, as the page names them, and what they require."""
    [named] = re.findall(r"there are only (.+?) and what these need", PAGE.read_text(), re.DOTALL)
    return distributions_below(re.findall(r"`([a-z]+)`", named))


@pytest.fixture(scope="module")
def folder(project, tmp_path_factory):
    """Shards with the paper's front end, made where everything is installed, and parameters."""
    folder = tmp_path_factory.mktemp("bare")
    write_recordings(folder / "audio", [1.0] * 12)
    build(plan_of(folder / "audio", folder / "work", PAPER_LOGMEL), folder / "data/shards/noise")
    params = yaml.safe_load((project / "presets/demo.yaml").read_text())
    params["datasets"] = {"noise": params["datasets"]["demo_melodies"]}
    params["logmel"] = PAPER_LOGMEL.model_dump()
    params["online"] |= {"dataset": "noise", "k": 2}
    params["model"]["num_clusters"] = 16
    params["pretrain"] |= {"datasets": ["noise"], "crop_frames": 64, "batch_size": 4, "num_epochs": 2}
    params["pretrain"] |= {"warmup_epochs": 1, "teacher_temperature_epochs": 1}
    params["compute"] |= {"num_processes": 1, "micro_batch_size": 4}
    params["probe"] |= {"datasets": ["noise"], "num_repeats": 2, "max_epochs": 3}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def run(project, folder, distributions, code, *arguments) -> str:
    """Run code in a process that finds these distributions only; what it said on stderr."""
    refused = ",".join(names_outside(distributions))
    done = subprocess.run(
        [sys.executable, "-c", REFUSING + code, refused, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_is_carried_is_named_exactly(carried, there):
    for_training, for_probing, for_several_labels = ({*map(canonicalize_name, line)} for line in carried)
    wheels = for_training | for_probing | for_several_labels
    assert len(wheels) == len(for_training) + len(for_probing) + len(for_several_labels)
    assert not wheels & there


@pytest.mark.slow
def test_there_it_trains_embeds_and_probes(project, folder, carried, there):
    for_training, for_probing, _ = carried
    training = there | {*for_training}
    said = run(project, folder, training, COMMANDS, "corpus", "pretrain")
    assert said.count("they need DVCLive") == 1
    assert "6/6 updates (100%)" in said
    run(project, folder, training | {*for_probing}, COMMANDS, "embed --dataset noise", "probe noise")
    assert (folder / "data/scores/noise.json").exists()


@pytest.mark.slow
def test_there_the_training_benchmark_can_start(project, folder, carried, there):
    run(project, folder, there | {*carried[0]}, BENCHMARKS)
