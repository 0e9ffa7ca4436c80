"""batch -> mixed and masked batch: mixup and SpecAugment.

Mixup: Zhang et al., https://arxiv.org/abs/1710.09412. SpecAugment: Park et al.,
https://arxiv.org/abs/1904.08779.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from matpac.finetuning.batches import Batch
from matpac.params import SpecAugment


def mixed(batch: Batch, alpha: float, random: np.random.Generator) -> Batch:
    """Each clip with a share of another one of the batch; labels are mixed alike.

    Shares are drawn from Beta(alpha, alpha), for each clip by itself. An entry of the labels counts as
    observed if it is in both clips. A mixed clip is as long as the longer of the two.
    """
    size = len(batch.log_mel)
    share = torch.from_numpy(random.beta(alpha, alpha, size)).to(batch.log_mel)
    other = torch.from_numpy(random.permutation(size)).to(batch.log_mel.device)

    return Batch(
        torch.lerp(batch.log_mel[other], batch.log_mel, share[:, None, None]),
        torch.maximum(batch.num_frames, batch.num_frames[other]),
        torch.lerp(batch.labels[other], batch.labels, share[:, None]),
        batch.observed * batch.observed[other],
    )


def masked(
    log_mel: Float[Tensor, "batch mel frame"],
    params: SpecAugment,
    fill: float,
    random: np.random.Generator,
) -> Float[Tensor, "batch mel frame"]:
    """Log-mels with bands and moments replaced by `fill`, others in each clip."""
    hidden = torch.zeros(log_mel.shape, dtype=torch.bool, device=log_mel.device)
    batch, num_mels, num_frames = log_mel.shape
    for _ in range(params.num_freq_masks):
        rows = spans(batch, num_mels, params.max_freq_mels, random).to(log_mel.device)
        hidden |= rows[:, :, None]
    for _ in range(params.num_time_masks):
        columns = spans(batch, num_frames, params.max_time_frames, random).to(log_mel.device)
        hidden |= columns[:, None, :]
    return log_mel.masked_fill(hidden, fill)


def spans(number: int, length: int, longest: int, random: np.random.Generator) -> Tensor:
    """For each of `number`, which of `length` places a span covers, whose width is 0 to `longest`."""
    widths = random.integers(0, min(longest, length), number, endpoint=True)
    first = random.integers(0, length - widths, endpoint=True)
    places = np.arange(length)
    inside = (places >= first[:, None]) & (places < (first + widths)[:, None])
    return torch.from_numpy(inside)
