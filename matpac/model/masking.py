"""crops -> what is learned from: mixtures of two crops, patches the student sees and patches it must predict.

Two sounds at once are what an encoder meets outside, and a pair is hardly ever heard twice. Student and
teacher get the same mixture. It is made as in BYOL-A (Niizumi et al., https://arxiv.org/abs/2103.06695,
Section III-B): energies are added, not their logarithms.
"""

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


class Mixing(NamedTuple):
    """Which rows of what was read are mixed, and how."""

    crop: Int64[Tensor, " batch"]
    other: Int64[Tensor, " batch"]
    share: Float[Tensor, " batch"]
    """Of the other crop's energy."""


def whole_pairs(samples: range) -> range:
    """The samples, and the neighbors of those at the ends.

    Neighbors in the stream, which is shuffled anew in every epoch, are mixed with each other. So pairs
    depend neither on the batch nor on the number of processes.
    """
    return range(samples.start - samples.start % 2, samples.stop + samples.stop % 2)


def new_mixing(samples: range, shares: Float[Tensor, " batch"]) -> Mixing:
    """How samples of the stream are mixed, as rows of `whole_pairs`."""
    numbers, first = torch.tensor(samples), whole_pairs(samples).start
    return Mixing(numbers - first, (numbers ^ 1) - first, shares)


def shares_of(batch: int, largest: float, generator: Generator) -> Float[Tensor, " batch"]:
    """Uniform from 0 to `largest`, one for each sample."""
    return largest * torch.rand(batch, generator=generator)


def mixed(log_mel: Float[Tensor, "row frame mel"], mixing: Mixing) -> Float[Tensor, "batch frame mel"]:
    """Log-mels of the mixtures."""
    share = mixing.share[:, None, None]
    return torch.logaddexp(log_mel[mixing.crop] + (-share).log1p(), log_mel[mixing.other] + share.log())
