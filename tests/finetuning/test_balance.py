import numpy as np
import pytest

from matpac.finetuning.balance import class_weights, draw_weights

RARE = np.eye(3, dtype=np.uint8)[[0, 0, 0, 1]]
"""Three clips of one class, one of another, none of the third."""


def test_clips_of_all_classes_weigh_the_same_in_sum():
    weights = class_weights(RARE, np.ones_like(RARE), multi_label=False)
    assert weights.tolist() == pytest.approx([4 / 3 / 2, 4 / 2, 1])
    assert (RARE @ weights).mean() == pytest.approx(1)


def test_positives_weigh_as_much_as_the_negatives_that_were_observed():
    observed = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 1, 1]], dtype=np.uint8)
    weights = class_weights(RARE * observed, observed, multi_label=True)
    # The first class has three positives and no negative, the third no positive.
    assert weights.tolist() == pytest.approx([1, 2 / 1, 1])


def test_all_classes_are_drawn_as_often():
    probabilities = draw_weights(RARE)
    assert probabilities.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    without = draw_weights(np.vstack([RARE, np.zeros((1, 3), dtype=np.uint8)]))
    assert without[4] == pytest.approx(without[0])
    assert without.sum() == pytest.approx(1)
