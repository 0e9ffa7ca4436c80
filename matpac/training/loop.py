"""batches -> weights: one optimiser update, and the loop around it."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from matpac.model.losses import (
    classification_loss,
    prediction_loss,
    teacher_probabilities,
    total_loss,
)
from matpac.model.masking import Split
from matpac.model.pretext import Pretext, Views
from matpac.params import Pretrain
from matpac.training.health import Health
from matpac.training.schedules import Durations, Knobs, knobs_at


class NonFinite(ArithmeticError):
    """Loss or gradient is NaN or infinite; no weight has been touched."""


class Example(NamedTuple):
    """What one update sees: standardized log-mels, and which patches are masked."""

    log_mel: Float[Tensor, "batch mel frame"]
    split: Split


class Report(NamedTuple):
    """What one update did. Scalars stay on the device until somebody reads them."""

    update: int
    prediction_loss: Tensor
    classification_loss: Tensor
    loss: Tensor
    grad_norm: Tensor
    health: Health
    knobs: Knobs


def new_optimizer(pretext: Pretext, params: Pretrain) -> Optimizer:
    """AdamW with weight decay on every trained tensor, biases and norms included."""
    trained = [weight for weight in pretext.parameters() if weight.requires_grad]
    return AdamW(
        trained,
        lr=params.peak_learning_rate,
        betas=params.adam_betas,
        eps=params.adam_eps,
        weight_decay=params.weight_decay,
        fused=trained[0].is_cuda,
    )


def pretrain(
    pretext: Pretext,
    optimizer: Optimizer,
    examples: Iterable[Example],
    params: Pretrain,
    lasting: Durations,
    *,
    first_update: int,
) -> Iterator[Report]:
    """Yield after every update, so the caller decides when to log, to save and to stop."""
    for update, example in enumerate(examples, start=first_update):
        knobs = knobs_at(update, lasting, params)
        yield update_(pretext, optimizer, example, update, knobs, params)


def update_(
    pretext: Pretext,
    optimizer: Optimizer,
    example: Example,
    update: int,
    knobs: Knobs,
    params: Pretrain,
) -> Report:
    """One update. Raises NonFinite before any weight moves."""
    optimizer.zero_grad(set_to_none=True)
    parts = micro_batches(example, params.micro_batch_size)
    losses = torch.zeros(3, device=example.log_mel.device)
    health = Health.start(pretext.center.value)
    center_sum = torch.zeros_like(pretext.center.value)

    for part in parts:
        with autocast(example.log_mel.device, params.precision):
            views = pretext(part.log_mel, part.split)
        # Autocast leaves logits in bfloat16, which is too coarse for a softmax over thousands of classes.
        views = Views(*(values.float() for values in views))

        prediction = prediction_loss(
            views.distances, knobs.choice_temperature, params.choice_temperature.last
        )
        target_probs = teacher_probabilities(
            views.target_logits, pretext.center.value, knobs.teacher_temperature
        )
        classification = classification_loss(views.predicted_logits, target_probs, params.student_temperature)
        total = total_loss(classification, prediction, params.alpha)
        (total / len(parts)).backward()

        losses += torch.stack([prediction, classification, total]).detach() / len(parts)
        health.watch_(views, target_probs)
        # The released code averages what comes out of the softmax; the paper, what goes in.
        centered = views.target_logits if params.center_of == "logits" else target_probs
        center_sum += centered.mean(dim=(0, 1)) / len(parts)

    grad_norm = clip_grad_norm_(pretext.parameters(), params.max_grad_norm)
    if not torch.isfinite(losses.sum() + grad_norm):
        raise NonFinite(f"update {update}: loss {losses[2].item():g}, gradient norm {grad_norm.item():g}")

    # The released order: followers take the weights of this forward pass, and rest at update 0.
    if update > 0:
        pretext.follow_student_(knobs.encoder_decay, knobs.head_decay)
    pretext.center.update_(center_sum)

    for group in optimizer.param_groups:
        group["lr"] = knobs.learning_rate
    optimizer.step()

    prediction, classification, total = losses.unbind()
    return Report(update, prediction, classification, total, grad_norm.detach(), health, knobs)


def micro_batches(example: Example, size: int) -> list[Example]:
    return [
        Example(log_mel, Split(visible, masked))
        for log_mel, visible, masked in zip(
            example.log_mel.split(size),
            example.split.visible.split(size),
            example.split.masked.split(size),
            strict=True,
        )
    ]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    if device.type == "cuda" and precision == "bfloat16":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()
