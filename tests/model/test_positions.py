import math

import pytest
import torch

from matpac.model.positions import sine_cosine


def test_first_half_encodes_time_and_second_half_frequency():
    table = sine_cosine(num_freq=2, num_time=3, dim=8)
    # Patch (f=1, t=2) is row 1 * 3 + 2; the frequencies of 8 / 4 = 2 sines are 1 and 10000^(-1/2).
    by_hand = [
        *(math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)),
        *(math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)),
    ]
    assert table[5].tolist() == pytest.approx(by_hand, abs=1e-6)


def test_a_longer_table_starts_with_the_shorter_one():
    short, long = sine_cosine(5, 7, 16), sine_cosine(5, 38, 16)
    assert torch.equal(long.unflatten(0, (5, 38))[:, :7], short.unflatten(0, (5, 7)))


def test_a_dimension_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        sine_cosine(5, 38, 6)
