"""Labels, splits and the task of own data, for all its kinds (folder, tar, parquet).

A clip's annotation is its label; with `multi_label`, it may have several: a list, or a text such as
`a;b`, `a|b` or `["a", "b"]`. It may also have a `split` (train, validation or test), a `fold` or a
`group`. Clips of one group, for example of one speaker, stay together when we make a split.

Recordings without a label have no split and no fold. They serve pre-training and take no part in
probing. In a multi-label dataset an empty label says that nothing was heard, and such a clip takes
part.

A split may also be the name of a folder, a tar or a parquet file (matpac/datasets/own/places.py).
With `splits: none`, whatever is given is ignored. If there are train and test clips and none for
validation, a share of train validates (`VALIDATING`).

If neither split nor fold is given, we divide the labelled clips into `num_folds` folds, or by
`split_fractions` into train, validation and test. Every class is spread evenly, and groups stay
whole. Copies of a recording without a group stay together. The result is the same every time.

One label per clip is scored by accuracy, several by mean average precision.
"""

import ast
import json
import math
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from matpac.clip import Clip, SplitName, Task, path_safe_id
from matpac.datasets.inventory import Recording
from matpac.datasets.own.doubts import parts_of, several_in_one
from matpac.datasets.own.places import SPLITS, names_above, places_of
from matpac.datasets.own.split import Splitter
from matpac.params import Folder, Own, Parquet, SplitFractions, Tar

VALIDATING = 0.15
"""Share of the train split that validates if only train and test are given."""
PARTS: tuple[SplitName, ...] = ("train", "validation", "test")


class Annotation(NamedTuple):
    """Facts about a recording, in the order of Clip's fields."""

    labels: tuple[str, ...] = ()
    split: SplitName | None = None
    fold: int | None = None
    group: str | None = None


Annotate = Callable[[Recording], Annotation | None]
"""Annotation of a recording; None if it has no label."""
Settle = Callable[[int, Annotation], Annotation]
"""(number of a labelled clip, its annotation) -> the annotation with the final split or fold."""


def annotated_clips(
    params: Folder | Tar | Parquet,
    root: Path,
    recordings: Iterable[Recording],
    annotate: Annotate | None,
) -> Iterator[Clip]:
    """A clip for every recording, in their order; `annotate` is None without labels.

    With labels the recordings are iterated several times: splits are looked for and settled first.

    Raises:
        ValueError: If splits or folds are incomplete, or missing without a way to make them.
    """
    if annotate is None:
        yield from (Clip(path_safe_id(recording.path), recording.path) for recording in recordings)
        return
    annotate = with_given_splits(params, root, recordings, annotate)
    settle = _settled(params, root, recordings, annotate)
    num_labelled = 0
    for recording in recordings:
        annotation = annotate(recording)
        if annotation is None:
            yield Clip(path_safe_id(recording.path), recording.path)
        else:
            yield Clip(path_safe_id(recording.path), recording.path, *settle(num_labelled, annotation))
            num_labelled += 1


def with_given_splits(
    params: Own, root: Path, recordings: Iterable[Recording], annotate: Annotate
) -> Annotate:
    """Add the splits that places name, if labels give neither split nor fold; take all away for
    `splits: none`."""
    if params.splits == "none":
        return lambda recording: _in_split(annotate(recording), None)
    if _gives_parts(recordings, annotate):
        return annotate
    places = places_of(str(root), recordings)
    if places is None or not places.tells:
        return annotate
    return lambda recording: _in_split(annotate(recording), places.split_of(recording))


def _in_split(annotation: Annotation | None, split: SplitName | None) -> Annotation | None:
    return annotation and annotation._replace(split=split, fold=None)


def _gives_parts(recordings: Iterable[Recording], annotate: Annotate) -> bool:
    annotations = (annotate(recording) for recording in recordings)
    return any(item is not None and (item.split or item.fold is not None) for item in annotations)


def choices_of(
    params: Folder | Tar | Parquet, root: Path, recordings: Iterable[Recording], annotate: Annotate | None
) -> tuple[str, ...]:
    """Lines that say where labels and splits come from, and which of it is a default.

    Raises:
        ValueError: As `annotated_clips` does.
    """
    if annotate is None:
        return (_said(params, "labels") + _labels_there(params, root, recordings),)
    said = _said(params, "labels"), _said(params, "multi_label"), _said(params, "splits")
    divided = f"so the labelled clips are divided: {_division(params)}"
    if params.splits == "none":
        return (*said, divided.removeprefix("so "))
    if _gives_parts(recordings, annotate):
        return (*said, "they come with the labels", *_validating(recordings, annotate))
    places = places_of(str(root), recordings)
    if places is None:
        return (*said, f"none found, {divided}")
    if not places.tells:
        return (*said, f"all recordings are in {places}, {divided}")
    told = with_given_splits(params, root, recordings, annotate)
    return (*said, f"the names of folders or files tell them: {places}", *_validating(recordings, told))


def _validating(recordings: Iterable[Recording], annotate: Annotate) -> list[str]:
    """A line if only train and test are given."""
    found = {item.split for item in map(annotate, recordings) if item is not None}
    return (
        [f"none for validation, so {VALIDATING:.0%} of train validates"] if found == {"train", "test"} else []
    )


def _labels_there(params: Folder | Tar | Parquet, root: Path, recordings: Iterable[Recording]) -> str:
    """What `labels` could name, for those who have not set it."""
    if "labels" in params.model_fields_set:
        return ""
    if not isinstance(params, Folder):
        first = next((recording.about for recording in recordings if recording.about), "{}")
        keys = ", ".join(json.loads(first)) if first.startswith("{") else ""
        return f"; what is told of the first clip: {keys}" if keys else ""
    names = {names_above(recording)[-1:] for recording in recordings} - {()}
    return f"; `folders` would make a class of each of {len(names):,} folders" if len(names) > 1 else ""


def _division(params: Own) -> str:
    if params.split_fractions is not None:
        validation, test = params.split_fractions.validation, params.split_fractions.test
        return f"{validation:g} for validation, {test:g} for test"
    return _said(params, "num_folds")


def _said(params: Own, key: str) -> str:
    value = getattr(params, key)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{key}: {text}" + ("" if key in params.model_fields_set else " (default)")


def task(
    params: Folder | Tar | Parquet, root: Path, labels: Collection[str], num_folds: int | None
) -> Task | None:
    """The task; its classes are the labels that occur, sorted."""
    if params.labels == "none":
        return None
    classes = sorted(labels)
    if len(classes) < 2:
        raise ValueError(
            f"{root}: labels: need at least two classes, found {len(classes)} ({', '.join(classes)})"
        )
    if params.multi_label and (found := several_in_one(classes)):
        written = ";".join(parts_of(found[0]))
        raise ValueError(
            f"{root}: labels: need labels separated by `;`, found {found[0]!r}, whose parts are labels too. "
            f"Write {written!r}; if it is one class, give it a name that is not made of others."
        )
    return Task(
        classes=tuple(classes),
        multi_label=params.multi_label,
        metric="mAP" if params.multi_label else "accuracy",
        num_folds=num_folds,
    )


def annotation_of(values: Mapping[str, Any], label: str, where: str, *, multi_label: bool) -> Annotation:
    """The annotation in values of a table or JSON; `label` is the key of the label or labels.

    Raises:
        ValueError: With a message that begins with `where`.
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
    """Annotate from the JSON about a recording, with `labels` as the key; None for `none`."""
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
        texts = _texts(_text(value), where, multi_label=multi_label)
    labels = tuple(dict.fromkeys(class_name(text) for text in texts if text.strip()))
    if not multi_label and len(labels) != 1:
        found = f"{len(labels)}: set multi_label" if labels else "none"
        raise ValueError(f"{where}: need a label, found {found}")
    return labels


def class_name(text: str) -> str:
    """The name of a class: letters are composed (NFC), since their other form looks the same."""
    return unicodedata.normalize("NFC", text.strip())


def _texts(text: str, where: str, *, multi_label: bool) -> list[str]:
    """The labels in a text: one, or a list in the notation of JSON, Python, `a;b` or `a|b`."""
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return [_text(item) for item in read(text)]
        if "," in text:
            raise ValueError(f'{where}: label: need a text or a list like ["dog", "cat"], got {text:.80}')
    separator = next((sign for sign in ";|" if multi_label and sign in text), None)
    return text.split(separator) if separator else [text]


def _text(value: Any) -> str:  # noqa: ANN401 - whatever a table holds
    """A value as text. Tables keep whole numbers as floats if some are missing: they get no
    point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _settled(
    params: Folder | Tar | Parquet, root: Path, recordings: Iterable[Recording], annotate: Annotate
) -> Settle:
    """Check the given splits or folds, or make them if there are none."""
    splits, folds = Counter[SplitName | None](), Counter[int | None]()
    splitter = Splitter(join_copies=params.join_copies)
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
        if params.splits == "given":
            raise ValueError(
                f"{root}: splits: given: need splits or folds in labels or folder names, found none. "
                "Set splits to auto, and we divide the labelled clips."
            )
        return _divided(params, root, splitter)
    ignore = "With `splits: none` all labelled clips are divided anew."
    if set(splits) != {None} and set(folds) != {None}:
        raise ValueError(
            f"{root}: need splits or folds, found {splits.total() - splits[None]:,} clips with a split and "
            f"{folds.total() - folds[None]:,} with a fold. Leave one of them out. {ignore}"
        )
    if set(folds) == {None}:
        if set(splits) == {"train", "test"}:
            return _with_validation(params, root, recordings, annotate)
        if set(splits) != set(PARTS):
            found = ", ".join(f"{splits[split]:,} {split or 'without a split'}" for split in splits)
            raise ValueError(
                f"{root}: need train and test clips (and perhaps validation), and each labelled clip in "
                f"one of them, found {found}. {ignore}"
            )
        return lambda number, annotation: annotation
    if None in folds or len(folds) < 3:
        raise ValueError(
            f"{root}: need each labelled clip in one of at least 3 folds, found "
            f"{len(set(folds) - {None})} folds, and {folds[None]:,} clips in none. {ignore}"
        )
    given = sorted(fold for fold in folds if fold is not None)
    return lambda number, annotation: annotation._replace(fold=1 + given.index(annotation.fold or 0))


def _with_validation(params: Own, root: Path, recordings: Iterable[Recording], annotate: Annotate) -> Settle:
    """Let a share of the train split validate, classes spread evenly and groups whole."""
    of_train, numbers, num_labelled = Splitter(join_copies=params.join_copies), array("Q"), 0
    for recording in recordings:
        annotation = annotate(recording)
        if annotation is not None:
            if annotation.split == "train":
                of_train.add(recording, annotation.labels, annotation.group)
                numbers.append(num_labelled)
            num_labelled += 1
    part_of_clip = of_train.split([1 - VALIDATING, VALIDATING])
    if len(set(part_of_clip.tolist())) < 2:
        raise ValueError(f"{root}: need two groups of train clips at least, one to validate, found one")
    validates = bytearray(num_labelled)
    for number, part in zip(numbers, part_of_clip.tolist(), strict=True):
        validates[number] = part
    return lambda number, annotation: (
        annotation._replace(split="validation") if validates[number] else annotation
    )


def _divided(params: Own, root: Path, splitter: Splitter) -> Settle:
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
