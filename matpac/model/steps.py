"""latents of patches -> steps over time."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor


class OverTime(NamedTuple):
    """Embeddings of one clip."""

    mean: Float32[np.ndarray, "*layer dim"]
    """Mean of the steps, taken before they are rounded."""
    steps: Float32[np.ndarray, "*layer step dim"]


def steps_of(latents: Float[Tensor, "*batch patch dim"], num_freq: int) -> Float[Tensor, "*batch step _"]:
    """Put the latents of all frequencies at one time side by side."""
    by_freq = latents.unflatten(-2, (num_freq, -1))
    steps: Tensor = by_freq.transpose(-3, -2).flatten(-2)
    return steps
