"""CSV, JSON Lines or parquet tables of labels -> annotations by path."""

import codecs
import csv
import json
import shlex
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any

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
DELIMITERS = ",;\t"
LIKE_A_PATH = frozenset({"filename", "file", "fname", "filepath", "file path", "audio", "wav", "name"})
LIKE_A_LABEL = frozenset(
    {"labels", "class", "classes", "category", "target", "tag", "tags", "species", "y", "event"}
)
"""Names of columns that other tables have, in lower case: an error says how to use them."""
UNCLOSED = "Is a quote missing there?"
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
        self.written: dict[str, str] = {}
        """The path in the table of a recording that is written otherwise there."""

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def has_duplicates(self) -> bool:
        return any(first == second for first, second in pairwise(self._keys))

    def get(self, path: str) -> Annotation | None:
        key = digest64(self.written.get(path, path))
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
                path = PurePosixPath(folder, str(name or ""))
                yield f"{self.path}, {where}", path.as_posix(), row
        except UnicodeDecodeError:
            raise ValueError(_not_utf8(self.path)) from None
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
        _match_unused(opened, recordings, annotations)
    return annotations


def _match_unused(tables: Sequence[Table], recordings: Iterable[Recording], annotations: Annotations) -> None:
    """Match rows with recordings whose names differ in Unicode form, spaces around or slashes only.

    Raises:
        ValueError: If rows without a recording are left, or several recordings or rows are alike.
    """
    paths = {recording.path for recording in recordings}
    rows = chain.from_iterable(table.rows() for table in tables)
    unused = [(where, path) for where, path, _ in rows if path not in paths]
    without_row = sorted(path for path in paths if annotations.get(path) is None)
    known = _by_form(without_row)
    rows_of = _by_form(path for _, path in unused)
    left = []
    for where, path in unused:
        alike = known.get(_form(path), [])
        if len(alike) == len(rows_of[_form(path)]) == 1:
            annotations.written[alike[0]] = path
        else:
            left.append(f"{_shown(path)} ({where.rpartition(', ')[2]}{_hint(path, alike, without_row)})")
    if left:
        raise ValueError(
            f"{tables[0].path}: need rows that name recordings of the source, found {len(left)} that do "
            f"not: {', '.join(left[:NUM_SHOWN])}{' ...' if len(left) > NUM_SHOWN else ''}"
        )


def _by_form(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(_form(path), []).append(path)
    return found


def _form(path: str) -> str:
    """A path as most people see it: composed characters, forward slashes, no spaces around names."""
    composed = unicodedata.normalize("NFC", path).replace("\\", "/")
    return PurePosixPath(*(part.strip() for part in composed.split("/"))).as_posix()


def _hint(path: str, alike: Collection[str], without_row: Iterable[str]) -> str:
    """What the row may mean."""
    if alike:
        return f"; alike: {', '.join(map(_shown, islice(alike, NUM_SHOWN)))}"
    form = _form(path).casefold()
    name = PurePosixPath(form).name
    forms = ((other, _form(other).casefold()) for other in without_row)
    near = [other for other, seen in forms if seen == form or PurePosixPath(seen).name == name]
    return f"; there is {_shown(near[0])}" if len(near) == 1 else ""


def _shown(path: str) -> str:
    """With code points if the characters may look like others."""
    return path if path.isascii() and path == path.strip() else ascii(path)


def _not_utf8(table: Path) -> str:
    """The line and byte of a table that are not UTF-8, and how to convert it."""
    with table.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return _in_utf8(table, "line 1, byte 1", f"{head[:1]!r}", "UTF-16")
        if b"\0" in head:
            encoding = "UTF-16BE" if head.startswith(b"\0") else "UTF-16LE"
            return _in_utf8(table, "line 1", "zeros between the characters", encoding)
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                found = f"{line[error.start : error.start + 1]!r}"
                return _in_utf8(table, f"line {number}, byte {error.start + 1}", found, "WINDOWS-1252")
    return f"{table}: need text in UTF-8"


def _in_utf8(table: Path, where: str, found: str, encoding: str) -> str:
    return (
        f"{table}, {where}: need text in UTF-8, found {found}. If it is {encoding}, convert it: "
        f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(table))} > new.csv"
    )


def _refuse_duplicates(tables: Iterable[Table]) -> None:
    paths = set()
    for table in tables:
        for where, path, _ in table.rows():
            if path in paths:
                raise ValueError(f"{where}: need one row per recording, found {path} again")
            paths.add(path)


Rows = Iterator[tuple[str, dict[str, Any]]]


def _csv_rows(table: Path, label: str) -> Rows:
    """Rows of a table that commas, semicolons or tabs separate, whichever give the columns needed."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        if "\0" in header:
            raise ValueError(_not_utf8(table))
        rows = {delimiter: _names_in(header, delimiter) for delimiter in DELIMITERS}
        delimiter = next((key for key, names in rows.items() if _are_columns(names, label)), ",")
        names = rows[delimiter]
        _check_columns(table, label, names)
        for first, where, cells in _rows_of(table, file, delimiter):
            if any(cells[len(names) :]) or (len(cells) < len(names) and label in names[len(cells) :]):
                hint = ". Several labels share a cell: dog;cat" if len(cells) > len(names) else ""
                raise ValueError(
                    f"{table}, {where}: need {len(names)} cells ({', '.join(names)}), found {len(cells)}: "
                    f"{delimiter.join(cells):.80}{hint}"
                )
            if any("\n" in cell and delimiter in cell.partition("\n")[2] for cell in cells):
                raise ValueError(
                    f"{table}, {first}: need a row in a line, found one until {where}. {UNCLOSED}"
                )
            yield where, dict(zip(names, cells, strict=False))


def _rows_of(table: Path, file: IO[str], delimiter: str) -> Iterator[tuple[str, str, list[str]]]:
    """First and last line, and the cells of each row after the header."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    first = 2
    try:
        for cells in reader:
            if cells:
                yield f"line {first}", f"line {reader.line_num + 1}", cells
            first = reader.line_num + 2
    except csv.Error as error:
        raise ValueError(f"{table}, line {first}: need a row, found none ({error}). {UNCLOSED}") from None


def _names_in(header: str, delimiter: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]


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


def _are_columns(names: Collection[str], label: str) -> bool:
    return label in names and bool(set(PATHS) & set(names))


def _check_columns(table: Path, label: str, columns: Iterable[str]) -> None:
    names = list(columns)
    if not _are_columns(names, label):
        raise ValueError(
            f"{table}: need columns path (or file_name) and {label} (and perhaps split, fold, group), "
            f"found {', '.join(names) or 'nothing'}. {_advice(names, label)}"
        )
    used = [name for name in names if name in (*COLUMNS, label)]
    if twice := [name for name in dict.fromkeys(used) if used.count(name) > 1]:
        raise ValueError(f"{table}: need each column once, found several named {', '.join(twice)}")


def _advice(names: Sequence[str], label: str) -> str:
    """How to make a table's own columns the ones needed."""
    steps = []
    if not set(PATHS) & set(names):
        like = next((name for name in names if name.lower() in {*PATHS, *LIKE_A_PATH}), None)
        steps += [f"rename {like} to path" if like else "name the column of paths `path`"]
    if label not in names:
        like = next((name for name in names if name.lower() in {"label", *LIKE_A_LABEL}), None)
        steps += [f"set label_column to {like}" if like else "label_column names the column of labels"]
    return f"To do: {'; '.join(steps)}."
