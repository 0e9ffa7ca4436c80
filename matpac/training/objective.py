"""log-mels and masks -> losses: one forward pass as one module."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matpac.model.losses import (
    classification_loss,
    match,
    prediction_loss,
    teacher_probabilities,
    total_loss,
)
from matpac.model.masking import Split
from matpac.model.pretext import Pretext, Views
from matpac.params import Pretrain

MOST_GRAPHS = 64
"""Compiled variants of a block, beyond which new sizes are computed eagerly."""


class Outcome(NamedTuple):
    loss: Float[Tensor, ""]
    """The total loss, Eq. (5)."""
    means: Float[Tensor, " mean"]
    """Means over the masked patches, without gradient: prediction, classification and total loss,
    then the values the center follows, one per cluster. 0 if not computed."""
    views: Views
    target_probs: Float[Tensor, "batch masked cluster"] | None
    """None if nothing is classified."""


class Objective(nn.Module):
    """A forward pass to the loss, in one module that compiler and distributed training can wrap."""

    def __init__(self, pretext: Pretext, params: Pretrain) -> None:
        super().__init__()
        self.pretext, self.params = pretext, params
        self._compare = compare

    def compile_parts_(self) -> None:
        """Compile block by block. Blocks of one shape share their code, so this takes seconds, and
        gradients of late blocks reach other ranks while those of early blocks are computed.

        Changes two settings of the process: graphs are not cut where DDP's buckets end, as blocks are
        smaller than buckets; and there may be many, as all blocks count together, and each size of
        micro-batch needs three (student, teacher, predictor).
        """
        settings = torch._dynamo.config
        settings.optimize_ddp = False
        settings.recompile_limit = max(settings.recompile_limit, MOST_GRAPHS)
        for blocks in (
            self.pretext.student_encoder.blocks,
            self.pretext.predictor.blocks,
            self.pretext.teacher_encoder.blocks,
        ):
            for block in blocks:
                block.compile(dynamic=False)
        self.pretext.match = torch.compile(match, dynamic=False)
        self._compare = torch.compile(compare, dynamic=False)

    def forward(
        self,
        log_mel: Float[Tensor, "batch mel frame"],
        split: Split,
        teacher_temperature: Float[Tensor, ""],
        choice_temperature: Float[Tensor, ""] | None,
        *,
        classify: bool = True,
    ) -> Outcome:
        """Temperatures are tensors, so that a new value does not compile the step again."""
        bfloat16 = self.params.precision == "bfloat16"
        with torch.autocast(log_mel.device.type, torch.bfloat16, enabled=bfloat16):
            views = self.pretext(log_mel, split, classify=classify)
        return self._compare(
            views, self.pretext.center.value, self.params, teacher_temperature, choice_temperature
        )


def compare(
    views: Views,
    center: Float[Tensor, " cluster"],
    params: Pretrain,
    teacher_temperature: Float[Tensor, ""],
    choice_temperature: Float[Tensor, ""] | None,
) -> Outcome:
    # Autocast yields bfloat16, too coarse for a softmax over thousands of classes.
    views = Views._make(None if values is None else values.float() for values in views)
    prediction = prediction_loss(views.distances, choice_temperature)
    if views.target_logits is None or views.predicted_logits is None:
        losses = torch.stack([prediction, torch.zeros_like(prediction), prediction]).detach()
        return Outcome(prediction, torch.cat([losses, torch.zeros_like(center)]), views, None)
    target_probs = teacher_probabilities(views.target_logits, center, teacher_temperature)
    classification = classification_loss(views.predicted_logits, target_probs, params.student_temperature)
    loss = total_loss(classification, prediction, params.alpha)
    # The paper averages the input of the softmax; the released code its output.
    centered = views.target_logits if params.center_of == "logits" else target_probs
    losses = torch.stack([prediction, classification, loss]).detach()
    return Outcome(loss, torch.cat([losses, centered.mean(dim=(0, 1))]), views, target_probs)
