import numpy as np
import pytest

from matpac.clip import Task
from matpac.probing.folds import folds_of, scored_classes
from matpac.probing.store import EmbeddedClips


def single_label(*, splits=None, folds=None, num_folds=None, classes=(0, 1, 0, 1, 0)):
    return EmbeddedClips(
        dataset="toy",
        checkpoint="",
        task=Task(classes=("a", "b"), multi_label=False, metric="accuracy", num_folds=num_folds),
        ids=[f"clip{index}" for index in range(5)],
        splits=splits or [""] * 5,
        folds=np.array(folds or [0] * 5),
        labels=np.eye(2, dtype=np.uint8)[list(classes)],
        observed=np.ones((5, 2), dtype=np.uint8),
    )


def test_splits_are_one_fold_and_clips_outside_are_left_alone():
    [fold] = folds_of(single_label(splits=["test", "train", "", "validation", "train"]))
    assert [part.tolist() for part in fold] == [[1, 4], [3], [0]]


def test_each_fold_is_tested_once_and_the_next_one_validates():
    folds = folds_of(single_label(folds=[1, 2, 3, 4, 0], num_folds=4))
    assert [fold.test.tolist() for fold in folds] == [[0], [1], [2], [3]]
    assert [fold.validation.tolist() for fold in folds] == [[1], [2], [3], [0]]
    assert [fold.train.tolist() for fold in folds] == [[2, 3], [0, 3], [0, 1], [1, 2]]


def test_a_dataset_without_validation_clips_cannot_be_probed():
    with pytest.raises(ValueError, match=r"^toy: need clips in the validation split, found none"):
        folds_of(single_label(splits=["test", "train", "train", "train", "train"]))


def test_a_missing_fold_is_named():
    with pytest.raises(ValueError, match="need clips in the validation part of fold 2, found none"):
        folds_of(single_label(folds=[1, 2, 1, 2, 4], num_folds=4))


def test_a_clip_without_a_label_is_refused_in_a_single_label_task():
    embeddings = single_label(folds=[1, 2, 3, 3, 3], num_folds=3)
    embeddings.labels[3] = 0
    with pytest.raises(ValueError, match=r"exactly one label per clip .*, got 0 for clip3"):
        folds_of(embeddings)


def test_so_is_one_of_the_first_fold_which_trains_others_even_if_it_is_not_scored():
    embeddings = single_label(folds=[1, 1, 2, 2, 3], num_folds=3, classes=(0, 1, 0, 1, 0))
    embeddings.labels[0] = 0
    with pytest.raises(ValueError, match=r"exactly one label per clip .*, got 0 for clip0"):
        folds_of(embeddings, "validation")


def test_a_single_label_task_needs_a_complete_annotation():
    embeddings = single_label(folds=[1, 2, 3, 3, 3], num_folds=3)
    embeddings.observed[2, 1] = 0
    with pytest.raises(ValueError, match=r"complete annotation in a single-label task, .* for clip2"):
        folds_of(embeddings)


def tags(labels, observed):
    """One clip for training, one for validation, three for testing."""
    return EmbeddedClips(
        dataset="toy",
        checkpoint="",
        task=Task(classes=("a", "b", "c", "d"), multi_label=True, metric="mAP", num_folds=None),
        ids=[f"clip{index}" for index in range(5)],
        splits=["train", "validation", "test", "test", "test"],
        folds=np.zeros(5, dtype=np.int64),
        labels=np.array(labels, dtype=np.uint8),
        observed=np.array(observed, dtype=np.uint8),
    )


def test_a_class_is_scored_if_observed_test_clips_have_it_and_others_do_not():
    # Test clips with the class: some for a, none for b, all for c, all that were observed for d.
    labels = [[0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0]]
    observed = [[1, 1, 1, 1]] * 4 + [[1, 1, 1, 0]]
    clips = tags(labels, observed)
    [fold] = folds_of(clips)
    assert scored_classes(clips, fold).tolist() == [True, False, False, False]
    clips.labels[2, 0] = 0
    with pytest.raises(ValueError, match="need a class that some test clips have and others do not"):
        folds_of(clips)


@pytest.mark.parametrize(("clip", "part"), [(0, "train"), (1, "validation"), (slice(2, 5), "test")])
def test_a_part_that_nobody_annotated_is_named(clip, part):
    observed = np.ones((5, 4))
    observed[clip] = 0
    with pytest.raises(ValueError, match=f"need observed labels in the {part} split, found none"):
        folds_of(tags(np.eye(5, 4) * observed, observed))


def test_scored_on_validation_clips_a_fold_holds_no_test_clip():
    splits = ["test", "train", "validation", "validation", "train"]
    [fold] = folds_of(single_label(splits=splits), "validation")
    assert [part.tolist() for part in fold] == [[1, 4], [2, 3], [2, 3]]
    folds = folds_of(single_label(folds=[1, 2, 3, 4, 0], num_folds=4), "validation")
    assert [fold.test.tolist() for fold in folds] == [[1], [2], [3], [0]]
    assert [fold.train.tolist() for fold in folds] == [[2, 3], [0, 3], [0, 1], [1, 2]]
