"""Splits or folds of a dataset -> which clips train a probe, which stop it, which test it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from matpac.probing.embeddings import EmbeddingSet


class Fold(NamedTuple):
    """Indices of clips. `validation` decides when to stop; nothing is ever decided on `test`."""

    train: Int64[np.ndarray, " train"]
    validation: Int64[np.ndarray, " validation"]
    test: Int64[np.ndarray, " test"]


def folds_of(embeddings: EmbeddingSet) -> list[Fold]:
    """One fold from the dataset's splits, or all K of a cross-validation.

    Clips outside every split and fold are not used. Raises ValueError where a part is empty, where
    no test clip has a label, or where a clip of a single-label task has not exactly one.
    """
    num_folds = embeddings.task.num_folds
    if num_folds is None:
        splits = np.array(embeddings.splits)
        parts = ("train", "validation", "test")
        folds = [Fold(*(np.flatnonzero(splits == part) for part in parts))]
    else:
        folds = [cross_validation_fold(embeddings.folds, test, num_folds) for test in range(1, num_folds + 1)]
    for number, fold in enumerate(folds, start=1):
        for part, indices in fold._asdict().items():
            if len(indices) == 0:
                where = "split" if num_folds is None else f"part of fold {number}"
                raise ValueError(f"{embeddings.dataset}: need clips in the {part} {where}, found none")
        if not embeddings.labels[fold.test].any():
            raise ValueError(f"{embeddings.dataset}: need labels on test clips, found none")
    if not embeddings.task.multi_label:
        _check_one_label_each(embeddings, np.concatenate(folds[0]))
    return folds


def cross_validation_fold(folds: Int64[np.ndarray, " clip"], test: int, num_folds: int) -> Fold:
    """Test on one fold, validate on the next (the first after the last), train on the rest."""
    validation = test % num_folds + 1
    return Fold(
        train=np.flatnonzero((folds > 0) & (folds != test) & (folds != validation)),
        validation=np.flatnonzero(folds == validation),
        test=np.flatnonzero(folds == test),
    )


def _check_one_label_each(embeddings: EmbeddingSet, used: Int64[np.ndarray, " clip"]) -> None:
    num_labels = embeddings.labels[used].sum(axis=1)
    for clip, count in zip(used, num_labels, strict=True):
        if count != 1:
            raise ValueError(
                f"{embeddings.dataset}: need exactly one label per clip in a single-label task, "
                f"got {count} for {embeddings.ids[clip]}"
            )
