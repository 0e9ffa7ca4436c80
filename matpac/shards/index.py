"""rows about clips <-> index.parquet. Only this module knows the columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from matpac.files import whole_file

CLIP_COLUMNS = {
    "id": pa.string(),
    "path": pa.string(),
    "labels": pa.list_(pa.string()),
    "split": pa.string(),
    "fold": pa.int32(),
    "group": pa.string(),
    "absent": pa.list_(pa.string()),
}
"""The fields of a Clip, in their order. Plans, shards and indexes take theirs from here."""
ABOUT = ("labels", "split", "fold", "group", "absent", "path")
"""Fields in the JSON beside each log-mel, in its order."""
SCHEMA = pa.schema(
    {
        "id": CLIP_COLUMNS["id"],
        "shard": pa.int32(),
        "offset": pa.int64(),
        "num_frames": pa.int64(),
        "duration_s": pa.float64(),
        **{name: CLIP_COLUMNS[name] for name in ABOUT},
        "native_rate_hz": pa.int32(),
    }
)
"""`shard` is the number of the tar and `offset` the byte in it at which the clip's first frame begins.
In a Zarr store `shard` is 0 and `offset` the number of the clip's first frame."""
ROWS_PER_GROUP = 65_536


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), SCHEMA)


class IndexWriter:
    """Collects rows and writes them in large groups."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetWriter(path, SCHEMA)
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        self._waiting.append(table_of(rows))
        self._num_waiting += len(rows)
        if self._num_waiting >= ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        self._file.write_table(pa.concat_tables(self._waiting))
        self._waiting.clear()
        self._num_waiting = 0


def write_index(path: Path, table: pa.Table) -> None:
    with whole_file(path) as partial:
        pq.write_table(table, partial, row_group_size=ROWS_PER_GROUP)


class Index:
    """The clips of a shard folder, as columns; `len(index)` clips.

    Columns needed for crops are numpy arrays [clip]. The others stay in the file until they are asked for,
    because those of two million clips take half a gigabyte.

    Raises:
        ValueError: The file is damaged or another table; the error names it and the column.
    """

    def __init__(self, path: Path) -> None:
        # Stays open: if the folder is replaced while we read, its columns must not mix with ours.
        try:
            self._file = pq.ParquetFile(path)
            _check_columns(path, self._file.schema_arrow)
            self.shard: NDArray[np.int32] = self._numbers("shard")
            self.offset: NDArray[np.int64] = self._numbers("offset")
            self.num_frames: NDArray[np.int64] = self._numbers("num_frames")
        except (pa.ArrowException, OSError) as error:
            what = " ".join(str(error).split())
            raise ValueError(f"{path}: need a whole table of clips, found a damaged file ({what}).") from None

    def __len__(self) -> int:
        return len(self.num_frames)

    @property
    def table(self) -> pa.Table:
        """All columns, read from the file."""
        return self._file.read()

    def column(self, name: str) -> list[Any]:
        """One column as Python values, in the order of the clips."""
        values: list[Any] = self._column(name).to_pylist()
        return values

    def ids(self, clips: NDArray[np.int64] | None = None) -> pa.Array:
        """Ids of some clips or all, without a Python object for each."""
        column = self._column("id").combine_chunks()
        return column if clips is None else column.take(pa.array(clips))

    def ids_of(self, clips: NDArray[np.int64]) -> list[str]:
        ids: list[str] = self.ids(clips).to_pylist()
        return ids

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._file.read([name])[name]

    def _numbers(self, name: str) -> NDArray[Any]:
        values: NDArray[Any] = self._column(name).to_numpy()
        return values


def _check_columns(path: Path, found: pa.Schema) -> None:
    for field in SCHEMA:
        number = found.get_field_index(field.name)
        kind = found.field(number).type if number >= 0 else "none"
        if kind != field.type:
            raise ValueError(f"{path}: {field.name}: need a column of {field.type}, found {kind}.")
