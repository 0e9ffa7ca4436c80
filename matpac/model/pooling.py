"""steps over time -> an embedding of the clip."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matpac.params import Pooling

SMALLEST_VARIANCE = 1e-12


def pooled(
    steps: Float[Tensor, "batch step dim"], mask: Bool[Tensor, "batch step"], pooling: Pooling
) -> Float[Tensor, "batch pooled"]:
    """Moments over the steps in the mask, with gradients."""
    heard = mask[:, :, None].to(steps.dtype)
    num_heard = heard.sum(1)
    mean: Tensor = (steps * heard).sum(1) / num_heard
    if pooling == "mean":
        return mean
    variance = ((steps - mean[:, None]) * heard).square().sum(1) / num_heard
    # The slope of a root has no bound at 0, where a single step has its variance.
    return torch.cat([mean, variance.clamp(min=SMALLEST_VARIANCE).sqrt()], dim=1)
