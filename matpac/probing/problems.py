"""Folds, parameters -> probes in the making: what linear and attentive ones share."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from matpac.params import Probe
from matpac.probing.folds import Fold
from matpac.probing.scores import Fit


@dataclass(eq=False)
class Problem:
    """One probe in the making."""

    repeat: int
    fold: int
    first_weights: np.random.Generator
    orders: np.random.Generator
    """Of the clips, one an epoch."""
    train_losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    best: tuple[Tensor, ...] = ()
    """What was learned by `best_epoch`: the parameters of the probe."""

    def note_(self, validation_loss: float) -> bool:
        """Whether this epoch, which is over, is the best one so far."""
        self.validation_losses.append(validation_loss)
        better = validation_loss < self.best_loss
        if better:
            self.best_loss, self.best_epoch = validation_loss, len(self.validation_losses)
        return better

    def goes_on(self, patience_epochs: int) -> bool:
        return len(self.validation_losses) - self.best_epoch < patience_epochs

    def fit(self, test_logits: Float[np.ndarray, "test class"]) -> Fit:
        return Fit(
            self.repeat,
            self.fold,
            self.train_losses,
            self.validation_losses,
            self.best_epoch,
            test_logits,
        )


def problems_of(folds: Sequence[Fold], params: Probe) -> list[Problem]:
    """Repeats first, then folds. What is drawn for one does not depend on the others; first weights do on how
    many features there are, orders do not, so that repeats of different encoders are pairs."""
    problems = []
    for number, fold in product(range(params.num_repeats), range(len(folds))):
        weights, orders = np.random.default_rng([params.seed, number, fold]).spawn(2)
        problems.append(Problem(number, fold, weights, orders))
    return problems


def first_weights(
    random: Sequence[np.random.Generator], dim: int, num_classes: int
) -> tuple[Float[Tensor, "problem class dim"], Float[Tensor, "problem class 1"]]:
    """As nn.Linear: weights and biases uniform within 1 / sqrt(dim)."""
    bound = 1 / math.sqrt(dim)
    drawn = [source.uniform(-bound, bound, (dim + 1, num_classes)).T for source in random]
    stacked = torch.from_numpy(np.stack(drawn))
    return stacked[:, :, :dim].contiguous(), stacked[:, :, dim:].contiguous()


def clip_losses(
    logits: Float[Tensor, "problem clip class"],
    labels: Float[Tensor, "problem clip class"],
    observed: Float[Tensor, "problem clip class"],
    multi_label: bool,
) -> Float[Tensor, "problem clip"]:
    """Multi-label: the sum over the observed classes, divided by the number of all classes."""
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, labels, weight=observed, reduction="none").mean(-1)
    return -(labels * logits.log_softmax(-1)).sum(-1)


def shares_of(observed: Float[Tensor, "clip class"]) -> Float[np.ndarray, " clip"]:
    """How much of a clip was observed: 1 where all classes were."""
    return (observed.sum(1) / observed.shape[1]).cpu().numpy()


@dataclass(frozen=True)
class Scaler:
    """x -> (x - mean) / std, learned per fold on the fold's training clips only."""

    mean: Float[Tensor, "fold 1 dim"]
    factor: Float[Tensor, "fold 1 dim"]
    """1 / std"""

    @classmethod
    def of(cls, features: Float[Tensor, "clip dim"], folds: Sequence[Fold]) -> "Scaler":
        means, factors = [], []
        for fold in folds:
            std, mean = torch.std_mean(features[fold.train], dim=0, correction=0, keepdim=True)
            means.append(mean)
            factors.append(1 / torch.where(std > 0, std, 1))
        return cls(torch.stack(means), torch.stack(factors))

    def scale_(
        self, inputs: Float[Tensor, "*problem clip dim"], fold: int | Int64[Tensor, " problem"]
    ) -> None:
        inputs.sub_(self.mean[fold]).mul_(self.factor[fold])


@contextmanager
def threads(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """On a CPU one per core. Each computes alone: within a probe's small operations cores would mostly wait
    for each other, for milliseconds where another process has one of them."""
    num_threads = torch.get_num_threads()
    num_workers = num_threads if device.type == "cpu" else 1
    with ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool
        finally:
            # What threads begin with from now on; this one has kept its number.
            torch.set_num_threads(num_threads)
