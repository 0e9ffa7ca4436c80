"""networks -> floating-point operations of one training step.

As in PyTorch's counter, only matrix products count, with a multiplication and an addition for each
term. Activations that are recomputed are not counted twice.
"""

from typing import NamedTuple

from torch import nn

from matpac.model.encoder import Blocks
from matpac.model.head import Head
from matpac.model.masking import num_visible
from matpac.model.pretext import Pretext


class Flops(NamedTuple):
    """Floating-point operations for one crop, by part."""

    student: int
    """Student encoder and patch embedding."""
    teacher: int
    predictor: int
    heads: int
    """Heads of student and teacher."""

    @property
    def total(self) -> int:
        return sum(self)


def training_flops(pretext: Pretext, mask_ratio: float, *, classify: bool) -> Flops:
    """A backward pass costs two forward passes; the teacher has none.

    `classify` is False at alpha = 1.
    """
    visible = num_visible(pretext.num_patches, mask_ratio)
    masked = pretext.num_patches - visible
    predictor = pretext.predictor
    # In the first layer only the weights have a gradient, not the input.
    patches = 2 * linear(pretext.patches.projection, pretext.num_patches)
    prediction = (
        linear(predictor.embedding, 1 + visible)
        + blocks(predictor.blocks, 1 + pretext.num_patches)
        + linear(predictor.hypotheses, masked)
    )
    classification = 3 * head(pretext.student_head, masked) + head(pretext.teacher_head, masked)
    return Flops(
        student=patches + 3 * blocks(pretext.student_encoder.blocks, 1 + visible),
        teacher=blocks(pretext.teacher_encoder.blocks, 1 + masked),
        predictor=3 * prediction,
        heads=classification if classify else 0,
    )


def blocks(layers: Blocks, tokens: int) -> int:
    products = sum(linear(part, tokens) for part in layers.modules() if isinstance(part, nn.Linear))
    # Queries times keys, and weights times values.
    attention = 2 * 2 * tokens**2 * layers.dim
    return products + len(layers) * attention


def head(layers: Head, tokens: int) -> int:
    mlp = sum(linear(part, tokens) for part in layers.mlp if isinstance(part, nn.Linear))
    return mlp + 2 * tokens * layers.direction.numel()


def linear(layer: nn.Linear, tokens: int) -> int:
    return 2 * tokens * layer.in_features * layer.out_features
