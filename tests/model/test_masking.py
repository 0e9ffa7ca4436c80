import torch

from matpac.model.masking import random_split, split_by, take


def test_every_patch_is_on_exactly_one_side(generator):
    split = random_split(4, 190, 0.7, generator)
    assert split.visible.shape == (4, 57)
    assert split.masked.shape == (4, 133)
    both = torch.cat(split, dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(190).expand(4, -1))


def test_clips_of_a_batch_draw_different_splits(generator):
    visible = random_split(2, 190, 0.7, generator).visible
    assert set(visible[0].tolist()) != set(visible[1].tolist())


def test_the_patches_of_lowest_noise_stay_visible():
    split = split_by(torch.tensor([[0.9, 0.1, 0.5, 0.3]]), mask_ratio=0.5)
    assert split.visible.tolist() == [[1, 3]]
    assert split.masked.tolist() == [[2, 0]]


def test_take_picks_the_named_tokens():
    tokens = torch.arange(6.0).reshape(1, 3, 2)
    assert take(tokens, torch.tensor([[2, 0]])).tolist() == [[[4.0, 5.0], [0.0, 1.0]]]
