import torch
from torch import nn

from matpac.model.patches import Patches


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
