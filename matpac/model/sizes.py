"""Model sizes by name."""

from typing import NamedTuple

PATCH = 16
"""Patches are 16 mel bands x 16 frames, without overlap."""


class Size(NamedTuple):
    encoder_dim: int
    encoder_depth: int
    encoder_heads: int
    predictor_dim: int
    predictor_depth: int
    predictor_heads: int
    head_hidden: int
    head_bottleneck: int


SIZES = {
    # Two cores, minutes: for the demo, for tests of the whole pipeline, for a first try on own data.
    "tiny": Size(128, 4, 4, 96, 2, 4, 256, 64),
    # The paper's: ViT-B, predictor and heads as in M2D and DINO (118 M trainable parameters).
    "base": Size(768, 12, 12, 512, 8, 16, 2048, 256),
}
