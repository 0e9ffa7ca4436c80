"""Model sizes by name; matpac/weights/checkpoint.py reads the size of a run off its parameters."""

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
    # ViT-S, ViT-B (the paper's) and ViT-L of timm. Like the decoders of MAE, AudioMAE and M2D, the
    # predictor is the same for all of them: 8 blocks of 512 dimensions. The heads are DINO's.
    "small": Size(384, 12, 6, 512, 8, 16, 2048, 256),
    "base": Size(768, 12, 12, 512, 8, 16, 2048, 256),
    "large": Size(1024, 24, 16, 512, 8, 16, 2048, 256),
}


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """Patches of a clip that the student sees."""
    return int(num_patches * (1 - mask_ratio))
