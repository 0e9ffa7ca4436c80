"""Probing on fake CUDA tensors, for test_on_fake_cuda.py."""

import numpy as np
import torch

from matpac.params import Probe
from matpac.probing.attentive import AttentiveData, Training
from matpac.probing.folds import Fold
from matpac.probing.linear import LinearData, Stack
from matpac.probing.problems import problems_of
from tests.fake_cuda.watching import CUDA, Watching, in_this_thread

PARAMS = Probe(
    datasets=(),
    num_repeats=2,
    batch_size=8,
    learning_rate=0.001,
    max_epochs=1,
    patience_epochs=2,
    score_on="test",
    pooling="mean",
    standardize=True,
    knn=None,
    attentive=None,
    seed=0,
)


class Silence:
    """Two steps of every clip, as `Steps` gives them."""

    dim = 16

    def __init__(self, num_clips: int) -> None:
        self.num_steps = np.full(num_clips, 2)

    def padded(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(clips), 2)
        return np.zeros((*shape, self.dim), dtype=np.float16), np.ones(shape, dtype=bool)


def epochs(num_batches: list[int]) -> list[list[list[str]]]:
    """What makes the host wait in an epoch of so many batches.

    For linear probes on single labels, then on several labels, then for an attentive probe.
    """
    kinds = (
        lambda size: linear(size, multi_label=False),
        lambda size: linear(size, multi_label=True),
        attentive,
    )
    return [[kind(number * PARAMS.batch_size) for number in num_batches] for kind in kinds]


def fold_of(num_train: int) -> Fold:
    return Fold(*np.split(np.arange(num_train + 20), [num_train, num_train + 10]))


def tables(num_clips: int) -> list[torch.Tensor]:
    """Labels, and what was observed of them."""
    return [torch.empty(num_clips, 4, device=CUDA) for _ in range(2)]


def linear(num_train: int, *, multi_label: bool) -> list[str]:
    folds, num_clips = [fold_of(num_train)], num_train + 20
    features = torch.empty(num_clips, 16, device=CUDA)
    with Watching() as watching, in_this_thread():
        data = LinearData(features, *tables(num_clips), folds, PARAMS.standardize, multi_label)
        stack = Stack(problems_of(folds, PARAMS), data, PARAMS)
        watching.hazards.clear()
        stack.epoch_()
    return watching.hazards


def attentive(num_train: int) -> list[str]:
    folds, num_clips = [fold_of(num_train)], num_train + 20
    with Watching() as watching, in_this_thread():
        data = AttentiveData(
            Silence(num_clips), *tables(num_clips), folds, PARAMS.standardize, multi_label=False
        )
        training = Training(problems_of(folds, PARAMS)[0], data, PARAMS, num_heads=2)
        watching.hazards.clear()
        training.epoch_()
    return watching.hazards
