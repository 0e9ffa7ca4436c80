"""What a run trains on: crops and masks of each update, read in a thread."""

import threading

import numpy as np
import pytest
import torch

from matpac.digests import SCHEMA, Digests
from matpac.params import load_params
from matpac.shards.crops import Batch, Crops, ReusedMemory
from matpac.shards.statistics import Statistics
from matpac.training.loop import Learner
from matpac.training.ranks import Ranks
from matpac.training.run import Run, standard_of
from matpac.training.schedules import Durations
from matpac.weights.checkpoint import new_pretext

NUM_PATCHES = 5 * 13


class Numbered(Crops):
    """Crops whose values are the number of their sample."""

    def __init__(self):
        self.num_clips, self.statistics = 100, Statistics(num_values=1, sum=0.0, sum_of_squares=1.0)

    def batch(self, first_sample, size, empty):
        samples = np.arange(first_sample, first_sample + size)
        log_mel = empty((size, 208, 80))
        log_mel[:] = samples[:, None, None]
        return Batch(log_mel, samples)


@pytest.fixture
def run_of(project, tmp_path):
    params = load_params(project / "presets/demo.yaml")
    pretrain = params.pretrain.model_copy(update={"batch_size": 7, "seed": 3})
    params = params.model_copy(update={"pretrain": pretrain})

    def new(rank, number, mixup=0.0):
        changed = params.model_copy(update={"pretrain": pretrain.model_copy(update={"mixup": mixup})})
        return Run(tmp_path, Numbered(), changed, "", Ranks(rank, number, torch.device("cpu")))

    return new


def read(run, update):
    log_mel, split, mixing = run.read(update, NUM_PATCHES, ReusedMemory())
    assert mixing is None
    return log_mel[:, 0, 0].tolist(), split


def test_masks_depend_on_seed_and_update_alone(run_of):
    """Written out: a resumed run, and one of an older version, draws the same."""
    _, split = read(run_of(0, 1), update=5)
    seed = int(np.random.SeedSequence([3, 5]).generate_state(1, np.uint64)[0] >> 1)
    noise = torch.rand(7, NUM_PATCHES, generator=torch.Generator().manual_seed(seed))
    order = noise.argsort(dim=1)
    assert torch.equal(split.visible, order[:, :26])
    assert torch.equal(split.masked, order[:, 26:])


def test_ranks_share_a_batch_with_the_masks_of_one_rank(run_of):
    samples, split = read(run_of(0, 1), update=2)
    parts = [read(run_of(rank, 3), update=2) for rank in range(3)]
    assert [sample for part, _ in parts for sample in part] == samples == list(range(14, 21))
    for side, whole in enumerate(split):
        assert torch.equal(torch.cat([part[side] for _, part in parts]), whole)
        assert all(part[side].is_contiguous() for _, part in parts)


@pytest.mark.parametrize("update", [2, 3])
def test_ranks_mix_the_crops_that_one_rank_mixes(run_of, update):
    """Batches of seven, which two and three ranks part within pairs of neighbors."""
    [whole] = run_of(0, 1, mixup=0.4).examples([update], NUM_PATCHES)
    for number in (2, 3):
        parts = [
            example
            for rank in range(number)
            for example in run_of(rank, number, mixup=0.4).examples([update], NUM_PATCHES)
        ]
        assert torch.equal(torch.cat([part.log_mel for part in parts]), whole.log_mel)
    _, split = read(run_of(0, 1), update)
    assert all(map(torch.equal, whole.split, split)), "mixing draws no other masks"


def test_a_mixture_has_a_share_of_the_energy_of_the_neighbor_in_the_stream(run_of):
    run = run_of(0, 1, mixup=0.4)
    [example] = run.examples([3], NUM_PATCHES)
    own = torch.arange(21, 28, dtype=torch.float64)
    other = torch.tensor([20, 23, 22, 25, 24, 27, 26], dtype=torch.float64)
    found = example.log_mel[:, 0, 0].double().exp()
    shares = (found - own.exp()) / (other.exp() - own.exp())
    assert 0 < shares.min() < shares.max() < 0.4
    assert len(shares.unique()) == 7


@pytest.mark.parametrize(("mixup", "number"), [(0.0, 7), (0.4, 8)])
def test_the_neighbor_of_the_last_sample_was_learned_from_if_they_were_mixed(run_of, mixup, number):
    run = run_of(0, 1, mixup)
    run.durations = Durations(total=1, warmup=0, teacher_temperature=1)
    asked = []
    run.crops.recordings = lambda num_samples: asked.append(num_samples) or Digests(SCHEMA.empty_table())
    assert run.recordings.counts() == {}
    assert asked == [number]


def test_masks_are_drawn_by_the_thread_that_reads(run_of, monkeypatch):
    threads = []
    draw = torch.rand
    monkeypatch.setattr(
        torch,
        "rand",
        lambda *size, **given: threads.append(threading.current_thread()) or draw(*size, **given),
    )
    run = run_of(0, 1)
    examples = run.examples(range(4), NUM_PATCHES)
    assert [example.log_mel[0, 0, 0].item() for example in examples] == [0, 7, 14, 21]
    assert len(threads) == 4
    assert threading.main_thread() not in threads


def test_a_run_says_when_memory_ran_out(run_of, capsys):
    run = run_of(0, 1)
    run.durations = Durations(total=3, warmup=1, teacher_temperature=1)
    params = run.params
    learner = Learner(
        new_pretext(params.logmel, params.model, params.pretrain), params.pretrain, params.compute, run.ranks
    )
    sizes = []

    def run_short(_module, inputs):
        sizes.append(len(inputs[0]))
        if len(sizes) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    learner.objective.register_forward_pre_hook(run_short)
    assert len(list(run.reports(learner, 0))) == 3
    assert sizes == [7, 7, 3, 2, 2, 3, 2, 2]
    assert capsys.readouterr().err == (
        "cpu: memory ran out at update 1. It was done again, and the run goes on, "
        "in micro-batches of 3 crops.\n"
    )


def test_nothing_but_silence_is_refused():
    silent = Numbered()
    silent.statistics = Statistics(num_values=4, sum=-64.0, sum_of_squares=1024.0)
    with pytest.raises(ValueError, match=r"^pretrain\.datasets: need sounds that differ, found .* all -16"):
        standard_of(silent, None)
