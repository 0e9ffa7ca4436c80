import math

import pytest
import torch
from torch import nn

from matpac.model.patches import Patches, sine_cosine


def test_patches_are_frequency_major_cells_of_16_by_16():
    patches = Patches(num_mels=32, num_frames=48, dim=256)
    nn.init.eye_(patches.projection.weight)
    nn.init.zeros_(patches.projection.bias)
    log_mel = torch.randn(1, 32, 48)
    cell = patches(log_mel)[0, 1 * 3 + 2] - patches.positions[1 * 3 + 2]
    torch.testing.assert_close(cell, log_mel[0, 16:32, 32:48].flatten())


def test_a_shorter_input_keeps_the_positions_of_its_cells():
    patches = Patches(num_mels=32, num_frames=48, dim=8)
    log_mel = torch.randn(1, 32, 48)
    whole = patches(log_mel).unflatten(1, (2, 3))
    torch.testing.assert_close(patches(log_mel[:, :, :16]).unflatten(1, (2, 1)), whole[:, :, :1])


def test_the_cls_token_comes_first_and_has_no_position():
    patches = Patches(num_mels=16, num_frames=16, dim=8)
    nn.init.constant_(patches.cls_token, 7.0)
    assert patches.with_cls(torch.zeros(2, 1, 8))[:, 0].eq(7).all()


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
