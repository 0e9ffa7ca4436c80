"""encoder, fold -> logits of one fit: encoder and head trained on its training clips.

A fit that was killed goes on from its last saved state, in mid-epoch and with the same batches.
"""

import json
import math
import shlex
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from matpac.classifier.heads import LinearHead
from matpac.encoder.encoder import AudioEncoder
from matpac.files import room_for
from matpac.finetuning.augment import masked, mixed
from matpac.finetuning.balance import class_weights, draw_weights
from matpac.finetuning.batches import Batch, Batches
from matpac.finetuning.groups import new_optimizer, set_learning_rate_
from matpac.params import Finetune
from matpac.probing.folds import Fold
from matpac.probing.labelled import Labelled
from matpac.probing.problems import first_weights
from matpac.probing.scores import score_of
from matpac.progress import Progress, printable
from matpac.training.schedules import warmup_then_cosine
from matpac.weights.tensors import read_tensors, write_tensors

CHUNKS_AT_ONCE = 32
"""Chunks in one forward pass without gradients."""


class Plan(NamedTuple):
    """What one fit trains and answers on."""

    name: str
    """Name of its folder."""
    title: str
    """Name of the fit for people."""
    fold: Fold
    """Without validation clips, the last epoch is kept."""
    seeds: tuple[int, ...]
    num_epochs: int
    """Epochs to train; the learning rate falls as if there were `finetune.num_epochs`."""


@dataclass
class History:
    """What is known of the epochs of a fit so far."""

    update: int = 0
    """Updates done."""
    loss_sum: float = 0.0
    """Sum of the losses of the updates of this epoch."""
    train_losses: list[float] = field(default_factory=list)
    """Mean over the updates of each epoch, with augmentation and class weights."""
    validation_losses: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_epoch: int = 0
    """Epoch of the best validation score, from 1; if several have it, that of the lowest loss."""

    best_score: float = -math.inf
    best_loss: float = math.inf

    def note_(self, loss: float, score: float) -> bool:
        """Record a finished epoch; return whether it is the best so far."""
        self.validation_losses.append(loss)
        self.validation_scores.append(score)
        # NaN, if no class of the validation clips can be scored, counts as no difference.
        score = 0.0 if math.isnan(score) else score
        better = score > self.best_score or (score == self.best_score and loss < self.best_loss)
        if better:
            self.best_epoch, self.best_score, self.best_loss = len(self.validation_losses), score, loss
        return better


class Learner:
    """Networks and optimizer of one fit, and the clips that it learns from."""

    def __init__(
        self,
        plan: Plan,
        labelled: Labelled,
        encoder: AudioEncoder,
        means: Float32[np.ndarray, "clip dim"],
        params: Finetune,
    ) -> None:
        """`encoder` is trained in place; `means`: embeddings that it gave to all clips before."""
        clips, train = labelled.clips, plan.fold.train
        self.plan, self.labelled, self.params = plan, labelled, params
        self.encoder, self.head = encoder, untrained_head(means[train], len(clips.task.classes), plan.seeds)
        self.head.to(encoder.device)
        self.networks = nn.ModuleDict({"encoder": encoder, "head": self.head}).train()
        self.optimizer = new_optimizer(encoder, self.head, params)
        sampling, weights = params.class_balance == "sampling", params.class_balance == "weights"
        probabilities = draw_weights(clips.labels[train]) if sampling else None
        self.batches = Batches(
            labelled, train, params.batch_size, params.crop_frames, plan.seeds, probabilities
        )
        self.weights = torch.ones(len(clips.task.classes), device=encoder.device)
        if weights:
            found = class_weights(
                clips.labels[train], clips.observed[train], multi_label=clips.task.multi_label
            )
            self.weights = torch.from_numpy(found).to(self.weights)
        self.history = History()
        self.best: dict[str, Tensor] = {}

    def update_(self, batch: Batch, update: int) -> float:
        """One step of the optimizer; returns the loss. Raises SystemExit if it is not finite."""
        random = np.random.default_rng([*self.plan.seeds, 2, update])
        if self.params.mixup:
            batch = mixed(batch, self.params.mixup, random)
        log_mel = batch.log_mel
        if self.params.spec_augment is not None:
            log_mel = masked(log_mel, self.params.spec_augment, self.encoder.standard.mean, random)
        encoded = self.encoder.encode(log_mel, batch.num_frames)
        logits = self.head(encoded.steps.float(), encoded.mask)
        loss = loss_of(
            logits,
            smoothed(batch.labels, self.params.label_smoothing, multi_label=self.multi_label),
            batch.observed,
            self.weights,
            multi_label=self.multi_label,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # Only the norm is wanted here; nothing is clipped.
        norm = clip_grad_norm_(self.networks.parameters(), math.inf)
        if not torch.isfinite(loss + norm):
            self._stop(update, loss.item(), norm.item())
        total = self.params.num_epochs * self.batches.per_epoch
        warmup = int(self.params.warmup_epochs * self.batches.per_epoch)
        set_learning_rate_(
            self.optimizer, self.params.learning_rate * warmup_then_cosine(update, warmup, total)
        )
        self.optimizer.step()
        return loss.item()

    @property
    def multi_label(self) -> bool:
        return self.labelled.clips.task.multi_label

    @torch.no_grad()
    def answers(
        self, clips: Int64[np.ndarray, " chosen"]
    ) -> tuple[Float32[np.ndarray, "chosen dim"], Float32[np.ndarray, "chosen class"]]:
        """Mean embeddings and logits of whole clips, as the classifier gives them later."""
        means = means_of(self.encoder, self.labelled, clips)
        steps = torch.from_numpy(means).to(self.encoder.device)[:, None]
        present = torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
        return means, self.head(steps, present).cpu().numpy()

    def end_epoch_(self) -> None:
        """Validate, and keep the weights if they are the best so far."""
        history, fold = self.history, self.plan.fold
        history.train_losses.append(history.loss_sum / self.batches.per_epoch)
        history.loss_sum = 0.0
        if not len(fold.validation):
            history.best_epoch = len(history.train_losses)
            return
        _, logits = self.answers(fold.validation)
        labels, observed = (
            values[fold.validation] for values in (self.labelled.clips.labels, self.labelled.clips.observed)
        )
        loss = loss_of(
            torch.from_numpy(logits),
            torch.from_numpy(labels).float(),
            torch.from_numpy(observed).float(),
            torch.ones(labels.shape[1]),
            multi_label=self.multi_label,
        )
        if history.note_(loss.item(), score_of(logits, labels, observed, self.labelled.clips.task.metric)):
            self.best = {name: value.detach().cpu().clone() for name, value in self._weights().items()}

    def is_over(self) -> bool:
        """Whether no further update is to be made."""
        patience, done = self.params.patience_epochs, len(self.history.train_losses)
        stopped = patience is not None and done - self.history.best_epoch >= patience
        return done >= self.plan.num_epochs or stopped

    def take_best_(self) -> None:
        if self.best:
            self.networks.load_state_dict(self.best)

    def _weights(self) -> dict[str, Tensor]:
        return self.networks.state_dict()

    def _stop(self, update: int, loss: float, norm: float) -> None:
        ids = self.batches.ids(update)
        shown = printable(", ".join(ids[:8])) + (" ..." if len(ids) > 8 else "")
        raise SystemExit(
            f"Stopped: need finite loss and gradient, found loss {loss:g}, gradient norm {norm:g} in "
            f"update {update:,} of {self.plan.title}, on the batch of clips {shown}. "
            f"The last saved state is sound. Lower finetune.learning_rate, or check these recordings."
        )

    def save(self, path: Path) -> None:
        """Write all that it takes to go on, as one file."""
        tensors = {f"now.{name}": value for name, value in self._weights().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with room_for(path):
            write_tensors(path, plain, {"history": json.dumps(asdict(self.history))})

    def resume_(self, path: Path) -> None:
        """Go on from a saved state. Raises ValueError if it is damaged."""
        try:
            tensors, history = read_tensors(path), read_metadata(path, "history")
        except ValueError as error:
            raise ValueError(f"{error} To begin this fit again: rm {shlex.quote(str(path))}") from None
        self.history = History(**history)
        self.networks.load_state_dict(part_of(tensors, "now."))
        self.best = part_of(tensors, "best.")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part_of(tensors, "optimizer.").items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def train_(learner: Learner, state: Path, save_every_s: float) -> None:
    """Train to the end; `state` is where the learner is saved on the way, and found again.

    Raises:
        SystemExit: A loss or gradient is not finite; the error names the clips.
        RuntimeError: The device has too little memory for a batch.
    """
    if state.exists():
        learner.resume_(state)
    history, batches = learner.history, learner.batches
    per_epoch = batches.per_epoch
    total = learner.plan.num_epochs * per_epoch
    progress = Progress(learner.plan.title, total, "updates", done=history.update)
    saved_s = time.monotonic()
    device = learner.encoder.device
    try:
        for batch in batches(range(history.update, total), device):
            history.loss_sum += learner.update_(batch, history.update)
            history.update += 1
            if history.update % per_epoch == 0:
                learner.end_epoch_()
            progress.advance(1, note_of(history))
            if learner.is_over():
                break
            if time.monotonic() - saved_s > save_every_s:
                learner.save(state)
                saved_s = time.monotonic()
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"finetune.batch_size: need memory for {learner.params.batch_size} crops at once, found too "
            f"little on {device}. Set a smaller finetune.batch_size or finetune.crop_frames."
        ) from error
    learner.take_best_()


def note_of(history: History) -> str:
    if not history.train_losses:
        return ""
    note = f"loss {history.train_losses[-1]:.3f}"
    if history.validation_scores:
        note += f", validation {100 * history.validation_scores[-1]:.1f}"
    return note


def untrained_head(
    means: Float32[np.ndarray, "train dim"], num_classes: int, seeds: tuple[int, ...]
) -> LinearHead:
    """A linear layer with random weights, on embeddings scaled to mean 0 and deviation 1."""
    mean, std = torch.from_numpy(means.mean(0)), torch.from_numpy(means.std(0))
    weight, bias = first_weights([np.random.default_rng([*seeds, 3])], means.shape[1], num_classes)
    return LinearHead(weight[0].float(), bias[0, :, 0].float(), mean, 1 / torch.where(std > 0, std, 1))


def means_of(
    encoder: AudioEncoder, labelled: Labelled, clips: Int64[np.ndarray, " chosen"]
) -> Float32[np.ndarray, "chosen dim"]:
    """Mean embeddings of whole clips."""
    log_mels = (labelled.folder.read_clip(int(clip)) for clip in labelled.chosen[clips])
    return np.stack(list(encoder.embed_log_mels(log_mels, batch_size=CHUNKS_AT_ONCE)))


def smoothed(
    labels: Float[Tensor, "clip class"], share: float, *, multi_label: bool
) -> Float[Tensor, "clip class"]:
    """Labels with a share spread evenly: over all classes, or over yes and no of each entry."""
    return labels * (1 - share) + share / (2 if multi_label else labels.shape[1])


def loss_of(
    logits: Float[Tensor, "clip class"],
    labels: Float[Tensor, "clip class"],
    observed: Float[Tensor, "clip class"],
    weights: Float[Tensor, " class"],
    *,
    multi_label: bool,
) -> Float[Tensor, ""]:
    """Mean cross-entropy; if multi-label, of yes and no, over the observed entries.

    `weights`: of the classes of clips; if multi-label, of the positive entries.
    """
    if not multi_label:
        return -(weights * labels * logits.log_softmax(-1)).sum(-1).mean()
    losses = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="none")
    return (losses * observed).sum() / observed.sum().clamp(min=1)


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def read_metadata(path: Path, key: str) -> Any:  # noqa: ANN401 - whatever JSON can hold
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[key])
