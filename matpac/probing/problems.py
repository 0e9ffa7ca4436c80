"""folds, parameters -> probes in training: what linear and attentive probes share."""

import math
from collections.abc import Mapping, Sequence
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
    """One probe in training: one repeat of one fold."""

    repeat: int
    fold: int
    """Index into the folds."""
    validates: bool
    """Whether there are validation clips. Without them, the latest epoch counts as the best."""
    weight_random: np.random.Generator
    """Generator of the first weights."""
    order_random: np.random.Generator
    """Generator of the order of clips in each epoch."""
    train_losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    best: tuple[Tensor, ...] = ()
    """Parameters of the probe after `best_epoch`."""

    def note_(self, validation_loss: float) -> bool:
        """Record the loss of a finished epoch; return whether it is the best so far."""
        self.validation_losses.append(validation_loss)
        better = not self.validates or validation_loss < self.best_loss
        if better:
            self.best_loss, self.best_epoch = validation_loss, len(self.validation_losses)
        return better

    def goes_on(self, patience_epochs: int) -> bool:
        """Whether the last improvement is recent enough to train another epoch."""
        return len(self.validation_losses) - self.best_epoch < patience_epochs

    def fit(
        self,
        head: Mapping[str, Tensor],
        validation_logits: Float[np.ndarray, "validation class"],
        test_logits: Float[np.ndarray, "test class"],
    ) -> Fit:
        return Fit(
            self.repeat,
            self.fold,
            self.train_losses,
            self.validation_losses,
            self.best_epoch,
            {name: values.cpu().numpy() for name, values in head.items()},
            validation_logits,
            test_logits,
        )


def problems_of(folds: Sequence[Fold], params: Probe) -> list[Problem]:
    """One problem per repeat and fold; repeats first, then folds.

    Each has random numbers of its own. First weights depend on the number of features, orders of
    clips do not, so repeats of two encoders are pairs.
    """
    problems = []
    for number, fold in product(range(params.num_repeats), range(len(folds))):
        weights, orders = np.random.default_rng([params.seed, number, fold]).spawn(2)
        problems.append(Problem(number, fold, len(folds[fold].validation) > 0, weights, orders))
    return problems


def first_weights(
    random: Sequence[np.random.Generator], dim: int, num_classes: int
) -> tuple[Float[Tensor, "problem class dim"], Float[Tensor, "problem class 1"]]:
    """Weights and biases drawn as in nn.Linear: uniform within 1 / sqrt(dim)."""
    bound = 1 / math.sqrt(dim)
    drawn = [source.uniform(-bound, bound, (dim + 1, num_classes)).T for source in random]
    stacked = torch.from_numpy(np.stack(drawn))
    return stacked[:, :, :dim].contiguous(), stacked[:, :, dim:].contiguous()


class Data:
    """Labels and folds of all problems; subclasses add the inputs."""

    def __init__(
        self,
        labels: Float[Tensor, "clip class"],
        observed: Float[Tensor, "clip class"],
        folds: Sequence[Fold],
        multi_label: bool,
    ) -> None:
        self.labels, self.observed = labels, observed
        self.folds, self.multi_label = folds, multi_label
        self.shares: Float[np.ndarray, " clip"] = (observed.sum(1) / observed.shape[1]).cpu().numpy()
        """Share of the classes that were observed, for each clip."""

    def share(self, clips: Int64[np.ndarray, " chosen"]) -> float:
        """Sum of the shares; `clip_losses` divided by it are a mean over observed entries."""
        return float(self.shares[clips].sum())


def clip_losses(
    logits: Float[Tensor, "problem class clip"],
    labels: Float[Tensor, "problem class clip"],
    observed: Float[Tensor, "problem class clip"],
    multi_label: bool,
) -> Float[Tensor, "problem clip"]:
    """Cross-entropy; if multi-label, summed over observed and divided by all classes.

    Clips come last: on a CPU, a softmax over few classes is twenty times as fast across adjacent clips.
    """
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, labels, weight=observed, reduction="none").mean(1)
    return -(labels * logits.log_softmax(1)).sum(1)


@dataclass(frozen=True)
class Scaler:
    """x -> (x - mean) / std, computed for each fold from its training clips only."""

    mean: Float[Tensor, "fold 1 dim"]
    factor: Float[Tensor, "fold 1 dim"]
    """1 / std; 1 for constant features."""

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
