"""CSV or parquet table of labels -> annotations by path."""

import csv
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from matpac.clip import digest64
from matpac.datasets.inventory import Recording
from matpac.datasets.own.labels import Annotation, annotation_of

COLUMNS = ("path", "label", "split", "fold", "group")
NUM_SHOWN = 3
"""Most wrong rows that an error names."""


class Annotations:
    """Annotations by path, in 16 bytes each, since millions of rows stay in memory during the work.

    64 bits of a digest stand for a path. The chance that two of two million share them is 1 in
    10 million.
    """

    def __init__(self, rows: Iterable[tuple[str, Annotation]]) -> None:
        keys, labels, groups = array("Q"), array("I"), array("I")
        known_labels: dict[Annotation, int] = {}
        known_groups: dict[str | None, int] = {}
        for path, annotation in rows:
            keys.append(digest64(path))
            labels.append(known_labels.setdefault(annotation._replace(group=None), len(known_labels)))
            groups.append(known_groups.setdefault(annotation.group, len(known_groups)))
        order = np.argsort(keys)
        self._keys, self._labels, self._groups = (
            array(column.typecode, np.asarray(column)[order].tobytes()) for column in (keys, labels, groups)
        )
        self._known_labels, self._known_groups = list(known_labels), list(known_groups)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def has_duplicates(self) -> bool:
        return any(first == second for first, second in pairwise(self._keys))

    def get(self, path: str) -> Annotation | None:
        key = digest64(path)
        place = bisect_left(self._keys, key)
        if place == len(self) or self._keys[place] != key:
            return None
        group = self._known_groups[self._groups[place]]
        return self._known_labels[self._labels[place]]._replace(group=group)


def read_table(table: Path, recordings: Iterable[Recording], *, multi_label: bool) -> Annotations:
    """Annotations from a table in which every row names one recording, and no recording has two
    rows.

    Raises:
        ValueError: With the table and the line or row, if the table is anything else.
    """
    annotations = Annotations(
        (_path(row), annotation_of(row, "label", f"{table}, {where}", multi_label=multi_label))
        for where, row in _rows(table)
    )
    if annotations.has_duplicates:
        _refuse_duplicates(table)
    num_unused = len(annotations) - sum(
        annotations.get(recording.path) is not None for recording in recordings
    )
    if num_unused:
        paths = {recording.path for recording in recordings}
        unused = (f"{path} ({where})" for where, row in _rows(table) if (path := _path(row)) not in paths)
        raise ValueError(
            f"{table}: need rows that name recordings of the source, found {num_unused} that do "
            f"not: {', '.join(islice(unused, NUM_SHOWN))}{' ...' if num_unused > NUM_SHOWN else ''}"
        )
    return annotations


def _refuse_duplicates(table: Path) -> None:
    paths = set()
    for where, row in _rows(table):
        path = _path(row)
        if path in paths:
            raise ValueError(f"{table}, {where}: need one row per recording, found {path} again")
        paths.add(path)


def _path(row: dict[str, Any]) -> str:
    return PurePosixPath(str(row["path"] or "").strip()).as_posix()


def _rows(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place of each row in the table, and its values. Raises ValueError if damaged."""
    rows = _parquet_rows(table) if table.suffix.lower() == ".parquet" else _csv_rows(table)
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: need text in UTF-8, found {error.object[error.start :][:1]!r}") from None
    except (csv.Error, pa.ArrowException, OSError) as error:
        raise ValueError(f"{table}: cannot be read ({error})") from error


def _csv_rows(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        _check_columns(table, reader.fieldnames or [])
        for row in reader:
            yield f"line {reader.line_num}", row


def _parquet_rows(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with parquet.ParquetFile(table, pre_buffer=False) as file:
        names = file.schema_arrow.names
        _check_columns(table, names)
        number = 0
        for batch in file.iter_batches(columns=[name for name in COLUMNS if name in names]):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row


def _check_columns(table: Path, columns: Iterable[str]) -> None:
    if not {"path", "label"} <= set(columns):
        raise ValueError(
            f"{table}: need columns path and label (and perhaps split, fold, group), "
            f"found {', '.join(columns) or 'nothing'}"
        )
