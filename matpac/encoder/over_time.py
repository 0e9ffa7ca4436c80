"""The embeddings of one clip over time; stores and probes use them without loading PyTorch."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32


class OverTime(NamedTuple):
    """Embeddings of one clip."""

    mean: Float32[np.ndarray, "*layer dim"]
    """Mean of the steps, taken before they are rounded."""
    steps: Float32[np.ndarray, "*layer step dim"]
