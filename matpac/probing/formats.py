"""embeddings of files -> .npz, .parquet or .zarr, in memory that does not grow with their number.

         npz: arrays              parquet: columns, a row each        zarr: as npz, arrays with named axes
row      embeddings [row, dim]    embedding (fixed size list)         embeddings [row, dim]
file     paths [file]             path                                paths [file]
in time  file [row], the position of its path, and time_ms [row]; in parquet the column time_ms
left out left_out, reasons        metadata `left_out` (JSON)          left_out, reasons

Without time, row and file are the same. The bytes of a file depend on the values only.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from jaxtyping import Float32, Int64

from matpac.probing.embeddings import consolidate, create_array, put_array

TEXT = np.dtypes.StringDType()
MINUTE_ONE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Table:
    """All but the embeddings, which may be larger than memory: those come in parts `[row, dim]`, in order."""

    paths: list[str]
    """Of the files that could be used."""
    num_rows: int
    dim: int
    left_out: dict[str, str]
    """Reason by path."""
    checkpoint: str
    """Digest of the encoder."""
    file: Int64[np.ndarray, " row"] | None = None
    """In time only: of each row, the position of its file in `paths`."""
    time_ms: Float32[np.ndarray, " row"] | None = None
    """In time only: what each row is centered at."""

    def columns(self) -> dict[str, np.ndarray]:
        """Arrays for those formats that hold arrays."""
        found = {
            "paths": texts(self.paths),
            "left_out": texts(self.left_out),
            "reasons": texts(self.left_out.values()),
        }
        if self.file is not None and self.time_ms is not None:
            found |= {"file": self.file, "time_ms": self.time_ms}
        return found


Parts = Iterable[Float32[np.ndarray, "row dim"]]


def texts(values: Iterable[str]) -> np.ndarray:
    return np.array(list(values), dtype=TEXT)


def write_npz(path: Path, table: Table, parts: Parts) -> None:
    """What `np.load` reads: `np.savez`, which wants all in memory and writes down the time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        with file.open(_entry("embeddings"), "w", force_zip64=True) as stream:
            shape = (table.num_rows, table.dim)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for part in parts:
                stream.write(part.astype("<f4", copy=False).tobytes())
        columns = table.columns() | {"checkpoint": np.array(table.checkpoint)}
        for name, values in columns.items():
            # Strings of one width: those of any need pickles here.
            plain = np.array(values.tolist(), np.str_) if values.dtype == TEXT else values
            with file.open(_entry(name), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, plain, allow_pickle=False)


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", MINUTE_ONE)


def write_parquet(path: Path, table: Table, parts: Parts) -> None:
    fields: dict[str, pa.DataType] = {"path": pa.string(), "embedding": pa.list_(pa.float32(), table.dim)}
    if table.time_ms is not None:
        fields["time_ms"] = pa.float32()
    about = {"left_out": json.dumps(table.left_out, ensure_ascii=False), "checkpoint": table.checkpoint}
    schema = pa.schema(fields, about)
    paths = pa.array(table.paths, pa.string())
    with pq.ParquetWriter(path, schema) as writer:
        for first, part in _numbered(parts):
            rows = slice(first, first + len(part))
            of_file = np.arange(rows.start, rows.stop) if table.file is None else table.file[rows]
            columns: dict[str, Any] = {
                "path": paths.take(pa.array(of_file)),
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), table.dim),
            }
            if table.time_ms is not None:
                columns["time_ms"] = table.time_ms[rows]
            writer.write_table(pa.table(columns, schema))


def write_zarr(path: Path, table: Table, parts: Parts) -> None:
    """A folder; attributes and layout as in the project's stores of embeddings."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update({"checkpoint": table.checkpoint})
    row = "file" if table.file is None else "row"
    axes = {"paths": "file", "file": "row", "time_ms": "row"}
    for name, values in table.columns().items():
        put_array(group, name, values, axes.get(name, "left_out"))
    embeddings = create_array(
        group, "embeddings", (table.num_rows, table.dim), np.dtype(np.float32), row, "dim"
    )
    for first, part in _numbered(parts):
        embeddings[first : first + len(part)] = part
    consolidate(group)


def _numbered(parts: Parts) -> Iterator[tuple[int, Float32[np.ndarray, "row dim"]]]:
    """Each part that has rows, with the number of its first."""
    first = 0
    for part in parts:
        if len(part):
            yield first, part
        first += len(part)


WRITERS: dict[str, Callable[[Path, Table, Parts], None]] = {
    ".npz": write_npz,
    ".parquet": write_parquet,
    ".zarr": write_zarr,
}
"""By the ending of a name."""


def writer_for(out: Path) -> Callable[[Path, Table, Parts], None]:
    """Raises ValueError where the ending names no format, or something else is in the way."""
    if out.suffix not in WRITERS:
        raise ValueError(f"--out: need a name that ends in {', '.join(WRITERS)}, got {out}")
    is_folder = out.suffix == ".zarr"
    in_the_way = out.exists() and (
        out.is_dir() != is_folder or (is_folder and not (out / "zarr.json").exists())
    )
    if in_the_way:
        raise ValueError(f"--out: need a new name or one to replace, found something else at {out}")
    return WRITERS[out.suffix]
