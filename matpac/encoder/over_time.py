"""What is known of one clip over time; stores and probes use it without loading PyTorch."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32


class OverTime(NamedTuple):
    """The steps of one clip, and their moments, taken before steps are rounded."""

    mean: Float32[np.ndarray, "*layer dim"]
    deviation: Float32[np.ndarray, "*layer dim"]
    """Standard deviation, not corrected for the number of steps; 0 for a single one."""
    steps: Float32[np.ndarray, "*layer step dim"] | None
    """None unless asked for."""
