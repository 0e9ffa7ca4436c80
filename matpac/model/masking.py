"""patch grid -> patches the student sees, and patches it must predict."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from matpac.model.sizes import num_visible


class Split(NamedTuple):
    """Indices into the patches of each clip; each patch is either visible or masked."""

    visible: Int64[Tensor, "batch visible"]
    masked: Int64[Tensor, "batch masked"]


def random_split(batch: int, num_patches: int, mask_ratio: float, generator: Generator) -> Split:
    """Each clip draws its own split; all clips keep the same number of visible patches."""
    noise = torch.rand(batch, num_patches, generator=generator, device=generator.device)
    return split_by(noise, mask_ratio)


def split_by(noise: Float[Tensor, "batch patch"], mask_ratio: float) -> Split:
    """The patches with the lowest noise stay visible."""
    first_masked = num_visible(noise.shape[1], mask_ratio)
    order = noise.argsort(dim=1)
    return Split(order[:, :first_masked].contiguous(), order[:, first_masked:].contiguous())


def take(
    tokens: Float[Tensor, "batch patch dim"], index: Int64[Tensor, "batch chosen"]
) -> Float[Tensor, "batch chosen dim"]:
    return tokens.take_along_dim(index[:, :, None], dim=1)
