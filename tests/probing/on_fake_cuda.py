"""Probing on fake CUDA tensors, for test_on_fake_cuda.py."""

import numpy as np
import torch

from matpac.params import Probe
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
    standardize=True,
    knn=None,
    attentive=None,
    seed=0,
)


def epochs(num_batches: list[int]) -> list[list[list[str]]]:
    """For single labels, then for several: what makes the host wait in an epoch of so many batches."""
    return [
        [epoch(number * PARAMS.batch_size, multi_label=multi_label) for number in num_batches]
        for multi_label in (False, True)
    ]


def epoch(num_train: int, *, multi_label: bool) -> list[str]:
    num_clips, num_classes = num_train + 20, 4
    features = torch.empty(num_clips, 16, device=CUDA)
    labels, observed = (torch.empty(num_clips, num_classes, device=CUDA) for _ in range(2))
    train, validation, test = np.split(np.arange(num_clips), [num_train, num_train + 10])
    folds = [Fold(train, validation, test)]
    with Watching() as watching, in_this_thread():
        data = LinearData(features, labels, observed, folds, PARAMS.standardize, multi_label)
        stack = Stack(problems_of(folds, PARAMS), data, PARAMS)
        watching.hazards.clear()
        stack.epoch_()
    return watching.hazards
