"""What a trained probe leaves behind: no networks, so that whoever scores it need not load PyTorch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Fit:
    """One probe of one repeat and fold."""

    repeat: int
    fold: int
    """Index into the folds."""
    train_losses: list[float]
    """Mean over the observed entries of each epoch, taken while the weights move."""
    validation_losses: list[float]
    best_epoch: int
    """From 1: where the validation loss was lowest; the test logits are of these weights."""
    test_logits: Float[np.ndarray, "test class"]
