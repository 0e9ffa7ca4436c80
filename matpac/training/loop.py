"""batches -> weights: one optimiser update, and the loop around it."""

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
from matpac.training.health import Health
from matpac.training.objective import Objective
from matpac.training.ranks import Ranks
from matpac.training.schedules import Durations, Knobs, knobs_at


class NonFinite(ArithmeticError):
    """Loss or gradient of an update is NaN or infinite; it has not moved the student's weights."""

    def __init__(self, update: int, loss: float, grad_norm: float) -> None:
        super().__init__(f"update {update}: loss {loss:g}, gradient norm {grad_norm:g}")
        self.update = update


class Example(NamedTuple):
    """What one update sees: standardized log-mels, and which patches are masked."""

    log_mel: Float[Tensor, "batch mel frame"]
    split: Split


@dataclass(frozen=True)
class Report:
    """What one update did. Tensors stay on the device; whoever reads one waits for the update to end."""

    update: int
    losses: Float[Tensor, " loss"]
    """Prediction, classification (0 where it was not computed), total."""
    grad_norm: Float[Tensor, ""]
    finite: Tensor
    stop: Tensor
    """Above 0 where some rank was asked to stop."""
    health: Health | None
    """Where it was watched."""
    knobs: Knobs

    def settle(self) -> bool:
        """Wait for the update; whether some rank was asked to stop. Raises NonFinite."""
        if not self.finite:
            raise NonFinite(self.update, self.losses[2].item(), self.grad_norm.item())
        return self.stop.item() > 0


class Learner:
    """Networks and optimiser of a run, on this rank's device."""

    def __init__(self, pretext: Pretext, params: Pretrain, compute: Compute, ranks: Ranks) -> None:
        self.pretext, self.params, self.compute, self.ranks = pretext, params, compute, ranks
        # At alpha = 1 the student's head has no part in the loss: nobody waits for its gradient.
        pretext.student_head.requires_grad_(requires_grad=params.classifies)
        self.optimizer = new_optimizer(pretext, params)
        for blocks in (pretext.student_encoder.blocks, pretext.predictor.blocks):
            blocks.recompute = compute.recompute_activations
        objective = Objective(pretext, params)
        if compute.compile:
            objective.compile_parts_()
        self.objective: nn.Module = objective
        if ranks.number > 1:
            self.objective = DistributedDataParallel(objective, gradient_as_bucket_view=True)

    def gradients_stay_here(self) -> AbstractContextManager[Any]:
        """While more micro-batches follow, gradients are not sent to the other ranks."""
        if isinstance(self.objective, DistributedDataParallel):
            return self.objective.no_sync()
        return nullcontext()


def new_optimizer(pretext: Pretext, params: Pretrain) -> Optimizer:
    """AdamW; without weight decay for biases and norms where `weight_decay_on` is `matrices`."""
    fewest_dimensions = 0 if params.weight_decay_on == "all" else 2
    trained = [weight for weight in pretext.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in trained if weight.ndim >= fewest_dimensions]},
        {"params": [weight for weight in trained if weight.ndim < fewest_dimensions], "weight_decay": 0.0},
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
    lasting: Durations,
    *,
    first_update: int,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Report]:
    """Yield after every update, so the caller decides when to log, to save and to stop.

    The host runs one update ahead of the device: an update is known to be finite (NonFinite is raised) when
    the next one is yielded, or when its report is settled.
    """
    before: Report | None = None
    for update, example in enumerate(examples, start=first_update):
        last = update == lasting.total - 1
        watch = last or update % learner.compute.log_every_updates == 0
        knobs = knobs_at(update, lasting, learner.params)
        report = update_(learner, example, update, knobs, watch=watch, stopping=is_stopping())
        if before is not None:
            before.settle()
        yield report
        before = report
    if before is not None:
        before.settle()


def update_(
    learner: Learner, example: Example, update: int, knobs: Knobs, *, watch: bool, stopping: bool = False
) -> Report:
    """One update on this rank's part of a batch. Nothing in it makes the host wait for the device.

    Where loss or gradient is not finite, neither the student nor the centre moves. At alpha = 1 nothing is
    learned from the classification: it is computed for updates that are watched only, and so is the centre.
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
        with nullcontext() if number == len(parts) else learner.gradients_stay_here():
            outcome = learner.objective(
                part.log_mel, part.split, teacher_temperature, choice_temperature, classify=classify
            )
            if health is not None:
                health.watch_(outcome.views, outcome.target_probs)
            loss = outcome.loss
            means[:-1] += share * outcome.means
            # The views hold gigabytes that the backward pass does not need.
            del outcome
            # Gradients become the mean over ranks.
            (loss * (share * ranks.number)).backward()

    ranks.sum_(means)
    if health is not None:
        health.sum_over_(ranks)
    losses, center_mean, stop = means.split([3, len(center), 1])
    grad_norm = clip_grad_norm_(pretext.parameters(), params.max_grad_norm or math.inf)
    finite = torch.isfinite(losses.sum() + grad_norm)

    # The released order: followers take the weights of this forward pass, and rest at update 0.
    if params.teacher_follows == "before_step" and update > 0:
        pretext.follow_student_(knobs.encoder_decay, knobs.head_decay)
    if classify:
        pretext.center.update_(torch.where(finite, center_mean, center))

    for group in optimizer.param_groups:
        group["lr"] = knobs.learning_rate
    # The fused kernels look here, as they do for a gradient scaler, and leave everything where it is.
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()
    if params.teacher_follows == "after_step":
        pretext.follow_student_(knobs.encoder_decay, knobs.head_decay)
    return Report(update, losses, grad_norm.detach(), finite, stop, health, knobs)


def micro_batches(example: Example, largest: int) -> list[Example]:
    """As few parts of nearly equal size as hold `largest` clips at most."""
    num_parts = math.ceil(len(example.log_mel) / largest)
    tensors = (example.log_mel, *example.split)
    split = (values.tensor_split(num_parts) for values in tensors)
    return [Example(log_mel, Split(visible, masked)) for log_mel, visible, masked in zip(*split, strict=True)]
