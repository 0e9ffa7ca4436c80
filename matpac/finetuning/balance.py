"""labels -> weights of classes in the loss, and of clips when an epoch draws them."""

import numpy as np
from jaxtyping import Float64, UInt8


def class_weights(
    labels: UInt8[np.ndarray, "clip class"], observed: UInt8[np.ndarray, "clip class"], *, multi_label: bool
) -> Float64[np.ndarray, " class"]:
    """Weights that make up for rare classes; those of absent classes are 1.

    With one label a clip: weights of clips, inverse to the number of clips of their class, with mean 1
    over the clips. With several: weights of positive entries, negatives for each positive.
    """
    positive = labels.sum(0, dtype=np.int64)
    if multi_label:
        negative = observed.sum(0, dtype=np.int64) - positive
        return np.where((positive > 0) & (negative > 0), negative / np.maximum(positive, 1), 1.0)
    present = positive > 0
    return np.where(present, len(labels) / np.maximum(positive, 1) / present.sum(), 1.0)


def draw_weights(labels: UInt8[np.ndarray, "clip class"]) -> Float64[np.ndarray, " clip"]:
    """Probabilities of the clips in a draw: the sum over their classes of 1 / clips of that class.

    Clips without a label are as probable as the least probable of the others.
    """
    weights: Float64[np.ndarray, " clip"] = labels @ (1 / np.maximum(labels.sum(0, dtype=np.int64), 1))
    labelled = weights > 0
    weights[~labelled] = weights[labelled].min() if labelled.any() else 1
    weights /= weights.sum()
    return weights
