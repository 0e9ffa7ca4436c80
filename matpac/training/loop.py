"""batches -> weights: one optimizer update, and the loop around it."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from matpac.model.masking import Split
from matpac.model.pretext import Pretext
from matpac.params import Compute, Pretrain
from matpac.training.gradients import SharedGradients
from matpac.training.health import Health
from matpac.training.objective import Objective
from matpac.training.ranks import Ranks
from matpac.training.schedules import Durations, Knobs, knobs_at


class NonFinite(ArithmeticError):
    """Loss or gradient of an update is NaN or infinite; the student's weights have not moved."""

    def __init__(self, update: int, loss: float, grad_norm: float) -> None:
        super().__init__(f"update {update}: loss {loss:g}, gradient norm {grad_norm:g}")
        self.update = update


class Example(NamedTuple):
    """Input of one update: standardized log-mels, and which patches are masked."""

    log_mel: Float[Tensor, "batch mel frame"]
    split: Split


@dataclass(frozen=True)
class Report:
    """Results of one update. Tensors stay on the device; reading one waits for the update."""

    update: int
    losses: Float[Tensor, " loss"]
    """Prediction, classification (0 if not computed) and total loss."""
    grad_norm: Float[Tensor, ""]
    finite: Tensor
    stop: Tensor
    """Above 0 if some rank was asked to stop."""
    health: Health | None
    """None unless the update was watched."""
    knobs: Knobs

    def wait(self) -> bool:
        """Wait for the update; return whether some rank was asked to stop. Raises NonFinite."""
        if not self.finite:
            raise NonFinite(self.update, self.losses[2].item(), self.grad_norm.item())
        return self.stop.item() > 0


class Learner:
    """Networks and optimizer of a run, on this rank's device."""

    def __init__(self, pretext: Pretext, params: Pretrain, compute: Compute, ranks: Ranks) -> None:
        self.pretext, self.params, self.compute, self.ranks = pretext, params, compute, ranks
        # At alpha = 1 the student's head gets no gradient, and other ranks must not wait for one.
        pretext.student_head.requires_grad_(requires_grad=params.classifies)
        self.optimizer = new_optimizer(pretext, params)
        for blocks in (pretext.student_encoder.blocks, pretext.predictor.blocks):
            blocks.recompute = compute.recompute_activations
        objective = Objective(pretext, params)
        if compute.compile:
            objective.compile_parts_()
        self.objective: nn.Module = objective
        self.shared: SharedGradients | None = None
        if ranks.share_memory:
            trained = [weight for weight in pretext.parameters() if weight.requires_grad]
            self.shared = SharedGradients(trained, ranks)
        elif ranks.number > 1:
            # Buffers need no broadcast: every rank computes the same ones.
            self.objective = DistributedDataParallel(
                objective, gradient_as_bucket_view=True, broadcast_buffers=False
            )

    def without_sync(self) -> AbstractContextManager[Any]:
        """Keep gradients on this rank; for all micro-batches of an update but the last."""
        if isinstance(self.objective, DistributedDataParallel):
            return self.objective.no_sync()
        return nullcontext()

    def average_gradients_(self) -> None:
        """Average gradients over the ranks, unless the backward pass has done so."""
        if self.shared is not None:
            self.shared.average_()


def new_optimizer(pretext: Pretext, params: Pretrain) -> Optimizer:
    """AdamW; biases and norms have no weight decay if `weight_decay_on` is `matrices`."""
    min_ndim = 0 if params.weight_decay_on == "all" else 2
    trained = [weight for weight in pretext.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in trained if weight.ndim >= min_ndim]},
        {"params": [weight for weight in trained if weight.ndim < min_ndim], "weight_decay": 0.0},
    ]
    return AdamW(
        groups,
        lr=params.peak_learning_rate,
        betas=params.adam_betas,
        eps=params.adam_eps,
        weight_decay=params.weight_decay,
        fused=True,
    )


def pretrain(
    learner: Learner,
    examples: Iterable[Example],
    durations: Durations,
    *,
    first_update: int,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Report]:
    """Yield after every update, so the caller decides when to log, to save and to stop.

    The host runs one update ahead of the device. NonFinite is raised for an update when the next
    one has been queued, or when the caller waits for its report.
    """
    before: Report | None = None
    for update, example in enumerate(examples, start=first_update):
        last = update == durations.total - 1
        watch = last or update % learner.compute.log_every_updates == 0
        knobs = knobs_at(update, durations, learner.params)
        report = update_(learner, example, update, knobs, watch=watch, stopping=is_stopping())
        if before is not None:
            before.wait()
        yield report
        before = report
    if before is not None:
        before.wait()


def update_(
    learner: Learner, example: Example, update: int, knobs: Knobs, *, watch: bool, stopping: bool = False
) -> Report:
    """One update on this rank's part of a batch. The host never waits for the device.

    If loss or gradient is not finite, neither the student nor the center moves. At alpha = 1 the
    classification teaches nothing: it is computed, and the center moved, in watched updates only.

    Args:
        learner: Networks and optimizer, changed in place.
        example: This rank's log-mels [batch, mel, frame] and their split into patches.
        update: Number of the update, from 0.
        knobs: Learning rate, temperatures and decays of this update.
        watch: Whether to measure signs of collapse (`Report.health`).
        stopping: Whether this rank was asked to stop; the report tells all ranks.

    Returns:
        Losses and gradient norm over the batches of all ranks, still on the device.
    """
    pretext, params, ranks, optimizer = learner.pretext, learner.params, learner.ranks, learner.optimizer
    center = pretext.center.value
    optimizer.zero_grad(set_to_none=True)
    health = Health.start(center) if watch else None
    means = center.new_zeros(3 + len(center) + 1)
    means[-1] = float(stopping)
    classify = watch or params.classifies
    teacher_temperature = torch.full_like(center[0], knobs.teacher_temperature)
    hard = pretext.predictor.num_hypotheses == 1 or knobs.choice_temperature <= params.choice_temperature.last
    choice_temperature = None if hard else torch.full_like(center[0], knobs.choice_temperature)

    parts = micro_batches(example, learner.compute.micro_batch_size)
    for number, part in enumerate(parts, start=1):
        share = len(part.log_mel) / params.batch_size
        with nullcontext() if number == len(parts) else learner.without_sync():
            outcome = learner.objective(
                part.log_mel, part.split, teacher_temperature, choice_temperature, classify=classify
            )
            if health is not None:
                health.watch_(outcome.views, outcome.target_probs)
            loss = outcome.loss
            means[:-1] += share * outcome.means
            # Free the views: gigabytes that the backward pass does not need.
            del outcome
            # Times the number of ranks, because gradients are averaged over ranks.
            (loss * (share * ranks.number)).backward()

    learner.average_gradients_()
    ranks.sum_(means)
    if health is not None:
        health.sum_over_(ranks)
    losses, center_mean, stop = means.split([3, len(center), 1])
    grad_norm = clip_grad_norm_(pretext.parameters(), params.max_grad_norm or math.inf)
    finite = torch.isfinite(losses.sum() + grad_norm)

    # As in the released code: followers take the weights of this forward pass; not at update 0.
    if params.teacher_follows == "before_step" and update > 0:
        pretext.follow_student_(knobs.encoder_decay, knobs.head_decay)
    if classify:
        pretext.center.update_(torch.where(finite, center_mean, center))

    for group in optimizer.param_groups:
        group["lr"] = knobs.learning_rate
    # The fused kernels skip the step if this is 1, as they do for a gradient scaler.
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()
    if params.teacher_follows == "after_step":
        pretext.follow_student_(knobs.encoder_decay, knobs.head_decay)
    return Report(update, losses, grad_norm.detach(), finite, stop, health, knobs)


def micro_batches(example: Example, largest: int) -> list[Example]:
    """The fewest parts of at most `largest` clips, of nearly equal size."""
    num_parts = math.ceil(len(example.log_mel) / largest)
    tensors = (example.log_mel, *example.split)
    split = (values.tensor_split(num_parts) for values in tensors)
    return [Example(log_mel, Split(visible, masked)) for log_mel, visible, masked in zip(*split, strict=True)]
