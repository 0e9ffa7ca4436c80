"""CSV, JSON Lines or parquet tables of labels -> annotations by path."""

import csv
import json
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from matpac.clip import digest64
from matpac.datasets.inventory import Recording
from matpac.datasets.own.labels import Annotation, annotation_of

PATHS = ("path", "file_name")
"""Columns that name the recording: relative to the source, or to the table's folder (as in Hugging
Face's `metadata.csv`)."""
COLUMNS = (*PATHS, "split", "fold", "group")
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


class Table:
    """A table of labels of the recordings below `root`, with the labels in the column `label`."""

    def __init__(self, path: Path, root: Path, label: str) -> None:
        self.path, self.label = path, label
        is_inside = path.resolve().is_relative_to(root.resolve())
        self.folder = path.resolve().parent.relative_to(root.resolve()) if is_inside else Path()
        """Folder of the table, relative to the source."""

    def rows(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Place of each row, the path in it and its values. Raises ValueError if damaged."""
        kinds = {".parquet": _parquet_rows, ".jsonl": _json_rows}
        rows = kinds.get(self.path.suffix.lower(), _csv_rows)
        try:
            for where, row in rows(self.path, self.label):
                folder, name = (Path(), row["path"]) if "path" in row else (self.folder, row["file_name"])
                path = PurePosixPath(folder, str(name or "").strip())
                yield f"{self.path}, {where}", path.as_posix(), row
        except UnicodeDecodeError as error:
            found = error.object[error.start :][:1]
            raise ValueError(f"{self.path}: need text in UTF-8, found {found!r}") from None
        except (csv.Error, pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.path}: cannot be read ({error})") from error


def read_tables(
    tables: Sequence[Path], root: Path, recordings: Iterable[Recording], *, label: str, multi_label: bool
) -> Annotations:
    """Annotations from tables in which every row names one recording, and no recording has two
    rows.

    Raises:
        ValueError: With the table and the line or row, if the tables are anything else.
    """
    opened = [Table(table, root, label) for table in tables]
    rows = (row for table in opened for row in table.rows())
    annotations = Annotations(
        (path, annotation_of(row, label, where, multi_label=multi_label)) for where, path, row in rows
    )
    if annotations.has_duplicates:
        _refuse_duplicates(opened)
    num_unused = len(annotations) - sum(
        annotations.get(recording.path) is not None for recording in recordings
    )
    if num_unused:
        paths = {recording.path for recording in recordings}
        rows = (row for table in opened for row in table.rows())
        unused = (f"{path} ({where.rpartition(', ')[2]})" for where, path, _ in rows if path not in paths)
        raise ValueError(
            f"{tables[0]}: need rows that name recordings of the source, found {num_unused} that do "
            f"not: {', '.join(islice(unused, NUM_SHOWN))}{' ...' if num_unused > NUM_SHOWN else ''}"
        )
    return annotations


def _refuse_duplicates(tables: Iterable[Table]) -> None:
    paths = set()
    for table in tables:
        for where, path, _ in table.rows():
            if path in paths:
                raise ValueError(f"{where}: need one row per recording, found {path} again")
            paths.add(path)


Rows = Iterator[tuple[str, dict[str, Any]]]


def _csv_rows(table: Path, label: str) -> Rows:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        _check_columns(table, label, reader.fieldnames or [])
        for row in reader:
            yield f"line {reader.line_num}", row


def _json_rows(table: Path, label: str) -> Rows:
    with table.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                found = line.strip()[:40]
                raise ValueError(f"{table}, line {number}: need a JSON object, found {found}")  # noqa: TRY004
            _check_columns(table, label, row)
            yield f"line {number}", row


def _parquet_rows(table: Path, label: str) -> Rows:
    with parquet.ParquetFile(table, pre_buffer=False) as file:
        names = file.schema_arrow.names
        _check_columns(table, label, names)
        number = 0
        for batch in file.iter_batches(columns=[name for name in (*COLUMNS, label) if name in names]):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row


def _check_columns(table: Path, label: str, columns: Iterable[str]) -> None:
    if label not in columns or not set(PATHS) & set(columns):
        raise ValueError(
            f"{table}: need columns path (or file_name) and {label} (and perhaps split, fold, group), "
            f"found {', '.join(columns) or 'nothing'}. `label_column` names another column of labels."
        )
