"""A run on two processes equals the run on one, even if it is interrupted."""

import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(project_of_noise):
    project_of_noise.change(size="tiny", batch_size=7)
    project_of_noise.pretrain()
    yield project_of_noise.losses(), load(project_of_noise.weights())
    project_of_noise.change()


def left_over(project):
    """Files for gradients, and torchrun's folders."""
    folders = (Path("/dev/shm"), project.temporary)
    return [
        path for folder in folders for name in ("matpac-*", "torchelastic_*") for path in folder.glob(name)
    ]


def expect_the_same(project, alone):
    losses, weights = alone
    assert project.losses() == pytest.approx(losses, abs=1e-5)
    for name, value in load(project.weights()).items():
        torch.testing.assert_close(value, weights[name], atol=1e-5, rtol=0, msg=name)


@pytest.fixture(scope="module")
def together(project_of_noise, alone):
    """Weights of a run on two ranks.

    Twelve clips in batches of seven, which divide evenly neither by ranks nor by epochs.
    """
    said = project_of_noise.run(ranks=2)
    assert said.count("68/68 updates (100%)") == 1, "one rank speaks for both"
    expect_the_same(project_of_noise, alone)
    return project_of_noise.weights()


def test_told_to_stop_ranks_stop_after_one_update_and_another_number_goes_on(project_of_noise, alone):
    project_of_noise.pretrain(stop_after=10)
    begun = project_of_noise.saved_updates()
    code, said = project_of_noise.interrupt(signal.SIGTERM, updates=begun + 10, ranks=2)
    assert code == 128 + signal.SIGTERM
    assert f"Going on from update {begun} of 68." in said
    assert said.count("the next run goes on from there") == 1
    saved = project_of_noise.saved_updates()
    assert f"Stopped after update {saved};" in said
    assert begun + 10 <= saved < 68
    assert f"Going on from update {saved} of 68." in project_of_noise.pretrain()
    expect_the_same(project_of_noise, alone)


def test_a_killed_rank_ends_the_run_in_seconds_and_loses_nothing(project_of_noise, together):
    before = left_over(project_of_noise)
    process = project_of_noise.start(ranks=2)
    while project_of_noise.saved_updates() < 10:
        time.sleep(0.01)
    killed_s = time.monotonic()
    psutil.Process(process.pid).children()[1].kill()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - killed_s < 20
    assert process.returncode != 0
    one, two = said.splitlines()[-2:]
    assert one.startswith("matpac: a process that trains together with this one has ended")
    assert two.startswith("Process 2 of 2 was ended by SIGKILL. The next run goes on")
    assert "gloo" not in said
    assert "torch/distributed" not in said
    assert left_over(project_of_noise) <= before
    assert "Going on from update" in project_of_noise.run(ranks=2)
    assert project_of_noise.weights() == together, "the same bits as if nothing had happened"


def test_without_classification_ranks_do_not_wait_for_the_heads(project_of_noise, alone):
    """At alpha = 1 heads are computed in logged updates only, and the student's has no gradient."""
    project_of_noise.change(size="tiny", batch_size=7, alpha=1.0)
    project_of_noise.pretrain()
    without = project_of_noise.losses(), load(project_of_noise.weights())
    project_of_noise.run(ranks=2)
    expect_the_same(project_of_noise, without)
    project_of_noise.change(size="tiny", batch_size=7)
