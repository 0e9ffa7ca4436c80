"""latents -> steps over time, and their mean."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32


class OverTime(NamedTuple):
    """What the encoder makes of one clip."""

    mean: Float32[np.ndarray, "*layer dim"]
    """Of the steps, before they are rounded."""
    steps: Float32[np.ndarray, "*layer step dim"]
