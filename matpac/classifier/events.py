"""probabilities over time -> events."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Event(NamedTuple):
    """A class that is heard from one time to another."""

    label: str
    onset_s: float
    offset_s: float
    score: float
    """Highest probability of the class in between."""


def events_of(
    probabilities: Float[np.ndarray, "step class"],
    classes: Sequence[str],
    thresholds: Float[np.ndarray, " class"],
    *,
    multi_label: bool,
    step_s: float,
    duration_s: float,
) -> list[Event]:
    """Runs of steps at or above the threshold of a class, in order of time.

    If only one class can be heard at a time, it is the most probable one of each step.
    """
    heard = probabilities >= thresholds
    if not multi_label:
        heard &= probabilities == probabilities.max(1, keepdims=True)
    events = [
        Event(
            label,
            float(first * step_s),
            float(min(end * step_s, duration_s)),
            float(probabilities[first:end, number].max()),
        )
        for number, label in enumerate(classes)
        for first, end in _runs(heard[:, number])
    ]
    return sorted(events, key=lambda event: (event.onset_s, -event.score))


def smoothed(logits: Float[np.ndarray, "step class"], half: int) -> Float[np.ndarray, "step class"]:
    """Mean over each step and the `half` steps before and after it, as far as there are any."""
    if half == 0:
        return logits
    sums = np.pad(np.cumsum(logits, axis=0, dtype=np.float64), ((1, 0), (0, 0)))
    steps = np.arange(len(logits))
    first, end = np.maximum(steps - half, 0), np.minimum(steps + half + 1, len(logits))
    means: Float[np.ndarray, "step class"] = (sums[end] - sums[first]) / (end - first)[:, None]
    return means.astype(logits.dtype)


def _runs(heard: Bool[np.ndarray, " step"]) -> list[tuple[int, int]]:
    """First step and the step after the last one of each run."""
    changes = np.flatnonzero(np.diff(heard, prepend=False, append=False))
    return [(int(first), int(end)) for first, end in zip(changes[::2], changes[1::2], strict=True)]
