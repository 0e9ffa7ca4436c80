"""networks -> floating-point operations and memory of one training step.

As in PyTorch's counter, only matrix products count, with a multiplication and an addition for each
term. Activations that are recomputed are not counted twice.
"""

from typing import NamedTuple

from torch import nn

from matpac.model.encoder import Blocks
from matpac.model.head import Head
from matpac.model.pretext import Pretext
from matpac.model.sizes import PATCH, num_visible

SHARE_OF_MEMORY = 0.85
"""Of a GPU's free memory, for all of an update; the rest is for fragments and what kernels need."""


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


class Memory(NamedTuple):
    """Bytes on a GPU."""

    fixed: int
    """Weights, gradients, moments of the optimizer, and casts of weights."""
    per_clip: int
    """What a clip of a micro-batch adds until its backward pass begins."""

    def most_clips(self, num_bytes: float) -> int:
        """Largest power of two of clips whose update fits into so much free memory; 0 if none does."""
        most = int(SHARE_OF_MEMORY * num_bytes - self.fixed) // self.per_clip
        return 1 << most.bit_length() - 1 if most > 0 else 0


def training_memory(
    pretext: Pretext, visible: int, *, bfloat16: bool, recompute: bool, classify: bool
) -> Memory:
    """Peak of an update, not compiled, with `visible` patches a clip.

    Fitted to the storages alive in updates on fake tensors, of the sizes `tiny` and `base`; a tenth
    off at most, for `small` and `large` too. Bytes for each token and dimension are those kept in a
    block and those around all.
    """
    patches, student, predictor = pretext.num_patches, pretext.student_encoder.blocks, pretext.predictor
    masked = patches - visible
    wide, bytes_in_block, bytes_around = (2, 35, 48) if bfloat16 else (4, 61, 72)
    if recompute:
        bytes_in_block, bytes_around = 4, 36
    in_blocks = (1 + visible) * len(student) * student.dim
    in_blocks += (1 + patches) * len(predictor.blocks) * predictor.blocks.dim
    per_clip = in_blocks * bytes_in_block
    per_clip += patches * (student.dim * bytes_around + 6 * PATCH**2)
    per_clip += (predictor.num_hypotheses - 1) * masked * student.dim * (wide + 4)
    if classify:
        num_clusters, hidden = len(pretext.student_head.direction), pretext.student_head.hidden
        per_clip += masked * (20 * num_clusters + 4 * wide * hidden)
    sizes = [(weight.numel(), weight.requires_grad) for weight in pretext.parameters()]
    fixed = sum(size * (4 + 12 * is_trained + 2 * bfloat16) for size, is_trained in sizes)
    return Memory(fixed, per_clip)
