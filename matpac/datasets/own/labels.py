"""What the kinds of own data (folder, tar, parquet) have in common: labels, splits and the task.

A clip's annotation is its label (several, where `multi_label` is set: a list, or `a;b`), and if you like a
`split` (train, validation or test), a `fold` or a `group`: clips of one group, of one speaker say, stay
together when clips are dealt.

Recordings without a label have no split and no fold: they serve pre-training and take no part in probing.
In a multi-label dataset an empty label says that nothing was heard, and does take part.

Where no split and no fold is given, the labelled clips are dealt into `num_folds` folds, or by
`split_fractions` into train, validation and test: every class spread evenly, groups kept whole, copies of a
recording that have no group kept together, the same way every time. One label per clip is scored by accuracy,
several by the mean average precision.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matpac.clip import Clip, SplitName, Task, path_safe_id
from matpac.datasets.inventory import Recording
from matpac.datasets.own.split import Splitter
from matpac.params import Folder, Own, Parquet, SplitFractions, Tar

SPLITS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
PARTS: tuple[SplitName, ...] = ("train", "validation", "test")


class Annotation(NamedTuple):
    """What is known of a recording; in the order of Clip's fields."""

    labels: tuple[str, ...] = ()
    split: SplitName | None = None
    fold: int | None = None
    group: str | None = None


Annotate = Callable[[Recording], Annotation | None]
"""None for a recording without a label."""
Settle = Callable[[int, Annotation], Annotation]
"""From the number of a labelled clip and what is said about it: its final split or fold."""


def annotated_clips(
    params: Folder | Tar | Parquet,
    root: Path,
    recordings: Iterable[Recording],
    annotate: Annotate | None,
) -> Iterator[Clip]:
    """A clip for every recording, in their order; `annotate` is None where there are no labels.

    Goes through the recordings twice where there are. Raises ValueError where splits or folds are
    incomplete, or missing without a way to deal them.
    """
    if annotate is None:
        yield from (Clip(path_safe_id(recording.path), recording.path) for recording in recordings)
        return
    settle = _settled(params, root, recordings, annotate)
    num_labelled = 0
    for recording in recordings:
        annotation = annotate(recording)
        if annotation is None:
            yield Clip(path_safe_id(recording.path), recording.path)
        else:
            yield Clip(path_safe_id(recording.path), recording.path, *settle(num_labelled, annotation))
            num_labelled += 1


def task(
    params: Folder | Tar | Parquet, root: Path, labels: Collection[str], num_folds: int | None
) -> Task | None:
    """The classes are the labels that occur, sorted."""
    if params.labels == "none":
        return None
    classes = sorted(labels)
    if len(classes) < 2:
        raise ValueError(
            f"{root}: labels: need at least two classes, found {len(classes)} ({', '.join(classes)})"
        )
    return Task(
        classes=tuple(classes),
        multi_label=params.multi_label,
        metric="mAP" if params.multi_label else "accuracy",
        num_folds=num_folds,
    )


def annotation_of(values: Mapping[str, Any], label: str, where: str, *, multi_label: bool) -> Annotation:
    """From values as a table or JSON holds them; `label` is the key of the label or labels.

    Raises ValueError, which begins with `where`.
    """
    labels = _labels(values.get(label), where, multi_label=multi_label)
    split, fold, group = (_text(values.get(key)) for key in ("split", "fold", "group"))
    if split and split.lower() not in SPLITS:
        raise ValueError(f"{where}: split: need train, validation or test, got {split}")
    if fold and not (fold.isascii() and fold.isdecimal()):
        raise ValueError(f"{where}: fold: need a whole number, got {fold}")
    if split and fold:
        raise ValueError(f"{where}: need a split or a fold, got both")
    return Annotation(
        labels, SPLITS[split.lower()] if split else None, int(fold) if fold else None, group or None
    )


def annotate_from_about(labels: str, *, multi_label: bool) -> Annotate | None:
    """From what a container says about a recording, where `labels` is the key; None for `none`."""
    if labels == "none":
        return None

    def annotate(recording: Recording) -> Annotation | None:
        if not recording.about:
            return None
        where = recording.path
        try:
            values = json.loads(recording.about)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: need JSON about the recording, found none ({error})") from None
        if not isinstance(values, dict):
            raise ValueError(  # noqa: TRY004 - a value from outside
                f"{where}: need a JSON object about the recording, found {recording.about:.40}"
            )
        if values.get(labels) is None:
            return None
        return annotation_of(values, labels, where, multi_label=multi_label)

    return annotate


def _labels(value: Any, where: str, *, multi_label: bool) -> tuple[str, ...]:  # noqa: ANN401 - of a table
    if isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - a value from outside
            f"{where}: label: need a text, a number or a list of them, got {value}"
        )
    if isinstance(value, list):
        texts = [_text(item) for item in value]
    else:
        texts = _text(value).split(";") if multi_label else [_text(value)]
    labels = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not multi_label and len(labels) != 1:
        found = f"{len(labels)}: set multi_label" if labels else "none"
        raise ValueError(f"{where}: need a label, found {found}")
    return labels


def _text(value: Any) -> str:  # noqa: ANN401 - whatever a table holds
    """Whole numbers that a table keeps as floats, since others of the column are missing, get no point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _settled(
    params: Folder | Tar | Parquet, root: Path, recordings: Iterable[Recording], annotate: Annotate
) -> Settle:
    """Check the given splits or folds, or deal where there are none."""
    splits, folds = Counter[SplitName | None](), Counter[int | None]()
    splitter = Splitter()
    for recording in recordings:
        annotation = annotate(recording)
        if annotation is not None:
            splits[annotation.split] += 1
            folds[annotation.fold] += 1
            splitter.add(recording, annotation.labels, annotation.group)
    if len(splitter) == 0:
        about = next(recording.about for recording in recordings)
        found = f"none; the first one has {about:.200}" if about else "none"
        raise ValueError(f"{root}: labels: {params.labels}: need recordings with a label, found {found}")
    if set(splits) == {None} and set(folds) == {None}:
        return _dealt(params, root, splitter)
    if set(folds) == {None}:
        if set(splits) != set(PARTS):
            found = ", ".join(f"{splits[split]} {split or 'without'}" for split in splits)
            raise ValueError(
                f"{root}: need train, validation and test clips, and each labelled clip in one of "
                f"them, found {found}"
            )
        return lambda number, annotation: annotation
    if None in folds or len(folds) < 3:
        raise ValueError(
            f"{root}: need each labelled clip in one of at least 3 folds, found "
            f"{len(set(folds) - {None})} folds, and {folds[None]} clips in none"
        )
    given = sorted(fold for fold in folds if fold is not None)
    return lambda number, annotation: annotation._replace(fold=1 + given.index(annotation.fold or 0))


def _dealt(params: Own, root: Path, splitter: Splitter) -> Settle:
    match params:
        case Own(num_folds=int(num_folds)):
            fold_of_clip = splitter.split([1] * num_folds)
            if (found := len(set(fold_of_clip.tolist()))) < num_folds:
                raise ValueError(
                    f"{root}: num_folds: need {num_folds} groups of labelled clips at least, found {found}. "
                    "Groups are kept whole: take fewer folds."
                )
            return lambda number, annotation: annotation._replace(fold=int(fold_of_clip[number]) + 1)
        case Own(split_fractions=SplitFractions(validation=validation, test=test)):
            part_of_clip = splitter.split([1 - validation - test, validation, test])
            return lambda number, annotation: annotation._replace(split=PARTS[part_of_clip[number]])
    raise ValueError(
        f"{root}: need num_folds or split_fractions in params.yaml, since the labels come without a split"
    )
