"""embeddings of files -> .npz, .parquet or .zarr, in memory that does not grow with their number.

         npz: arrays              parquet: columns                    zarr: arrays with named axes
row      embeddings [row, dim]    embedding (fixed size list)         embeddings [row, dim]
file     paths [file]             path                                paths [file]
in time  file [row], the position of its path, and time_ms [row]; in parquet the column time_ms
left out left_out, reasons        metadata `left_out` (JSON)          left_out, reasons
odd      noted, notes             metadata `noted` (JSON)             noted, notes
digests  checkpoint, made_from    metadata of these names             attributes of these names
pooling  pooling, unless `mean`   metadata                            attribute

Without time there is one row per file. The bytes of a file depend on the values only.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from matpac.files import check_place
from matpac.params import Pooling

TEXT = np.dtypes.StringDType()
MINUTE_ONE = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can hold, in place of the clock's."""


@dataclass(frozen=True)
class Table:
    """All of a table but the embeddings, which may exceed memory and come in parts `[row, dim]`, in order."""

    paths: list[str]
    """Paths of the files that could be used."""
    num_rows: int
    dim: int
    left_out: dict[str, str]
    """Reason for each path that could not be used."""
    noted: dict[str, str]
    """Notes on paths that are used although something is odd about them."""
    checkpoint: str
    """Digest of the encoder."""
    made_from: str
    """Digest of encoder, device, list of files and kind of embeddings."""
    pooling: Pooling = "mean"
    """What a row holds of its file's steps."""
    file: Int64[np.ndarray, " row"] | None = None
    """Position in `paths` of the file of each row; None without time."""
    time_ms: Float32[np.ndarray, " row"] | None = None
    """Center of each row in ms; None without time."""

    def digests(self) -> dict[str, str]:
        found: dict[str, str] = {"checkpoint": self.checkpoint, "made_from": self.made_from}
        return found if self.pooling == "mean" else found | {"pooling": self.pooling}

    def columns(self) -> dict[str, np.ndarray]:
        """Arrays by name, for .npz and .zarr."""
        found = {
            "paths": texts(self.paths),
            "left_out": texts(self.left_out),
            "reasons": texts(self.left_out.values()),
            "noted": texts(self.noted),
            "notes": texts(self.noted.values()),
        }
        if self.file is not None and self.time_ms is not None:
            found |= {"file": self.file, "time_ms": self.time_ms}
        return found


Parts = Iterable[Float32[np.ndarray, "row dim"]]


def texts(values: Iterable[str]) -> np.ndarray:
    return np.array(list(values), dtype=TEXT)


def write_npz(path: Path, table: Table, parts: Parts) -> None:
    """Write what `np.load` reads. `np.savez` would need all in memory and store the time of writing."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        with file.open(_entry("embeddings"), "w", force_zip64=True) as stream:
            shape = (table.num_rows, table.dim)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for part in parts:
                stream.write(part.astype("<f4", copy=False).tobytes())
        columns = table.columns() | {name: np.array(value) for name, value in table.digests().items()}
        for name, values in columns.items():
            # Strings of fixed width: others would be pickled.
            plain = np.array(values.tolist(), np.str_) if values.dtype == TEXT else values
            with file.open(_entry(name), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, plain, allow_pickle=False)


def _npz_made_from(path: Path) -> str:
    with zipfile.ZipFile(path) as file, file.open("made_from.npy") as stream:
        return str(np.lib.format.read_array(stream, allow_pickle=False))


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", MINUTE_ONE)


def write_parquet(path: Path, table: Table, parts: Parts) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields: dict[str, pa.DataType] = {"path": pa.string(), "embedding": pa.list_(pa.float32(), table.dim)}
    if table.time_ms is not None:
        fields["time_ms"] = pa.float32()
    about = {
        name: json.dumps(listed, ensure_ascii=False)
        for name, listed in (("left_out", table.left_out), ("noted", table.noted))
    } | table.digests()
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


def _parquet_made_from(path: Path) -> str:
    import pyarrow.parquet as pq

    return str(pq.read_schema(path).metadata[b"made_from"], "utf-8")


def write_zarr(path: Path, table: Table, parts: Parts) -> None:
    """Write a folder with the layout of the project's stores of embeddings."""
    import zarr

    from matpac.encoder.zarr import check_whole, consolidate, create_array, put_array

    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update(table.digests())
    row = "file" if table.file is None else "row"
    axes = {"paths": "file", "file": "row", "time_ms": "row", "noted": "noted", "notes": "noted"}
    for name, values in table.columns().items():
        put_array(group, name, values, axes.get(name, "left_out"))
    embeddings = create_array(
        group, "embeddings", (table.num_rows, table.dim), np.dtype(np.float32), row, "dim"
    )
    for first, part in _numbered(parts):
        embeddings[first : first + len(part)] = part
    consolidate(group)
    check_whole(path, ("embeddings", *table.columns()))


def _zarr_made_from(path: Path) -> str:
    import zarr

    return str(zarr.open_group(path, mode="r").attrs["made_from"])


def _numbered(parts: Parts) -> Iterator[tuple[int, Float32[np.ndarray, "row dim"]]]:
    """Each part that has rows, with the number of its first row."""
    first = 0
    for part in parts:
        if len(part):
            yield first, part
        first += len(part)


class Format(NamedTuple):
    write: Callable[[Path, Table, Parts], None]
    read_made_from: Callable[[Path], str]
    package: str
    """Package that writes it."""

    def made_from(self, path: Path) -> str | None:
        """`Table.made_from` of the table at `path`; None if there is none, or another program's."""
        try:
            return self.read_made_from(path)
        except Exception:  # other programs' files raise whatever their bytes lead to
            return None


FORMATS = {
    ".npz": Format(write_npz, _npz_made_from, "numpy"),
    ".parquet": Format(write_parquet, _parquet_made_from, "pyarrow"),
    ".zarr": Format(write_zarr, _zarr_made_from, "zarr"),
}
"""Formats by the ending of a name."""


def format_for(out: Path) -> Format:
    """The format of the table to be written to `out`.

    Raises:
        ValueError: The ending names no format, or no such file can be made at `out`.
        ModuleNotFoundError: The package that writes this format is not installed.
    """
    if out.suffix not in FORMATS:
        raise ValueError(f"--out: need a name that ends in {', '.join(FORMATS)}, got {out}")
    is_folder = out.suffix == ".zarr"
    in_the_way = out.exists() and (
        out.is_dir() != is_folder or (is_folder and not (out / "zarr.json").exists())
    )
    if in_the_way:
        raise ValueError(f"--out: need a new name or one to replace, found something else at {out}")
    check_place(out)
    import_module(FORMATS[out.suffix].package)
    return FORMATS[out.suffix]
