import random
from fractions import Fraction

import numpy as np
import pytest

from matpac.shards import statistics as module
from matpac.shards.statistics import Statistics, combined, statistics_of


def test_mean_and_deviation_by_hand():
    statistics = statistics_of(np.array([[1.0, 3.0], [5.0, 7.0]], dtype=np.float16))
    assert statistics.mean == 4
    assert statistics.std == pytest.approx(5**0.5)


def test_the_order_of_the_parts_changes_nothing():
    generator = np.random.default_rng(0)
    parts = [statistics_of(generator.normal(-7, 4, (50, 16)).astype(np.float16)) for _ in range(99)]
    whole = combined(parts)
    random.Random(0).shuffle(parts)
    assert combined(parts) == whole
    exact = sum(Fraction(part.sum) for part in parts)
    assert whole.sum == float(exact)


def test_parts_of_a_mixture_weigh_what_they_hold():
    assert combined([Statistics(1, 2.0, 4.0), Statistics(3, 0.0, 0.0)]).mean == 0.5


def test_silence_has_no_deviation():
    assert statistics_of(np.full((999, 16), -15.94, dtype=np.float16)).std == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("num_frames", [1, 63, 1_000, 12_345])
def test_long_recordings_have_the_sums_of_the_whole(num_frames, monkeypatch):
    """The sums are in the records of shards, to the last bit."""
    log_mel = np.random.default_rng(0).normal(-7, 4, (num_frames, 16)).astype(np.float16)
    values = log_mel.astype(np.float64)
    for at_once in (128, 1_000, 2**22):
        monkeypatch.setattr(module, "VALUES_AT_ONCE", at_once)
        found = statistics_of(log_mel)
        assert (found.sum, found.sum_of_squares) == (values.sum(), np.square(values).sum())
