"""Features, labels, folds -> test logits of linear probes; repeats and folds train together in stacks.

A linear probe alone cannot fill a device. The problems of a stack (each one repeat of one fold) are slices
of tensors with a leading axis `problem`, and each moves exactly as it would alone: it has its own first
weights, order of clips, short last batch, step count and best epoch. A GPU trains all problems as one
stack; a CPU takes one stack after the other through every epoch, none larger than its cache.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.optim.adam import adam

from matpac.params import Probe
from matpac.probing.folds import Fold
from matpac.probing.problems import (
    Problem,
    Scaler,
    clip_losses,
    first_weights,
    problems_of,
    shares_of,
    threads,
)
from matpac.probing.scores import Fit

CACHE_BYTES = 16 * 2**20
"""What a stack may hold on a CPU: weights, gradients and moments of its problems, and a batch of each."""


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
    data = Data(features, labels, observed, folds, params.standardize, multi_label)
    problems = problems_of(folds, params)
    with threads(features.device) as pool:
        stacks = list(pool.map(Stack, parts(problems, data, params.batch_size), repeat(data), repeat(params)))
        for _ in range(params.max_epochs):
            list(pool.map(Stack.epoch_, stacks))
            on_epoch()
            stacks = [stack for stack in stacks if stack.problems]
            if not stacks:
                break
    tests = [data.inputs(fold.test, index) for index, fold in enumerate(folds)]
    return [problem.fit(F.linear(tests[problem.fold], *problem.best).cpu().numpy()) for problem in problems]


class Data:
    """What all problems share."""

    def __init__(
        self,
        features: Float[Tensor, "clip dim"],
        labels: Float[Tensor, "clip class"],
        observed: Float[Tensor, "clip class"],
        folds: Sequence[Fold],
        standardize: bool,
        multi_label: bool,
    ) -> None:
        self.features, self.labels, self.observed = features, labels, observed
        self.folds, self.multi_label = folds, multi_label
        self.scaler = Scaler.of(features, folds) if standardize else None
        self.shares = shares_of(observed)
        self.validation = [
            Validation(
                self.inputs(fold.validation, index),
                labels[fold.validation],
                observed[fold.validation],
                float(self.shares[fold.validation].sum()),
            )
            for index, fold in enumerate(folds)
        ]

    def inputs(self, clips: Int64[np.ndarray, " chosen"], fold: int) -> Float[Tensor, "chosen dim"]:
        chosen = self.features[clips]
        if self.scaler is not None:
            self.scaler.scale_(chosen, fold)
        return chosen


class Validation(NamedTuple):
    """The clips of a fold that decide when its problems stop."""

    inputs: Float[Tensor, "clip dim"]
    labels: Float[Tensor, "clip class"]
    observed: Float[Tensor, "clip class"]
    share: float
    """Sum of the clips' shares."""


def parts(problems: Sequence[Problem], data: Data, batch_size: int) -> list[list[Problem]]:
    """Problems to stack: on a CPU as many as its cache holds, and as many stacks for every core."""
    num_values = data.features.shape[1] * (batch_size + 4 * data.labels.shape[1])
    num_bytes = num_values * data.features.element_size()
    num_parts = 1
    # What is small is done sooner than threads take turns in Python.
    if data.features.device.type == "cpu" and len(problems) * num_bytes > CACHE_BYTES / 4:
        at_once, num_threads = max(1, CACHE_BYTES // num_bytes), torch.get_num_threads()
        num_parts = num_threads * math.ceil(len(problems) / num_threads / at_once)
    positions = np.array_split(np.arange(len(problems)), min(num_parts, len(problems)))
    return [[problems[position] for position in part] for part in positions]


class Stack:
    """Problems that train together; those that have stopped leave it."""

    def __init__(self, problems: list[Problem], data: Data, params: Probe) -> None:
        self.problems, self.data, self.params = problems, data, params
        dim, num_classes = data.features.shape[1], data.labels.shape[1]
        first = first_weights([problem.first_weights for problem in problems], dim, num_classes)
        self.optimizer = StackedAdam([values.to(data.features) for values in first], params.learning_rate)
        self._keep_best(range(len(problems)))

    @torch.no_grad()
    def epoch_(self) -> None:
        self._train()
        self._validate()

    def _train(self) -> None:
        """The gradients are written out: this is where the time goes."""
        data, (weight, bias) = self.data, self.optimizer.parameters
        weight_gradient, bias_gradient = self.optimizer.gradients
        fold = torch.tensor([problem.fold for problem in self.problems], device=weight.device)
        orders = [problem.orders.permutation(data.folds[problem.fold].train) for problem in self.problems]
        room = weight.new_empty(len(orders) * self.params.batch_size, weight.shape[2])
        sums = weight.new_zeros(len(orders))
        for batch in stacked_batches(orders, data.shares, self.params.batch_size, weight):
            inputs = rows(data.features, batch.clips, out=room[: batch.clips.numel()])
            if data.scaler is not None:
                data.scaler.scale_(inputs, fold)
            truth = rows(data.labels, batch.clips), rows(data.observed, batch.clips), data.multi_label
            logits = torch.baddbmm(bias, weight, inputs.mT).mT
            sums += (clip_losses(logits, *truth) * batch.present).sum(1)
            gradients = clip_gradients(logits, *truth) * batch.weights[:, :, None]
            torch.bmm(gradients.mT, inputs, out=weight_gradient)
            torch.sum(gradients.mT, dim=2, keepdim=True, out=bias_gradient)
            self.optimizer.step_(batch.moving)
        for problem, loss in zip(self.problems, sums.tolist(), strict=True):
            problem.train_losses.append(loss / float(data.shares[data.folds[problem.fold].train].sum()))

    def _validate(self) -> None:
        weight, bias = self.optimizer.parameters
        losses = weight.new_empty(len(self.problems))
        for fold in {problem.fold for problem in self.problems}:
            here = [index for index, problem in enumerate(self.problems) if problem.fold == fold]
            part = self.data.validation[fold]
            logits = F.linear(part.inputs, weight[here].flatten(0, 1), bias[here].flatten())
            logits = logits.unflatten(1, (len(here), -1)).transpose(0, 1)
            labels, observed = part.labels.expand_as(logits), part.observed.expand_as(logits)
            losses[here] = clip_losses(logits, labels, observed, self.data.multi_label).sum(1) / part.share
        better, going_on = [], []
        for index, (problem, loss) in enumerate(zip(self.problems, losses.tolist(), strict=True)):
            if problem.note_(loss):
                better.append(index)
            if problem.goes_on(self.params.patience_epochs):
                going_on.append(index)
        self._keep_best(better)
        if len(going_on) < len(self.problems):
            self.problems = [self.problems[index] for index in going_on]
            self.optimizer.keep_(going_on)

    def _keep_best(self, chosen: Iterable[int]) -> None:
        weight, bias = self.optimizer.parameters
        for index in chosen:
            self.problems[index].best = weight[index].clone(), bias[index, :, 0].clone()


def clip_gradients(
    logits: Float[Tensor, "problem clip class"],
    labels: Float[Tensor, "problem clip class"],
    observed: Float[Tensor, "problem clip class"],
    multi_label: bool,
) -> Float[Tensor, "problem clip class"]:
    """Of `clip_losses`, with respect to the logits; single-label clips have exactly one label."""
    if multi_label:
        return (logits.sigmoid() - labels) * observed / logits.shape[-1]
    return logits.softmax(-1) - labels


@dataclass(frozen=True)
class StackedBatch:
    """One batch of every problem. Where a problem has fewer clips left, the rest is filling."""

    clips: Int64[Tensor, "problem batch"]
    present: Float[Tensor, "problem batch"]
    """0 for filling, which must not count. A problem that has finished its epoch has nothing else."""
    weights: Float[Tensor, "problem batch"]
    """Of the clips' losses in the loss of the batch, the mean over its observed entries."""
    moving: list[bool]
    """Per problem: whether the batch has any such entry."""


def stacked_batches(
    orders: Sequence[Int64[np.ndarray, " _train"]],
    shares: Float[np.ndarray, " clip"],
    batch_size: int,
    like: Tensor,
) -> Iterator[StackedBatch]:
    lengths = np.array([len(order) for order in orders])
    clips = np.zeros((len(orders), lengths.max()), dtype=np.int64)
    for row, order in zip(clips, orders, strict=True):
        row[: len(order)] = order
    columns = np.arange(lengths.max())
    present = columns < lengths[:, None]
    totals = np.add.reduceat(present * shares[clips], columns[::batch_size], axis=1)
    weights = present / np.where(totals > 0, totals, 1)[:, columns // batch_size]
    # In one piece per epoch: a copy to a GPU waits for it.
    clips_there = torch.from_numpy(clips).to(like.device)
    present_there, weights_there = (torch.from_numpy(values).to(like) for values in (present, weights))
    for step, moving in enumerate((totals > 0).T.tolist()):
        part = slice(step * batch_size, (step + 1) * batch_size)
        yield StackedBatch(clips_there[:, part], present_there[:, part], weights_there[:, part], moving)


def rows(
    table: Float[Tensor, "clip dim"],
    index: Int64[Tensor, "problem batch"],
    out: Float[Tensor, "problem_and_batch dim"] | None = None,
) -> Float[Tensor, "problem batch dim"]:
    return torch.index_select(table, 0, index.flatten(), out=out).unflatten(0, index.shape)


class StackedAdam:
    """torch's Adam with a step count per problem: one that rests keeps weights, moments and count."""

    def __init__(self, parameters: Sequence[Float[Tensor, "problem ..."]], learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self._hold(
            [
                (
                    values,
                    *(torch.zeros_like(values) for _ in range(3)),
                    torch.zeros(len(values)).to(values.device),
                )
                for values in parameters
            ]
        )

    def _hold(self, states: list[tuple[Tensor, ...]]) -> None:
        """Per parameter: value, gradient, mean, mean square, number of steps."""
        self._states = states
        self._of_problem = [
            [tuple(values[problem] for values in state) for state in states]
            for problem in range(len(states[0][0]))
        ]

    @property
    def parameters(self) -> list[Tensor]:
        return [state[0] for state in self._states]

    @property
    def gradients(self) -> list[Tensor]:
        """For the caller to fill before a step."""
        return [state[1] for state in self._states]

    def step_(self, moving: Sequence[bool]) -> None:
        moved = [
            state for states, moves in zip(self._of_problem, moving, strict=True) if moves for state in states
        ]
        if moved:
            values, gradients, means, squares, num_steps = map(list, zip(*moved, strict=True))
            adam(
                values,
                gradients,
                means,
                squares,
                [],
                num_steps,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.learning_rate,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )

    def keep_(self, chosen: Sequence[int]) -> None:
        """Drop the problems that have finished."""
        self._hold([tuple(values[chosen] for values in state) for state in self._states])
