"""fits on held-out clips -> the scores that a classifier brings, and how long to train it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from matpac.classifier.calibration import best_temperature, calibration_error, probabilities_of
from matpac.probing.folds import Fold
from matpac.probing.heard import heard_of
from matpac.probing.scores import Fit, chance, details_of, mean_and_interval, protocol, repeat_scores
from matpac.probing.store import EmbeddedClips


def truth_of(
    fits: Sequence[Fit], clips: EmbeddedClips, folds: Sequence[Fold], part: str
) -> tuple[UInt8[np.ndarray, "chosen class"], UInt8[np.ndarray, "chosen class"]]:
    """Labels, and which of them were observed, of the validation or test clips of some fits."""
    chosen = np.concatenate([getattr(folds[fit.fold], part) for fit in fits])
    return clips.labels[chosen], clips.observed[chosen]


def scores_of(fits: Sequence[Fit], clips: EmbeddedClips, folds: Sequence[Fold]) -> dict[str, Any]:
    """Scores on test clips, as `matpac probe` measures them; fractions. `fits`: repeats first, then folds."""
    task, details = clips.task, details_of(fits, clips, folds)
    tested = np.concatenate([fold.test for fold in folds])
    before, after = np.mean([calibration_errors(fit, clips, folds) for fit in fits], axis=0)
    return {
        "metric": task.metric,
        **mean_and_interval(repeat_scores(details["scores"])),
        "chance": chance(clips.labels[tested], clips.observed[tested], task.metric),
        "protocol": protocol(task.num_folds),
        "num_repeats": len(details["scores"]),
        "heard": heard_of(clips, folds),
        "folds": details["scores"],
        "per_class": dict(zip(task.classes, details["per_class"], strict=True)),
        "calibration_error": {"before": float(before), "after": float(after)},
    }


def calibration_errors(fit: Fit, clips: EmbeddedClips, folds: Sequence[Fold]) -> tuple[float, float]:
    """Of a fit's test clips, before and after the temperature of its validation clips."""
    multi_label = clips.task.multi_label
    validation, test = (truth_of([fit], clips, folds, part) for part in ("validation", "test"))
    found = best_temperature(fit.validation_logits, *validation, multi_label=multi_label)

    def error(temperature: float) -> float:
        probabilities = probabilities_of(fit.test_logits, temperature, multi_label=multi_label)
        return calibration_error(probabilities, *test, multi_label=multi_label)

    return error(1.0), error(found)


def num_epochs_of(fits: Sequence[Fit]) -> int:
    """Median of the best epochs."""
    return max(1, round(float(np.median([fit.best_epoch for fit in fits]))))
