"""folder: your own recordings, any tree of audio files, read where they are.

labels: none      No labels: for pre-training.
labels: folders   The innermost folder is the class: `dog/a.wav`, `park/dog/a.wav`. Where the outermost
                  one is called train, validation (valid, val, dev) or test, it is the split.
labels: <file>    A CSV or parquet table, looked for in the source and then from the project's folder, with
                  the columns `path` (relative to the source) and `label`, and if you like `split`, `fold`
                  and `group`. See matpac/datasets/own.py.

Recordings outside every folder, or not in the table, have no label.
"""

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from matpac.datasets.clip import Clip
from matpac.datasets.own import SPLITS, Annotation, annotated_clips, annotation_of, fetch, task
from matpac.datasets.recordings import Recording
from matpac.params import Folder

__all__ = ["clips", "fetch", "tables", "task"]

COLUMNS = ("path", "label", "split", "fold", "group")
NUM_SHOWN = 3
"""Wrong rows that an error names; one who needs more can look."""


def tables(params: Folder, root: Path) -> list[Path]:
    """The table that the labels come from, if they do. Raises ValueError where it is missing."""
    if params.labels in ("none", "folders"):
        return []
    for path in (root / params.labels, Path(params.labels).expanduser()):
        if path.is_file():
            return [path]
    raise ValueError(
        f"labels: need `none`, `folders` or a CSV or parquet file in {root} or here, found no {params.labels}"
    )


def clips(params: Folder, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip]:
    if params.labels == "none":
        return annotated_clips(params, root, recordings, None)
    if params.labels == "folders":
        return annotated_clips(params, root, recordings, _from_folders)
    [table] = tables(params, root)
    annotations = _annotations(table, multi_label=params.multi_label)
    _check_all_rows_used(table, annotations, recordings)
    return annotated_clips(params, root, recordings, lambda recording: annotations.get(recording.path))


def _from_folders(recording: Recording) -> Annotation | None:
    folders = PurePosixPath(recording.path).parts[:-1]
    split = SPLITS.get(folders[0].lower()) if folders else None
    return Annotation((folders[-1],), split) if len(folders) > (split is not None) else None


def _annotations(table: Path, *, multi_label: bool) -> dict[str, Annotation]:
    """By path. The table's size in memory: a path for each row, and each different annotation once."""
    annotations: dict[str, Annotation] = {}
    known: dict[Annotation, Annotation] = {}
    for where, row in _rows(table):
        path = _path(row)
        if path in annotations:
            raise ValueError(f"{table}, {where}: need one row per recording, found {path} again")
        annotation = annotation_of(row, "label", f"{table}, {where}", multi_label=multi_label)
        annotations[path] = known.setdefault(annotation, annotation)
    return annotations


def _check_all_rows_used(
    table: Path, annotations: dict[str, Annotation], recordings: Iterable[Recording]
) -> None:
    num_unused = len(annotations) - sum(recording.path in annotations for recording in recordings)
    if num_unused:
        paths = {recording.path for recording in recordings}
        unused = (f"{path} ({where})" for where, row in _rows(table) if (path := _path(row)) not in paths)
        shown = ", ".join(islice(unused, NUM_SHOWN))
        raise ValueError(
            f"{table}: need rows that name recordings of the source, found {num_unused} that do "
            f"not: {shown}{' ...' if num_unused > NUM_SHOWN else ''}"
        )


def _path(row: dict[str, Any]) -> str:
    return PurePosixPath(str(row["path"] or "").strip()).as_posix()


def _rows(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a row stands in the table, and its values. Raises ValueError where it is no such table."""
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
