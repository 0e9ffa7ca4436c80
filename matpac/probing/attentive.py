"""embeddings over time, labels, folds -> test logits of attentive probes, a second reading.

A linear probe reads the mean over a clip's steps. An attentive probe (Chen et al., Context
Autoencoder, https://arxiv.org/abs/2202.03026; Bardes et al., V-JEPA,
https://arxiv.org/abs/2404.08471) reads the result of cross attention with learned queries, and so
learns when to listen. In this one

- each head compares its query with the steps themselves. Projecting steps into keys would only
  turn the query (Psomas et al., https://arxiv.org/abs/2506.10178);
- each head averages its share of the dimensions, and the linear layer reads these averages. It
  replaces the projections of values and of the output: the same sums with fewer weights;
- all queries start at 0. Attention is even then, and the probe is the linear probe. It has only
  `num_heads * dim` more numbers to learn, so any gain comes from listening at the right moments;
- the inputs of the linear layer are standardized by the clips' means over time, as for the linear
  probe. Dividing by the much larger deviation of single steps would make learning slow.

Training is that of the linear probe (matpac/probing/linear.py): the same folds, first weights,
orders of clips, batches, losses, optimizer and stopping. The order of a clip's steps has no
influence.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from matpac.classifier.heads import AttentiveHead
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
from matpac.probing.steps import Steps

PART_BYTES = {"cpu": 8 * 2**20, "cuda": 2**29}
"""Memory of the steps that are computed together, padding included; on a CPU about its cache."""


def fit_attentive_probes(
    steps: Steps,
    labels: Float32[Tensor, "clip class"],
    observed: Float32[Tensor, "clip class"],
    folds: Sequence[Fold],
    params: Probe,
    num_heads: int,
    *,
    multi_label: bool,
    on_epoch: Callable[[], object] = lambda: None,
) -> list[Fit]:
    """Train `num_repeats` attentive probes per fold, on the device of `labels`.

    Arguments and order of fits as in `fit_probes`. Steps are read anew in each epoch, a batch at
    a time. With `params.standardize`, the linear layer's inputs are scaled by mean and deviation of
    the training clips' means over time, and steps are compared with queries in units of the
    deviation of all the training clips' steps. Raises ValueError as `check_heads` does.
    """
    check_heads(steps, num_heads)
    data = AttentiveData(steps, labels, observed, folds, params.standardize, multi_label)
    trainings = [Training(problem, data, params, num_heads) for problem in problems_of(folds, params)]
    with workers(num_workers(labels.device)) as pool:
        active = trainings
        for _ in range(params.max_epochs):
            list(pool.map(Training.epoch_, active))
            on_epoch()
            active = [training for training in active if training.problem.goes_on(params.patience_epochs)]
            if not active:
                break
        return list(pool.map(Training.result, trainings))


def check_heads(steps: Steps, num_heads: int) -> None:
    """Raises ValueError if the dimensions cannot be divided among the heads."""
    if steps.dim % num_heads:
        raise ValueError(
            f"probe.attentive: need a number of heads that divides the {steps.dim} dimensions of an "
            f"embedding, got {num_heads}"
        )


class AttentiveData(Data):
    """Steps, labels and folds of all problems."""

    def __init__(
        self,
        steps: Steps,
        labels: Float32[Tensor, "clip class"],
        observed: Float32[Tensor, "clip class"],
        folds: Sequence[Fold],
        standardize: bool,
        multi_label: bool,
    ) -> None:
        super().__init__(labels, observed, folds, multi_label)
        self.steps = steps
        self.scalers = self._scalers() if standardize else None

    def parts(self, clips: Int64[np.ndarray, " chosen"]) -> Iterator["Part"]:
        """The clips with their steps, in parts that fit PART_BYTES; similar lengths go together."""
        num_steps, device = self.steps.num_steps[clips], self.labels.device
        max_steps = PART_BYTES[device.type] // (4 * self.steps.dim)
        order, first = np.argsort(num_steps, kind="stable"), 0
        for end in range(1, len(order) + 1):
            # Clips are in order of length, so the next one decides the padding.
            if end == len(order) or (end + 1 - first) * num_steps[order[end]] > max_steps:
                positions = order[first:end]
                steps, present = (
                    to_device(torch.from_numpy(values), device)
                    for values in self.steps.padded(clips[positions])
                )
                yield Part(positions, steps.float(), present)
                first = end

    def losses(self, probe: AttentiveHead, clips: Int64[np.ndarray, " chosen"]) -> Iterator[Tensor]:
        """Sum of `clip_losses` over each part of the clips."""
        for part in self.parts(clips):
            logits = probe(part.steps, part.present)
            chosen = to_device(torch.from_numpy(clips[part.positions]), logits.device)
            truth = self.labels[chosen].mT[None], self.observed[chosen].mT[None]
            yield clip_losses(logits.mT[None], *truth, self.multi_label).sum()

    @torch.no_grad()
    def _scalers(self) -> "Scalers":
        """In float64, which sums float16 values exactly: a constant dimension gets deviation 0."""
        is_train = np.zeros((len(self.folds), len(self.shares)))
        for row, fold in zip(is_train, self.folds, strict=True):
            row[fold.train] = 1
        used = np.flatnonzero(is_train.any(axis=0))
        means = self.labels.new_zeros((len(self.shares), self.steps.dim))
        # Sums of the steps and of their squares, over the training clips of each fold.
        sums = self.labels.new_zeros((2, len(self.folds), self.steps.dim), dtype=torch.float64)
        for part in self.parts(used):
            clips, steps = used[part.positions], part.steps.double()
            clip_sums, clip_squares = steps.sum(1), steps.square().sum(1)
            in_fold = torch.from_numpy(is_train[:, clips]).to(sums)
            sums += torch.stack([in_fold @ clip_sums, in_fold @ clip_squares])
            means[clips] = (clip_sums / part.present.sum(1, keepdim=True)).float()
        num_steps = torch.from_numpy(is_train @ self.steps.num_steps).to(sums)
        mean, mean_square = sums / num_steps[:, None]
        std = (mean_square - mean.square()).clamp(min=0).sqrt()
        return Scalers((1 / torch.where(std > 0, std, 1)).float(), Scaler.of(means, self.folds))


class Scalers(NamedTuple):
    """Scales of each fold, computed from its training clips only."""

    step_factor: Float32[Tensor, "fold dim"]
    """1 / standard deviation of single steps."""
    averages: Scaler
    """Scaler of the linear probe: mean and deviation of means over time."""


class Part(NamedTuple):
    """Clips that are computed together."""

    positions: Int64[np.ndarray, " clip"]
    """Positions in the list of clips that was given to `parts`."""
    steps: Float32[Tensor, "clip step dim"]
    """Steps of each clip, then zeros as padding."""
    present: Bool[Tensor, "clip step"]
    """False for padding."""


class Training:
    """Training of one problem, independent of the others."""

    def __init__(self, problem: Problem, data: AttentiveData, params: Probe, num_heads: int) -> None:
        self.problem, self.data, self.params = problem, data, params
        self.fold = data.folds[problem.fold]
        dim, like = data.steps.dim, data.labels
        weight, bias = (
            values[0].to(like) for values in first_weights([problem.weight_random], dim, like.shape[1])
        )
        step_factor, mean, factor = like.new_ones(dim), like.new_zeros(dim), like.new_ones(dim)
        if data.scalers is not None:
            step_factor, averages = data.scalers.step_factor[problem.fold], data.scalers.averages
            mean, factor = averages.mean[problem.fold, 0], averages.factor[problem.fold, 0]
        queries = weight.new_zeros(num_heads, dim)
        self.probe = AttentiveHead(queries, weight, bias[:, 0], step_factor, mean, factor)
        self.optimizer = torch.optim.Adam(self.probe.parameters(), lr=params.learning_rate, fused=True)
        self._keep_best()

    def epoch_(self) -> None:
        self.problem.train_losses.append(self._train())
        if self.problem.note_(self._validation_loss()):
            self._keep_best()

    def result(self) -> Fit:
        for parameter, best in zip(self.probe.parameters(), self.problem.best, strict=True):
            parameter.data.copy_(best)
        return self.problem.fit(
            self.probe.state_dict(), self._logits(self.fold.validation), self._logits(self.fold.test)
        )

    @torch.no_grad()
    def _logits(self, clips: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen class"]:
        logits = np.empty((len(clips), self.data.labels.shape[1]), dtype=np.float32)
        for part in self.data.parts(clips):
            logits[part.positions] = self.probe(part.steps, part.present).cpu().numpy()
        return logits

    def _train(self) -> float:
        """Train for an epoch; return the mean loss over observed entries while the weights move."""
        order = self.problem.order_random.permutation(self.fold.train)
        total = self.data.labels.new_zeros(())
        for first in range(0, len(order), self.params.batch_size):
            batch = order[first : first + self.params.batch_size]
            share = self.data.share(batch)
            if share > 0:
                self.optimizer.zero_grad()
                for loss in self.data.losses(self.probe, batch):
                    (loss / share).backward()
                    total += loss.detach()
                self.optimizer.step()
        return total.item() / self.data.share(order)

    @torch.no_grad()
    def _validation_loss(self) -> float:
        clips = self.fold.validation
        if not len(clips):
            return math.nan
        total = torch.stack(list(self.data.losses(self.probe, clips))).sum()
        return total.item() / self.data.share(clips)

    def _keep_best(self) -> None:
        self.problem.best = tuple(parameter.detach().clone() for parameter in self.probe.parameters())
