"""Features, labels, folds -> test logits of linear probes; all repeats and folds train at once.

A linear probe alone cannot fill a device. Every problem (one repeat of one fold) is a slice of
tensors with a leading axis `problem`, and moves exactly as it would alone: it has its own first
weights, order of clips, short last batch, step count and best epoch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from matpac.params import Probe
from matpac.probing.folds import Fold

ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Fit:
    """One finished problem."""

    repeat: int
    fold: int
    """Index into the folds."""
    train_losses: list[float]
    """Mean over the observed entries of each epoch, taken while the weights move."""
    validation_losses: list[float]
    best_epoch: int
    """From 1: where the validation loss was lowest; the test logits are of these weights."""
    test_logits: Float[np.ndarray, "test class"]


def fit_probes(
    features: Float[Tensor, "clip dim"],
    labels: Float[Tensor, "clip class"],
    observed: Float[Tensor, "clip class"],
    folds: Sequence[Fold],
    params: Probe,
    *,
    multi_label: bool,
    on_epoch: Callable[[], object] = lambda: None,
) -> list[Fit]:
    """Train `num_repeats` probes per fold on the device of `features`; repeats first, then folds.

    `labels` are multi-hot. Single-label tasks use cross-entropy. Multi-label tasks use binary
    cross-entropy, as the mean over those entries [clip, class] of a batch where `observed` is 1; the
    others (`observed` is 0) have no influence at all. So an observed entry weighs the same however many
    of its neighbours were not. (PaSST's code for OpenMIC divides by the number of all entries, which only
    makes losses smaller; Adam takes nearly the same steps.) A batch without any observed entry is no step.
    Needs an observed entry among the training and the validation clips of each fold (`folds_of` checks).
    """
    device, dim, num_classes = features.device, features.shape[1], labels.shape[1]
    problems = [(repeat, fold) for repeat in range(params.num_repeats) for fold in range(len(folds))]
    random = [np.random.default_rng([params.seed, repeat, fold]) for repeat, fold in problems]
    fold_of = torch.tensor([fold for _, fold in problems], device=device)

    scaled = Scaler.of(features, folds) if params.standardize else unscaled
    # How much of a clip was observed: 1 where all classes were.
    shares = observed.sum(1) / num_classes
    train_shares = torch.stack([shares[fold.train].sum() for fold in folds])
    validation = [
        Validation(
            scaled(features[fold.validation], index),
            labels[fold.validation],
            observed[fold.validation],
            shares[fold.validation].sum() / len(fold.validation),
        )
        for index, fold in enumerate(folds)
    ]

    weight, bias = (
        values.to(features).requires_grad_() for values in first_weights(random, dim, num_classes)
    )
    optimizer = StackedAdam([weight, bias], params.learning_rate)
    best_loss = features.new_full((len(problems),), math.inf)
    best_weight, best_bias = weight.detach().clone(), bias.detach().clone()
    best_epoch = torch.zeros(len(problems), dtype=torch.int64, device=device)
    train_losses: list[list[float]] = [[] for _ in problems]
    validation_losses: list[list[float]] = [[] for _ in problems]
    live = torch.arange(len(problems), device=device)

    for epoch in range(1, params.max_epochs + 1):
        orders = [random[p].permutation(folds[problems[p][1]].train) for p in live.tolist()]
        epoch_loss = features.new_zeros(len(live))
        for batch in stacked_batches(orders, params.batch_size, device):
            inputs = scaled(rows(features, batch.clips), fold_of[live])
            logits = torch.baddbmm(bias, inputs, weight)
            losses = clip_losses(logits, rows(labels, batch.clips), rows(observed, batch.clips), multi_label)
            sums = (losses * batch.present).sum(1)
            share = (shares[batch.clips] * batch.present).sum(1)
            moving = share > 0
            (sums / torch.where(moving, share, 1)).sum().backward()
            optimizer.step_(moving)
            epoch_loss += sums.detach()
        epoch_loss /= train_shares[fold_of[live]]

        with torch.no_grad():
            loss = features.new_empty(len(live))
            for index, part in enumerate(validation):
                here = fold_of[live] == index
                logits = part.inputs @ weight[here] + bias[here]
                truth, seen = part.labels.expand_as(logits), part.observed.expand_as(logits)
                loss[here] = clip_losses(logits, truth, seen, multi_label).mean(1) / part.share
            better = loss < best_loss[live]
            best = live[better]
            best_loss[best], best_epoch[best] = loss[better], epoch
            best_weight[best], best_bias[best] = weight[better], bias[better]
        for problem, train, held_out in zip(live.tolist(), epoch_loss.tolist(), loss.tolist(), strict=True):
            train_losses[problem].append(train)
            validation_losses[problem].append(held_out)
        on_epoch()

        going_on = epoch - best_epoch[live] < params.patience_epochs
        if not going_on.any():
            break
        if not going_on.all():
            live = live[going_on]
            optimizer.keep_(going_on)
            weight, bias = optimizer.parameters

    test = [scaled(features[fold.test], index) for index, fold in enumerate(folds)]
    return [
        Fit(
            repeat=repeat,
            fold=fold,
            train_losses=train_losses[problem],
            validation_losses=validation_losses[problem],
            best_epoch=int(best_epoch[problem]),
            test_logits=(test[fold] @ best_weight[problem] + best_bias[problem]).cpu().numpy(),
        )
        for problem, (repeat, fold) in enumerate(problems)
    ]


class Validation(NamedTuple):
    """The clips of a fold that decide when its problems stop."""

    inputs: Float[Tensor, "clip dim"]
    labels: Float[Tensor, "clip class"]
    observed: Float[Tensor, "clip class"]
    share: Float[Tensor, ""]
    """Of the entries that were observed."""


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


def first_weights(
    random: Sequence[np.random.Generator], dim: int, num_classes: int
) -> tuple[Float[Tensor, "problem dim class"], Float[Tensor, "problem 1 class"]]:
    """As nn.Linear: weights and biases uniform within 1 / sqrt(dim)."""
    bound = 1 / math.sqrt(dim)
    drawn = [source.uniform(-bound, bound, (dim + 1, num_classes)) for source in random]
    stacked = torch.from_numpy(np.stack(drawn))
    return stacked[:, :dim], stacked[:, dim:]


@dataclass(frozen=True)
class StackedBatch:
    """One batch of every problem. Where a problem has fewer clips left, the rest is filling."""

    clips: Int64[Tensor, "problem batch"]
    present: Bool[Tensor, "problem batch"]
    """False for filling, which must not count. A problem that has finished its epoch has nothing else."""


def stacked_batches(
    orders: Sequence[Int64[np.ndarray, " _train"]], batch_size: int, device: torch.device
) -> Iterator[StackedBatch]:
    num_clips = np.array([len(order) for order in orders])
    num_steps = math.ceil(num_clips.max() / batch_size)
    filled = np.zeros((len(orders), num_steps * batch_size), dtype=np.int64)
    for row, order in zip(filled, orders, strict=True):
        row[: len(order)] = order
    clips = torch.from_numpy(filled).to(device)
    present = torch.arange(filled.shape[1]) < torch.from_numpy(num_clips)[:, None]
    present = present.to(device)
    for start in range(0, filled.shape[1], batch_size):
        part = slice(start, start + batch_size)
        yield StackedBatch(clips[:, part], present[:, part])


def rows(
    table: Float[Tensor, "clip dim"], index: Int64[Tensor, "problem batch"]
) -> Float[Tensor, "problem batch dim"]:
    return table.index_select(0, index.flatten()).unflatten(0, index.shape)


class StackedAdam:
    """Adam with a step count per problem: one that rests keeps weights, moments and count."""

    def __init__(self, parameters: list[Tensor], learning_rate: float) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.means = [torch.zeros_like(parameter) for parameter in parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        self.num_steps = parameters[0].new_zeros(len(parameters[0]), 1, 1)

    @torch.no_grad()
    def step_(self, moving: Bool[Tensor, " problem"]) -> None:
        beta1, beta2 = ADAM_BETAS
        move = moving[:, None, None].to(self.num_steps)
        self.num_steps += move
        # A problem may rest before its first step.
        count = self.num_steps.clamp(min=1)
        rate = move * self.learning_rate / (1 - beta1**count)
        spread = (1 - beta2**count).sqrt()
        for parameter, mean, square in zip(self.parameters, self.means, self.squares, strict=True):
            gradient = parameter.grad
            if gradient is None:
                raise RuntimeError("step_ needs gradients: call backward() first")
            mean.lerp_(gradient, (1 - beta1) * move)
            square.lerp_(gradient.square(), (1 - beta2) * move)
            parameter -= rate * mean / (square.sqrt() / spread + ADAM_EPS)
            parameter.grad = None

    @torch.no_grad()
    def keep_(self, chosen: Bool[Tensor, " problem"]) -> None:
        """Drop the problems that have finished."""
        self.parameters = [values[chosen].requires_grad_() for values in self.parameters]
        self.means = [values[chosen] for values in self.means]
        self.squares = [values[chosen] for values in self.squares]
        self.num_steps = self.num_steps[chosen]


@dataclass(frozen=True)
class Scaler:
    """x -> (x - mean) / std, learned per fold on the fold's training clips only."""

    mean: Float[Tensor, "fold 1 dim"]
    std: Float[Tensor, "fold 1 dim"]

    @classmethod
    def of(cls, features: Float[Tensor, "clip dim"], folds: Sequence[Fold]) -> "Scaler":
        means, stds = [], []
        for fold in folds:
            std, mean = torch.std_mean(features[fold.train], dim=0, correction=0, keepdim=True)
            means.append(mean)
            stds.append(torch.where(std > 0, std, 1))
        return cls(torch.stack(means), torch.stack(stds))

    def __call__(
        self, inputs: Float[Tensor, "*problem clip dim"], fold: int | Int64[Tensor, " problem"]
    ) -> Float[Tensor, "*problem clip dim"]:
        return (inputs - self.mean[fold]) / self.std[fold]


def unscaled(
    inputs: Float[Tensor, "*problem clip dim"], fold: int | Int64[Tensor, " problem"]
) -> Float[Tensor, "*problem clip dim"]:
    return inputs
