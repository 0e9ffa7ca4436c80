import numpy as np
import pytest
import torch

from matpac.finetuning.batches import Batches, read_crops
from matpac.shards.crops import SILENCE

CPU = torch.device("cpu")


def batches_of(labelled, crop_frames=None, **options):
    return Batches(labelled, np.arange(3, 13), 4, crop_frames, (0, 1, 2), **options)


def test_an_epoch_has_every_training_clip_once_in_an_order_of_its_own(labelled):
    batches = batches_of(labelled)
    assert batches.per_epoch == 3
    epochs = [
        np.concatenate([batches.clips_of(update) for update in range(3 * e, 3 * e + 3)]) for e in (0, 1)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(3, 13))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()
    assert [len(batches.clips_of(update)) for update in range(3)] == [4, 4, 2]


def test_drawn_clips_follow_their_probabilities(labelled):
    only_one = np.eye(10)[4]
    batches = batches_of(labelled, probabilities=only_one)
    assert {int(clip) for update in range(3) for clip in batches.clips_of(update)} == {7}


def test_batches_do_not_depend_on_where_reading_begins(labelled):
    whole = list(batches_of(labelled, 40)(range(7), CPU))
    later = list(batches_of(labelled, 40)(range(5, 7), CPU))
    for one, other in zip(whole[5:], later, strict=True):
        for values, again in zip(one, other, strict=True):
            torch.testing.assert_close(values, again, rtol=0, atol=0)


def test_labels_stay_with_their_clips(labelled):
    batches = batches_of(labelled)
    for update, batch in enumerate(batches(range(3), CPU)):
        clips = batches.clips_of(update)
        assert batch.labels.tolist() == labelled.clips.labels[clips].tolist()
        for row, clip, length in zip(batch.log_mel, clips, batch.num_frames, strict=True):
            whole = torch.from_numpy(labelled.folder.read_clip(int(labelled.chosen[clip]))).float()
            assert row[:, :length].T.equal(whole)
            assert (row[:, length:] == float(SILENCE)).all()


@pytest.mark.parametrize("crop_frames", [40, 60, 500])
def test_a_crop_is_a_piece_of_its_clip_and_never_longer(labelled, crop_frames):
    clips = np.arange(12)
    found, lengths = read_crops(labelled.folder, clips, crop_frames, np.random.default_rng(0))
    whole = labelled.folder.index.num_frames[clips]
    assert lengths.tolist() == np.minimum(whole, crop_frames).tolist()
    starts = []
    for row, clip, length in zip(found.numpy(), clips, lengths.tolist(), strict=True):
        log_mel = labelled.folder.read_clip(int(clip))
        places = [
            s for s in range(len(log_mel) - length + 1) if (log_mel[s : s + length] == row[:length]).all()
        ]
        assert len(places) == 1
        starts += places
    assert (max(starts) > 0) == (crop_frames < whole.max())
