"""Events from probabilities that are written by hand."""

import numpy as np

from matpac.classifier.events import Event, events_of, smoothed

PROBABILITIES = np.array([[0.1, 0.9], [0.6, 0.7], [0.8, 0.2], [0.2, 0.1], [0.6, 0.55]])
HOW = {"classes": ("a", "b"), "thresholds": np.array([0.5, 0.5]), "step_s": 0.5, "duration_s": 2.25}


def test_runs_at_or_above_the_threshold_become_events_that_end_with_the_clip():
    assert events_of(PROBABILITIES, multi_label=True, **HOW) == [
        Event("b", 0.0, 1.0, 0.9),
        Event("a", 0.5, 1.5, 0.8),
        Event("a", 2.0, 2.25, 0.6),
        Event("b", 2.0, 2.25, 0.55),
    ]


def test_one_class_at_a_time_if_clips_have_one():
    assert events_of(PROBABILITIES, multi_label=False, **HOW) == [
        Event("b", 0.0, 1.0, 0.9),
        Event("a", 1.0, 1.5, 0.8),
        Event("a", 2.0, 2.25, 0.6),
    ]


def test_smoothing_averages_the_neighbors_that_are_there():
    logits = np.array([[1.0], [3.0], [8.0]], dtype=np.float32)
    assert smoothed(logits, 1).tolist() == [[2.0], [4.0], [5.5]]
    assert smoothed(logits, 0) is logits
