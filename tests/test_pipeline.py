"""The pipeline as users run it: `dvc repro` in a clone or an archive, on a few recordings."""

import csv
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from flows.server import is_locked
from tests.killing import kill_at_random, wait_for_orphans, what_is_left
from tests.pipeline import IN_GIT, REPOSITORY, Pipeline

pytestmark = pytest.mark.slow


NUM_KILLS = int(os.environ.get("MATPAC_KILLS", "3"))


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A project after `dvc repro`, what that left behind, and the same project before it."""
    project = Pipeline(tmp_path_factory.mktemp("pipeline"))
    other = Pipeline(tmp_path_factory.mktemp("killed"), server_idle_s=15)
    started = time.monotonic()
    said = project.dvc("repro")
    assert "log-mel statistics" in said
    assert "The whole report: data/report/index.html" in said
    left = what_is_left(project, time.monotonic() - started)
    # Each start of ranks takes seconds.
    project.original["compute"]["num_processes"] = 1
    project.change()
    return project, left, other


@pytest.fixture(scope="module")
def project(first_run):
    return first_run[0]


@pytest.mark.timeout(900 + 60 * NUM_KILLS)
def test_killed_at_random_moments_it_ends_with_the_same_bytes_and_leaves_nothing(first_run):
    seed = int(os.environ.get("MATPAC_KILLS_SEED", time.time()))
    sys.stdout.write(f"MATPAC_KILLS_SEED={seed}\n")
    _, left, other = first_run
    killed = kill_at_random(other, left, NUM_KILLS, seed)
    assert len(killed) == NUM_KILLS
    wait_for_orphans(other, server=True)
    assert not [path for path in (other.folder / ".prefect").glob("*.lock") if is_locked(path)]


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
        ("datasets.demo_corpus.seed", 9, {"download", "shards", "report"}),
        ("embed.batch_size", 8, {"embed", "report"}),
        ("embed.others", {"own": {"module": "matpac.hear", "model": None}}, {"embed", "report"}),
        ("finetune.mixup", 0.5, {"record", "report"}),
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
    assert "demo_melodies" in project.dvc("metrics", "show")
    said = project.dvc("plots", "show")
    assert "WARNING" not in said
    page = (project.folder / "dvc_plots/index.html").read_text()
    plots = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["plots"]
    assert len(re.findall(r"vegaEmbed\('#", page)) == len(plots)
    if IN_GIT:
        project.change("probe.learning_rate", 0.002)
        assert "probe.learning_rate" in project.dvc("params", "diff")
