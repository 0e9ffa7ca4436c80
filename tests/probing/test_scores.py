import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from matpac.files import write_json
from matpac.probing.scores import (
    DETAILS,
    average_precisions,
    chance,
    class_scores,
    confusion_matrix,
    mean_and_interval,
    score_table,
)


def test_average_precision_by_hand():
    # Ranked by score the labels are 1 0 1 0: precision 1/1 at the first hit, 2/3 at the second.
    logits = np.array([[4.0, 1.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0]])
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], dtype=np.uint8)
    first, second = average_precisions(logits, labels, np.ones_like(labels))
    assert first == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert math.isnan(second), "no clip has the second class"
    labels[:, 1] = 1
    assert math.isnan(average_precisions(logits, labels, np.ones_like(labels))[1]), "all clips have it"


def test_average_precision_ignores_clips_that_were_not_observed():
    # Without the second clip the labels are 1 1 0 when ranked.
    logits = np.array([[4.0], [3.0], [2.0], [1.0]])
    labels, observed = np.array([[[1], [0], [1], [0]], [[1], [0], [1], [1]]], dtype=np.uint8)
    assert average_precisions(logits, labels, observed) == pytest.approx([1.0])


def test_average_precision_is_that_of_weighted_clips_in_scikit_learn():
    random = np.random.default_rng(0)
    labels = (random.random((300, 12)) < 0.3).astype(np.uint8)
    # Rounded to one decimal, so that there are ties.
    logits = (labels + random.normal(size=labels.shape)).round(1)
    observed = (random.random(labels.shape) < np.linspace(0.05, 1, 12)).astype(np.uint8)
    expected = [
        average_precision_score(truth, score, sample_weight=seen)
        for truth, score, seen in zip(labels.T, logits.T, observed.T, strict=True)
    ]
    known = labels * observed
    assert average_precisions(logits, known, observed) == pytest.approx(expected, rel=1e-12)


def test_confusion_matrix_has_true_classes_in_rows():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 2.0, 0.0]])
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.uint8)
    confusion = confusion_matrix(logits, labels)
    assert confusion.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert class_scores(confusion) == pytest.approx([0.5, 0.0, math.nan], nan_ok=True)


def test_interval_of_five_known_numbers():
    # Mean 3, standard deviation sqrt(2.5); Student's t for 4 degrees of freedom is 2.776445.
    score = mean_and_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert score["mean"] == 3
    assert score["interval"] == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)


def test_chance_is_the_most_frequent_class_or_the_share_of_positives():
    labels = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.uint8)
    observed = np.ones_like(labels)
    assert chance(labels, observed, "accuracy") == 0.75
    assert chance(labels, observed, "mAP") == pytest.approx((0.75 + 0.25) / 2)
    observed[2:, 1] = [0, 1]
    assert chance(labels, observed, "mAP") == pytest.approx((3 / 4 + 1 / 3) / 2)


def test_a_star_means_the_same_in_both_tables_of_the_terminal(tmp_path):
    # The gain's interval excludes 0, though the intervals of the scores touch.
    score = {"interval": 0.02, "mean": 0.5}
    summary = {
        "dataset": "notes",
        "metric": "accuracy",
        "chance": 0.5,
        "pretrained": score,
        "random_init": score | {"mean": 0.525},
        "logmel_statistics": score,
        "gain_over_random_init": {"mean": -0.025, "interval": 0.01},
        "others": {
            "ast": score | {"minus_encoder": {"mean": -0.025, "interval": 0.01}},
            "mert": score | {"minus_encoder": {"mean": -0.025, "interval": 0.03}},
        },
    }
    write_json(tmp_path / f"notes{DETAILS}", {"summary": summary})
    text = score_table(tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("notes")]
    assert [row.split("  ")[-1].strip() for row in rows] == ["-2.5 ± 1.0 *", "-2.5 ± 1.0 *", "-2.5 ± 3.0"]
    assert text.count("* if") == 1
    assert "Ahead of random init by more than both intervals: none." in text
