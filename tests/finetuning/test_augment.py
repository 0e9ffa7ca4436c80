"""Mixup and SpecAugment by hand."""

import numpy as np
import pytest
import torch

from matpac.finetuning.augment import masked, mixed, spans
from matpac.finetuning.batches import Batch
from matpac.params import SpecAugment

MASKS = SpecAugment(num_freq_masks=1, max_freq_mels=3, num_time_masks=2, max_time_frames=4)


def test_labels_are_mixed_by_the_shares_of_the_sounds():
    labels = torch.eye(8)
    # The log-mel of a clip is its number plus 1, so mixed values tell the shares.
    log_mel = torch.arange(1.0, 9)[:, None, None].expand(8, 2, 5)
    lengths = torch.tensor([5, 4, 3, 2, 5, 4, 3, 2])
    found = mixed(Batch(log_mel, lengths, labels, torch.ones(8, 8)), 0.8, np.random.default_rng(0))
    torch.testing.assert_close(found.log_mel[:, 0, 0], found.labels @ torch.arange(1.0, 9))
    torch.testing.assert_close(found.labels.sum(1), torch.ones(8))
    assert ((found.labels > 0).sum(1) <= 2).all()
    assert ((found.labels > 0.01) & (found.labels < 0.99)).any()
    parts = found.labels > 0
    assert found.num_frames.tolist() == [int(lengths[of_clip].max()) for of_clip in parts]


def test_a_mixed_label_is_observed_if_it_is_in_both_clips():
    observed = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    batch = Batch(torch.zeros(2, 1, 1), torch.ones(2, dtype=torch.int64), torch.zeros(2, 2), observed)
    for seed in range(8):
        found = mixed(batch, 1.0, np.random.default_rng(seed)).observed
        assert found.tolist() in ([[1, 0], [1, 1]], [[1, 0], [1, 0]])


def test_masks_hide_whole_bands_and_moments_and_no_more_than_asked():
    log_mel = torch.ones(200, 12, 30)
    hidden = masked(log_mel, MASKS, -7.0, np.random.default_rng(0)) == -7
    bands, moments = hidden.all(2), hidden.all(1)
    torch.testing.assert_close(hidden, bands[:, :, None] | moments[:, None, :])
    assert bands.sum(1).max() == 3
    assert moments.sum(1).max() <= 8
    assert moments.sum(1).min() == 0
    assert bands.any(0).all()
    assert moments.any(0).all()
    assert (log_mel == 1).all()


@pytest.mark.parametrize("longest", [3, 50])
def test_a_span_is_one_piece_and_fits(longest):
    inside = spans(300, 10, longest, np.random.default_rng(1)).int()
    assert (inside.diff(dim=1, prepend=torch.zeros(300, 1)) == 1).sum(1).max() == 1
    assert sorted(inside.sum(1).unique().tolist()) == list(range(min(longest, 10) + 1))
