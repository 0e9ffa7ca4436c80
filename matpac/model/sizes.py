"""Model sizes by name."""

from typing import NamedTuple

PATCH = 16
"""Mel bands and frames of a patch; patches do not overlap."""


class Size(NamedTuple):
    """Dimensions of the networks."""

    encoder_dim: int
    encoder_depth: int
    encoder_heads: int
    predictor_dim: int
    predictor_depth: int
    predictor_heads: int
    head_hidden: int
    head_bottleneck: int


SIZES = {
    # Trains in minutes on two cores: for the demo, pipeline tests, a first try on your data.
    "tiny": Size(128, 4, 4, 96, 2, 4, 256, 64),
    # The paper's: ViT-B, with predictor and heads as in M2D and DINO (118 M trainable parameters).
    "base": Size(768, 12, 12, 512, 8, 16, 2048, 256),
}
