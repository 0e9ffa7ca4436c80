"""A run on two processes (torchrun) equals the run on one, even if it is interrupted."""

import signal

import pytest
import torch
from safetensors.torch import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(project_of_noise):
    project_of_noise.change(batch_size=7)
    project_of_noise.run()
    yield project_of_noise.losses(), load(project_of_noise.weights())
    project_of_noise.change()


def expect_the_same(project, alone):
    losses, weights = alone
    assert project.losses() == pytest.approx(losses, abs=1e-5)
    for name, value in load(project.weights()).items():
        torch.testing.assert_close(value, weights[name], atol=1e-5, rtol=0, msg=name)


def test_two_ranks_are_one_with_the_double_batch(project_of_noise, alone):
    """Twelve clips in batches of seven, which divide evenly neither by ranks nor by epochs."""
    said = project_of_noise.run(ranks=2)
    assert said.count("68/68 updates (100%)") == 1, "one rank speaks for both"
    expect_the_same(project_of_noise, alone)


def test_another_number_of_ranks_goes_on_with_the_same_samples(project_of_noise, alone):
    project_of_noise.interrupt(signal.SIGKILL, updates=20, ranks=2)
    saved = project_of_noise.saved_updates()
    assert 20 <= saved < 68
    code, said = project_of_noise.interrupt(signal.SIGTERM, updates=saved + 10)
    assert code == 128 + signal.SIGTERM
    assert f"Going on from update {saved} of 68." in said
    assert f"Going on from update {project_of_noise.saved_updates()} of 68." in project_of_noise.run(ranks=2)
    expect_the_same(project_of_noise, alone)


def test_without_classification_ranks_do_not_wait_for_the_heads(project_of_noise, alone):
    """At alpha = 1 heads are computed in logged updates only, and the student's has no gradient."""
    project_of_noise.change(batch_size=7, alpha=1.0)
    project_of_noise.run()
    without = project_of_noise.losses(), load(project_of_noise.weights())
    project_of_noise.run(ranks=2)
    expect_the_same(project_of_noise, without)
    project_of_noise.change(batch_size=7)


def test_told_to_stop_all_ranks_stop_after_the_same_update(project_of_noise, alone):
    code, said = project_of_noise.interrupt(signal.SIGTERM, updates=10, ranks=2)
    assert code != 0
    assert said.count("the next run goes on from there") == 1
    saved = project_of_noise.saved_updates()
    assert f"Stopped after update {saved};" in said
    assert f"Going on from update {saved} of 68." in project_of_noise.run(ranks=2)
    expect_the_same(project_of_noise, alone)
