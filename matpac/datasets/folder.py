"""folder: your own recordings, any tree of audio files, read where they are.

labels: none      No labels: for pre-training.
labels: folders   The innermost folder is the class: `dog/a.wav`, `park/dog/a.wav`. Where the outermost
                  one is called train, validation (valid, val, dev) or test, it is the split.
labels: <file>    A CSV table, looked for in the source and then from the project's folder, with the
                  columns `path` (relative to the source) and `label` (several labels: `a;b`, where
                  multi_label is set), and if you like `split`, `fold` and `group` (clips of one group,
                  of one speaker say, stay together when folds are dealt).

Recordings without a label (outside every folder, not in the table) have no split and no fold: they
serve pre-training and take no part in probing. In a multi-label table a row with an empty label is a
clip on which nothing was heard, and does take part.

Where no split and no fold is given, the labelled clips are dealt into `num_folds` folds: every class
spread evenly, groups kept whole, the same way every time. One label per clip is scored by accuracy,
several by the mean average precision.
"""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from matpac.datasets.clip import Clip, SplitName, Task, path_safe_id
from matpac.params import Folder

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
NUM_SHOWN = 3
"""Wrong rows or files that an error names; one who needs more can look."""


def fetch(params: Folder, root: Path, report: Callable[[int, int], None] | None) -> None:
    """Nothing: the recordings are read where they are."""


def label_table(params: Folder, root: Path) -> Path | None:
    """The CSV file that the labels come from, if they do. Raises ValueError where it is missing."""
    if params.labels in ("none", "folders"):
        return None
    for path in (root / params.labels, Path(params.labels).expanduser()):
        if path.is_file():
            return path
    raise ValueError(
        f"labels: need `none`, `folders` or a CSV file in {root} or here, found no {params.labels}"
    )


def clips(params: Folder, root: Path, paths: Sequence[str]) -> Iterator[Clip]:
    table = label_table(params, root)
    if table is not None:
        annotations = _from_table(table, paths, multi_label=params.multi_label)
    elif params.labels == "folders":
        annotations = _from_folders(paths)
    else:
        annotations = {}
    if annotations:
        annotations = _with_folds(annotations, params.num_folds, root)
    for path in paths:
        yield Clip(path_safe_id(path), path, *annotations.get(path, Annotation()))


def task(params: Folder, clips: Sequence[Clip]) -> Task | None:
    if params.labels == "none":
        return None
    classes = sorted({label for clip in clips for label in clip.labels})
    if len(classes) < 2:
        raise ValueError(f"labels: need at least two classes, found {len(classes)} ({', '.join(classes)})")
    folds = [clip.fold for clip in clips if clip.fold is not None]
    return Task(
        tuple(classes),
        multi_label=params.multi_label,
        metric="mAP" if params.multi_label else "accuracy",
        num_folds=max(folds) if folds else None,
    )


class Annotation(NamedTuple):
    """What is known of a recording; in the order of Clip's fields."""

    labels: tuple[str, ...] = ()
    split: SplitName | None = None
    fold: int | None = None
    group: str | None = None


def _from_folders(paths: Sequence[str]) -> dict[str, Annotation]:
    annotations = {}
    for path in paths:
        folders = PurePosixPath(path).parts[:-1]
        split = SPLITS.get(folders[0].lower()) if folders else None
        if len(folders) > (split is not None):
            annotations[path] = Annotation((folders[-1],), split)
    if not annotations:
        raise ValueError("labels: folders: need recordings in folders named by class, found none")
    return annotations


def _from_table(table: Path, paths: Sequence[str], *, multi_label: bool) -> dict[str, Annotation]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if not {"path", "label"} <= set(columns):
            raise ValueError(
                f"{table}: need columns path and label (and perhaps split, fold, group), "
                f"found {', '.join(columns) or 'nothing'}"
            )
        rows = [(reader.line_num, row) for row in reader]

    recordings = set(paths)
    annotations: dict[str, Annotation] = {}
    missing = []
    for line, row in rows:
        where = f"{table}, line {line}"
        path = PurePosixPath((row["path"] or "").strip()).as_posix()
        if path in annotations:
            raise ValueError(f"{where}: need one row per recording, found {path} again")
        if path not in recordings:
            missing.append(f"{path} (line {line})")
        annotations[path] = _annotation(row, where, multi_label=multi_label)
    if missing:
        raise ValueError(
            f"{table}: need rows that name recordings of the source, found {len(missing)} that do "
            f"not: {', '.join(missing[:NUM_SHOWN])}{' ...' if len(missing) > NUM_SHOWN else ''}"
        )
    return annotations


def _annotation(row: Mapping[str, str | None], where: str, *, multi_label: bool) -> Annotation:
    label, split, fold, group = (
        (row.get(column) or "").strip() for column in ("label", "split", "fold", "group")
    )
    labels = tuple(filter(None, map(str.strip, label.split(";")))) if multi_label else (label,)
    if not multi_label and not label:
        raise ValueError(f"{where}: need a label, found none")
    if split and split.lower() not in SPLITS:
        raise ValueError(f"{where}: split: need train, validation or test, got {split}")
    if fold and not fold.isdecimal():
        raise ValueError(f"{where}: fold: need a whole number, got {fold}")
    if split and fold:
        raise ValueError(f"{where}: need a split or a fold, got both")
    return Annotation(
        labels,
        SPLITS[split.lower()] if split else None,
        int(fold) if fold else None,
        group or None,
    )


def _with_folds(
    annotations: Mapping[str, Annotation], num_folds: int | None, root: Path
) -> dict[str, Annotation]:
    """Check the given splits or folds, or deal folds where there are none."""
    splits = Counter(annotation.split for annotation in annotations.values())
    folds = Counter(annotation.fold for annotation in annotations.values())
    if set(splits) == {None} and set(folds) == {None}:
        if num_folds is None:
            raise ValueError(f"{root}: need num_folds in params.yaml, since the labels come without a split")
        return deal_folds(annotations, num_folds)
    if set(folds) == {None}:
        if set(splits) != set(SPLITS.values()):
            found = ", ".join(f"{splits[split]} {split or 'without'}" for split in splits)
            raise ValueError(
                f"{root}: need train, validation and test clips, and each labelled clip in one of "
                f"them, found {found}"
            )
        return dict(annotations)
    if None in folds or len(folds) < 3:
        raise ValueError(
            f"{root}: need each labelled clip in one of at least 3 folds, found "
            f"{len(set(folds) - {None})} folds, and {folds[None]} clips in none"
        )
    given = sorted(fold for fold in folds if fold is not None)
    return {
        path: annotation._replace(fold=1 + given.index(annotation.fold or 0))
        for path, annotation in annotations.items()
    }


def deal_folds(annotations: Mapping[str, Annotation], num_folds: int) -> dict[str, Annotation]:
    """Deal groups, the largest first, each to the fold that has least of its labels so far."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path, annotation in annotations.items():
        groups[f"group {annotation.group}" if annotation.group else f"path {path}"].append(path)

    def order(group: str) -> tuple[int, str]:
        # Not by name: neighbours of a numbered series are often alike.
        return -len(groups[group]), hashlib.sha256(group.encode()).hexdigest()

    num_dealt = [Counter[str]() for _ in range(num_folds)]
    sizes = [0] * num_folds
    dealt: dict[str, Annotation] = {}
    for group in sorted(groups, key=order):
        labels = [label for path in groups[group] for label in annotations[path].labels]
        fold = min(
            range(num_folds),
            key=lambda number: (sum(num_dealt[number][label] for label in labels), sizes[number]),
        )
        num_dealt[fold].update(labels)
        sizes[fold] += len(groups[group])
        dealt |= {path: annotations[path]._replace(fold=fold + 1) for path in groups[group]}
    return dealt
