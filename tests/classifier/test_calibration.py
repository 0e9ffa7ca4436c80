"""Temperature, thresholds and calibration errors on logits whose truth is known."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from matpac.classifier.calibration import (
    best_threshold,
    calibrated,
    calibration_error,
    probabilities_of,
)


def drawn(logits, *, multi_label, seed=1):
    """Labels that are right with the probabilities of the logits."""
    random = np.random.default_rng(seed)
    if multi_label:
        return (random.random(logits.shape) < expit(logits)).astype(np.uint8)
    cumulative = softmax(logits, axis=1).cumsum(1)
    return np.eye(logits.shape[1], dtype=np.uint8)[(random.random((len(logits), 1)) > cumulative).sum(1)]


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_temperature_that_was_put_in_is_found_and_makes_probabilities_true(multi_label):
    logits = np.random.default_rng(0).normal(scale=2, size=(20_000, 4)).astype(np.float32)
    labels, observed = drawn(logits, multi_label=multi_label), np.ones(logits.shape, dtype=np.uint8)
    found = calibrated(3 * logits, labels, observed, multi_label=multi_label)
    assert found.temperature == pytest.approx(3, rel=0.05)
    before, after = (
        calibration_error(
            probabilities_of(3 * logits, temperature, multi_label=multi_label),
            labels,
            observed,
            multi_label=multi_label,
        )
        for temperature in (1.0, found.temperature)
    )
    assert after < 0.015 < 0.05 < before


def test_entries_that_were_not_observed_have_no_influence():
    logits = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    labels = drawn(logits, multi_label=True)
    observed = (np.random.default_rng(2).random(labels.shape) < 0.6).astype(np.uint8)
    found = [
        calibrated(logits, np.where(observed, labels, other).astype(np.uint8), observed, multi_label=True)
        for other in (0, 1)
    ]
    assert found[0].temperature == found[1].temperature
    np.testing.assert_array_equal(found[0].thresholds, found[1].thresholds)


def test_the_threshold_has_the_best_f1_of_all():
    random = np.random.default_rng(0)
    for _ in range(20):
        probabilities = random.integers(0, 12, 40) / 12
        truth = (random.random(40) < probabilities).astype(np.uint8)
        threshold = best_threshold(probabilities, truth)

        def f1(limit, heard=probabilities, truth=truth):
            said = heard >= limit
            return 2 * (said & (truth == 1)).sum() / max(said.sum() + truth.sum(), 1)

        assert f1(threshold) == max(f1(limit) for limit in np.linspace(0, 1, 101))


def test_classes_that_no_or_every_clip_has_get_one_half():
    assert best_threshold(np.array([0.2, 0.9]), np.array([0, 0], dtype=np.uint8)) == 0.5
    assert best_threshold(np.array([0.2, 0.9]), np.array([1, 1], dtype=np.uint8)) == 0.5


def test_calibration_errors_by_hand():
    labels = np.array([[1, 0], [0, 1]], dtype=np.uint8)
    # Both are sure to 0.9, and one is right: in one bin, 0.9 is said and 0.5 is true.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]], dtype=np.float32)
    ones = np.ones_like(labels)
    assert calibration_error(probabilities, labels, ones, multi_label=False) == pytest.approx(0.4)
    # Of the four entries, those of 0.1 are true in half of the cases, too.
    assert calibration_error(probabilities, labels, ones, multi_label=True) == pytest.approx(0.4)
