import numpy as np
import pytest

from matpac.datasets.clip import Task
from matpac.probing.embeddings import EmbeddingSet
from matpac.probing.folds import folds_of


def single_label(*, splits=None, folds=None, num_folds=None, classes=(0, 1, 0, 1, 0)):
    return EmbeddingSet(
        dataset="toy",
        checkpoint="",
        task=Task(classes=("a", "b"), multi_label=False, metric="accuracy", num_folds=num_folds),
        ids=[f"clip{index}" for index in range(5)],
        splits=splits or [""] * 5,
        folds=np.array(folds or [0] * 5),
        labels=np.eye(2, dtype=np.uint8)[list(classes)],
        features={},
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
    with pytest.raises(ValueError, match="toy: need clips in the validation split, found none"):
        folds_of(single_label(splits=["test", "train", "train", "train", "train"]))


def test_a_missing_fold_is_named():
    with pytest.raises(ValueError, match="need clips in the validation part of fold 2, found none"):
        folds_of(single_label(folds=[1, 2, 1, 2, 4], num_folds=4))


def test_a_clip_without_a_label_is_refused_in_a_single_label_task():
    embeddings = single_label(folds=[1, 2, 3, 3, 3], num_folds=3)
    embeddings.labels[3] = 0
    with pytest.raises(ValueError, match=r"exactly one label per clip .*, got 0 for clip3"):
        folds_of(embeddings)
