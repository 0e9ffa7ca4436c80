"""features, labels, folds -> test logits of linear probes, trained together in stacks.

One linear probe cannot fill a device. A stack holds several problems (a problem is one repeat of
one fold) in tensors with a leading axis `problem`. Each problem moves exactly as it would alone: it
has its own first weights, order of clips, short last batch, step count and best epoch. A GPU trains
all problems as one stack; a CPU trains stacks that fit its cache, one after another in every epoch.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.optim.adam import adam

from matpac.devices import num_workers, to_device, workers
from matpac.params import Probe
from matpac.probing.folds import Fold
from matpac.probing.problems import (
    Data,
    Problem,
    Scaler,
    clip_losses,
    first_weights,
    problems_of,
)
from matpac.probing.scores import Fit

CACHE_BYTES = 16 * 2**20
"""Memory of a stack on a CPU: weights, gradients, moments and a batch of each problem."""


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
    """Train `num_repeats` linear probes per fold, on the device of `features`.

    Single-label tasks use cross-entropy. Multi-label tasks use binary cross-entropy, as the mean
    over the observed entries [clip, class] of a batch; other entries have no influence. So each
    observed entry weighs the same, however many of its neighbors were not observed. (PaSST's code
    for OpenMIC divides by the number of all entries, which only makes losses smaller; Adam takes
    nearly the same steps.) A batch without observed entries is skipped.

    Args:
        features: Embeddings [clip, dim].
        labels: Multi-hot labels [clip, class].
        observed: 1 if it is known whether the clip has the class, else 0 [clip, class].
        folds: Training, validation and test clips; training and validation clips of each fold need
            an observed entry (`folds_of` checks).
        params: Repeats, batch size, learning rate, epochs, seed.
        multi_label: Whether a clip can have several classes.
        on_epoch: Called after each epoch.

    Returns:
        One fit per repeat and fold, repeats first, with the logits of the test clips.
    """
    data = LinearData(features, labels, observed, folds, params.standardize, multi_label)
    problems = problems_of(folds, params)
    with workers(num_workers(features.device)) as pool:
        parts = split_into_stacks(problems, data, params.batch_size)
        stacks = list(pool.map(Stack, parts, repeat(data), repeat(params)))
        for _ in range(params.max_epochs):
            list(pool.map(Stack.epoch_, stacks))
            on_epoch()
            stacks = [stack for stack in stacks if stack.problems]
            if not stacks:
                break
    tests = [data.inputs(fold.test, index) for index, fold in enumerate(folds)]
    return [
        problem.fit(
            data.head(problem),
            F.linear(data.validation_inputs[problem.fold], *problem.best).cpu().numpy(),
            F.linear(tests[problem.fold], *problem.best).cpu().numpy(),
        )
        for problem in problems
    ]


class LinearData(Data):
    """Features, labels and folds of all problems."""

    def __init__(
        self,
        features: Float[Tensor, "clip dim"],
        labels: Float[Tensor, "clip class"],
        observed: Float[Tensor, "clip class"],
        folds: Sequence[Fold],
        standardize: bool,
        multi_label: bool,
    ) -> None:
        super().__init__(labels, observed, folds, multi_label)
        self.features = features
        self.scaler = Scaler.of(features, folds) if standardize else None
        # The tables and inputs of each fold's validation clips, chosen once.
        self.validation_inputs = [self.inputs(fold.validation, index) for index, fold in enumerate(folds)]
        self.validation_truths = [
            (self.labels[fold.validation], self.observed[fold.validation]) for fold in folds
        ]

    def inputs(self, clips: Int64[np.ndarray, " chosen"], fold: int) -> Float[Tensor, "chosen dim"]:
        chosen = self.features[clips]
        if self.scaler is not None:
            self.scaler.scale_(chosen, fold)
        return chosen

    def head(self, problem: Problem) -> dict[str, Tensor]:
        """Best weights, and the scale of the inputs that they are for."""
        weight, bias = problem.best
        mean, factor = torch.zeros_like(weight[0]), torch.ones_like(weight[0])
        if self.scaler is not None:
            mean, factor = self.scaler.mean[problem.fold, 0], self.scaler.factor[problem.fold, 0]
        return {"weight": weight, "bias": bias, "mean": mean, "factor": factor}


def split_into_stacks(problems: Sequence[Problem], data: LinearData, batch_size: int) -> list[list[Problem]]:
    """One stack on a GPU; on a CPU stacks that fit its cache, equally many for each core."""
    num_values = data.features.shape[1] * (batch_size + 4 * data.labels.shape[1])
    num_bytes = num_values * data.features.element_size()
    num_stacks = 1
    # Small problems finish sooner in one thread than threads take turns in Python.
    if data.features.device.type == "cpu" and len(problems) * num_bytes > CACHE_BYTES / 4:
        at_once, cores = max(1, CACHE_BYTES // num_bytes), num_workers(data.features.device)
        num_stacks = cores * math.ceil(len(problems) / cores / at_once)
    positions = np.array_split(np.arange(len(problems)), min(num_stacks, len(problems)))
    return [[problems[position] for position in stack] for stack in positions]


class Stack:
    """Problems that train together; a problem that has stopped leaves its stack."""

    def __init__(self, problems: list[Problem], data: LinearData, params: Probe) -> None:
        self.data, self.params = data, params
        dim, num_classes = data.features.shape[1], data.labels.shape[1]
        first = first_weights([problem.weight_random for problem in problems], dim, num_classes)
        self.optimizer = StackedAdam([values.to(data.features) for values in first], params.learning_rate)
        self._hold(problems)
        self._keep_best(range(len(problems)))

    def _hold(self, problems: list[Problem]) -> None:
        device = self.data.features.device
        self.problems = problems
        folds = np.array([problem.fold for problem in problems])
        self.folds = to_device(torch.from_numpy(folds), device)
        self.places_of_fold = {
            int(fold): to_device(torch.from_numpy(np.flatnonzero(folds == fold)), device)
            for fold in np.unique(folds)
        }
        """Places in the stack of the problems of each fold."""

    @torch.no_grad()
    def epoch_(self) -> None:
        # The host waits for a GPU once: here, for the losses that decide who goes on.
        train_losses, validation_losses = torch.stack([self._train(), self._validate()]).tolist()
        better, going_on = [], []
        for index, problem in enumerate(self.problems):
            train = self.data.folds[problem.fold].train
            problem.train_losses.append(train_losses[index] / self.data.share(train))
            if problem.note_(validation_losses[index]):
                better.append(index)
            if problem.goes_on(self.params.patience_epochs):
                going_on.append(index)
        self._keep_best(better)
        if len(going_on) < len(self.problems):
            self._hold([self.problems[index] for index in going_on])
            self.optimizer.keep_(going_on)

    def _train(self) -> Float[Tensor, " problem"]:
        """Train for an epoch; return the sums of the clips' losses.

        Gradients are written out instead of left to autograd, for speed.
        """
        data, (weight, bias) = self.data, self.optimizer.parameters
        weight_gradient, bias_gradient = self.optimizer.gradients
        orders = [
            problem.order_random.permutation(data.folds[problem.fold].train) for problem in self.problems
        ]
        buffer = weight.new_empty(len(orders) * self.params.batch_size, weight.shape[2])
        sums = weight.new_zeros(len(orders))
        for batch in stacked_batches(orders, data.shares, self.params.batch_size, weight):
            inputs = rows(data.features, batch.clips, out=buffer[: batch.clips.numel()])
            if data.scaler is not None:
                data.scaler.scale_(inputs, self.folds)
            truth = rows(data.labels, batch.clips).mT, rows(data.observed, batch.clips).mT, data.multi_label
            logits = torch.baddbmm(bias, weight, inputs.mT)
            sums += (clip_losses(logits, *truth) * batch.present).sum(1)
            gradients = clip_gradients(logits, *truth) * batch.loss_weights[:, None]
            torch.bmm(gradients, inputs, out=weight_gradient)
            torch.sum(gradients, dim=2, keepdim=True, out=bias_gradient)
            self.optimizer.step_(batch.moving)
        return sums

    def _validate(self) -> Float[Tensor, " problem"]:
        """Losses on the validation clips."""
        data, (weight, bias) = self.data, self.optimizer.parameters
        losses = weight.new_empty(len(self.problems))
        for fold, here in self.places_of_fold.items():
            stacked = bias[here].flatten(0, 1), weight[here].flatten(0, 1)
            logits = torch.addmm(*stacked, data.validation_inputs[fold].mT).unflatten(0, (len(here), -1))
            labels, observed = (table.mT.expand_as(logits) for table in data.validation_truths[fold])
            sums = clip_losses(logits, labels, observed, data.multi_label).sum(1)
            losses[here] = sums / data.share(data.folds[fold].validation)
        return losses

    def _keep_best(self, chosen: Iterable[int]) -> None:
        weight, bias = self.optimizer.parameters
        for index in chosen:
            self.problems[index].best = weight[index].clone(), bias[index, :, 0].clone()


def clip_gradients(
    logits: Float[Tensor, "problem class clip"],
    labels: Float[Tensor, "problem class clip"],
    observed: Float[Tensor, "problem class clip"],
    multi_label: bool,
) -> Float[Tensor, "problem class clip"]:
    """Gradients of `clip_losses` by the logits; single-label clips have exactly one label."""
    if multi_label:
        return (logits.sigmoid() - labels) * observed / logits.shape[1]
    return logits.softmax(1) - labels


@dataclass(frozen=True)
class StackedBatch:
    """One batch of every problem, padded if a problem has fewer clips left in its epoch."""

    clips: Int64[Tensor, "problem batch"]
    present: Float[Tensor, "problem batch"]
    """0 for padding, which must not count; a problem whose epoch is over has only padding."""
    loss_weights: Float[Tensor, "problem batch"]
    """Weights that make the sum of clip losses the mean over observed entries of the batch."""
    moving: list[bool]
    """Whether each problem makes a step: only if its batch has an observed entry."""


def stacked_batches(
    orders: Sequence[Int64[np.ndarray, " _train"]],
    shares: Float[np.ndarray, " clip"],
    batch_size: int,
    like: Tensor,
) -> Iterator[StackedBatch]:
    """Batches of one epoch, in the order that `orders` gives for each problem."""
    lengths = np.array([len(order) for order in orders])
    clips = np.zeros((len(orders), lengths.max()), dtype=np.int64)
    for row, order in zip(clips, orders, strict=True):
        row[: len(order)] = order
    columns = np.arange(lengths.max())
    present = columns < lengths[:, None]
    # Sum of the shares in each batch [problem, batch].
    totals = np.add.reduceat(present * shares[clips], columns[::batch_size], axis=1)
    loss_weights = present / np.where(totals > 0, totals, 1)[:, columns // batch_size]
    # Copied once an epoch.
    all_clips = to_device(torch.from_numpy(clips), like.device)
    all_present, all_weights = (
        to_device(torch.from_numpy(values).to(like.dtype), like.device) for values in (present, loss_weights)
    )
    for step, moving in enumerate((totals > 0).T.tolist()):
        part = slice(step * batch_size, (step + 1) * batch_size)
        yield StackedBatch(all_clips[:, part], all_present[:, part], all_weights[:, part], moving)


def rows(
    table: Float[Tensor, "clip dim"],
    index: Int64[Tensor, "problem batch"],
    out: Float[Tensor, "problem_and_batch dim"] | None = None,
) -> Float[Tensor, "problem batch dim"]:
    chosen: Tensor = torch.index_select(table, 0, index.flatten(), out=out).unflatten(0, index.shape)
    return chosen


class StackedAdam:
    """torch's Adam with a step count per problem; without a step, a problem keeps its state."""

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
        """`states`: value, gradient, mean, mean square and number of steps of each parameter."""
        self._states = states
        # Slices of single problems, which torch's Adam takes for parameters of their own.
        self._of_problem = [
            [tuple(values[problem] for values in state) for state in states]
            for problem in range(len(states[0][0]))
        ]

    @property
    def parameters(self) -> list[Tensor]:
        return [state[0] for state in self._states]

    @property
    def gradients(self) -> list[Tensor]:
        """Buffers that the caller fills before a step."""
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
        """Drop all problems but the chosen ones."""
        self._hold([tuple(values[chosen] for values in state) for state in self._states])
