"""validation logits -> temperature and thresholds; probabilities -> calibration error.

One temperature divides all logits (Guo et al., https://arxiv.org/abs/1706.04599). It changes no order of
the classes of a clip, and no accuracy. A threshold for each class has the best F1 on the validation clips.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

Logits = Float[np.ndarray, "clip class"]
Labels = UInt8[np.ndarray, "clip class"]

TEMPERATURES = (0.1, 10.0)
"""Bounds: clips that are classified without an error would ask for 0."""
NUM_BINS = 15
DEFAULT_THRESHOLD = 0.5
"""Of classes that all or none of the validation clips have."""


class Calibration(NamedTuple):
    temperature: float
    thresholds: Float32[np.ndarray, " class"]
    """Lowest probability at which a class counts as heard."""


def calibrated(logits: Logits, labels: Labels, observed: Labels, *, multi_label: bool) -> Calibration:
    """Choose temperature and thresholds.

    Args:
        logits: Logits of validation clips `[clip, class]`, by models that did not train on them.
        labels: Their labels, multi-hot.
        observed: 1 if it is known whether the clip has the class, else 0.
        multi_label: Whether a clip can have several classes.

    Returns:
        The temperature of least loss, and for each class the threshold of the best F1.
    """
    temperature = best_temperature(logits, labels, observed, multi_label=multi_label)
    probabilities = probabilities_of(logits, temperature, multi_label=multi_label)
    thresholds = [
        best_threshold(of_class[seen], truth[seen])
        for of_class, truth, seen in zip(probabilities.T, labels.T, observed.T.astype(bool), strict=True)
    ]
    return Calibration(temperature, np.array(thresholds, dtype=np.float32))


def best_temperature(logits: Logits, labels: Labels, observed: Labels, *, multi_label: bool) -> float:
    """The temperature of least loss; arguments as for `calibrated`."""
    found = minimize_scalar(
        lambda log_temperature: _loss(logits / math.exp(log_temperature), labels, observed, multi_label),
        bounds=tuple(map(math.log, TEMPERATURES)),
        method="bounded",
    )
    return math.exp(found.x)


def probabilities_of(
    logits: Logits, temperature: float, *, multi_label: bool
) -> Float32[np.ndarray, "clip class"]:
    """Probabilities; those of a clip sum to 1 unless it can have several classes."""
    scaled = logits.astype(np.float64) / temperature
    probabilities: Float[np.ndarray, "clip class"] = expit(scaled) if multi_label else softmax(scaled, axis=1)
    return probabilities.astype(np.float32)


def best_threshold(probabilities: Float[np.ndarray, " clip"], truth: UInt8[np.ndarray, " clip"]) -> float:
    """The threshold of the best F1, half way to the next lower probability."""
    if not truth.any() or truth.all():
        return DEFAULT_THRESHOLD
    order = np.argsort(-probabilities, kind="stable")
    falling = np.append(probabilities[order].astype(np.float64), 0.0)
    f1 = 2 * np.cumsum(truth[order], dtype=np.int64) / (np.arange(1, len(order) + 1) + truth.sum())
    # No threshold lies between equal probabilities.
    best = int(np.where(falling[:-1] > falling[1:], f1, -1).argmax())
    return float(falling[best : best + 2].mean())


def calibration_error(
    probabilities: Float32[np.ndarray, "clip class"], labels: Labels, observed: Labels, *, multi_label: bool
) -> float:
    """Expected calibration error: mean distance of confidence and share of right answers, over 15 bins.

    Of single-label clips, the confidence is that of the most probable class. If clips can have several
    classes, every observed entry counts.
    """
    if multi_label:
        seen = observed.astype(bool)
        confidence, right = probabilities[seen], labels[seen].astype(bool)
    else:
        confidence, right = probabilities.max(1), labels.argmax(1) == probabilities.argmax(1)
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _loss(
    scaled: Float64[np.ndarray, "clip class"] | Logits, labels: Labels, observed: Labels, multi_label: bool
) -> float:
    if not multi_label:
        return float(-(labels * log_softmax(scaled, axis=1)).sum(1).mean())
    losses = np.logaddexp(0, scaled) - labels * scaled
    return float((losses * observed).sum() / max(observed.sum(), 1))
