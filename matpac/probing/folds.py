"""splits or folds of a dataset -> clips that train a probe, stop it and test it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from matpac.params import ScoreOn
from matpac.probing.store import EmbeddedClips


class Fold(NamedTuple):
    """Indices of clips. `validation` decides when to stop; `test` is scored and decides nothing.

    With `probe.score_on: validation`, `test` holds the validation clips again.
    """

    train: Int64[np.ndarray, " train"]
    validation: Int64[np.ndarray, " validation"]
    test: Int64[np.ndarray, " test"]


def folds_of(clips: EmbeddedClips, score_on: ScoreOn = "test") -> list[Fold]:
    """One fold from the dataset's splits, or all K folds of a cross-validation.

    Clips without split or fold are not used. With `score_on: validation`, neither are a fold's test
    clips: the validation clips take their place. Raises ValueError if a part has no clips or observed
    labels, no class can be scored, or a clip of a single-label task has not exactly one label.
    """
    num_folds = clips.task.num_folds
    if num_folds is None:
        splits = np.array(clips.splits)
        parts = ("train", "validation", "test")
        folds = [Fold(*(np.flatnonzero(splits == part) for part in parts))]
    else:
        folds = [cross_validation_fold(clips.folds, test, num_folds) for test in range(1, num_folds + 1)]
    if score_on == "validation":
        folds = [fold._replace(test=fold.validation) for fold in folds]
    for number, fold in enumerate(folds, start=1):
        for part, indices in fold._asdict().items():
            name = f"the {part} {'split' if num_folds is None else f'part of fold {number}'}"
            if len(indices) == 0:
                raise ValueError(
                    f"{clips.dataset}: need clips in {name}, found none. "
                    f"Give it some, or take {clips.dataset} out of probe.datasets and finetune.datasets."
                )
            if not clips.observed[indices].any():
                raise ValueError(f"{clips.dataset}: need observed labels in {name}, found none")
        if not scored_classes(clips, fold).any():
            raise ValueError(
                f"{clips.dataset}: need a class that some {score_on} clips have and others do not, found none"
            )
    if not clips.task.multi_label:
        _check_one_label_each(clips, np.unique(np.concatenate([np.concatenate(fold) for fold in folds])))
    return folds


def scored_classes(clips: EmbeddedClips, fold: Fold) -> Bool[np.ndarray, " class"]:
    """Classes that enter the score of a fold.

    For accuracy the classes of its test clips. For mAP the classes that some observed test clip has
    and another has not: for all others average precision is undefined, or 1 for any answer.
    """
    labels, observed = clips.labels[fold.test], clips.observed[fold.test]
    if clips.task.metric == "accuracy":
        present: Bool[np.ndarray, " class"] = labels.any(0)
        return present
    return both_kinds(labels, observed)


def both_kinds(
    labels: UInt8[np.ndarray, "clip class"], observed: UInt8[np.ndarray, "clip class"]
) -> Bool[np.ndarray, " class"]:
    """Classes that some of the clips observed for them have, and some have not."""
    return np.logical_and(labels.any(0), (observed > labels).any(0))


def cross_validation_fold(folds: Int64[np.ndarray, " clip"], test: int, num_folds: int) -> Fold:
    """Test on one fold, validate on the next (the first after the last), train on the rest."""
    validation = test % num_folds + 1
    return Fold(
        train=np.flatnonzero((folds > 0) & (folds != test) & (folds != validation)),
        validation=np.flatnonzero(folds == validation),
        test=np.flatnonzero(folds == test),
    )


def _check_one_label_each(clips: EmbeddedClips, used: Int64[np.ndarray, " clip"]) -> None:
    num_labels = clips.labels[used].sum(axis=1)
    for clip, count in zip(used, num_labels, strict=True):
        if count != 1:
            raise ValueError(
                f"{clips.dataset}: need exactly one label per clip in a single-label task, "
                f"got {count} for {clips.ids[clip]}"
            )
        if not clips.observed[clip].all():
            raise ValueError(
                f"{clips.dataset}: need a complete annotation in a single-label task, "
                f"got one with unobserved classes for {clips.ids[clip]}"
            )
