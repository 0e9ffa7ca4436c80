"""embeddings of files -> .npz, .parquet or .zarr, in memory that does not grow with their number.

         npz: arrays              parquet: columns, a row each        zarr: as npz, arrays with named axes
row      embeddings [row, dim]    embedding (fixed size list)         embeddings [row, dim]
file     paths [file]             path                                paths [file]
in time  file [row], the position of its path, and time_ms [row]; in parquet the column time_ms
left out left_out, reasons        metadata `left_out` (JSON)          left_out, reasons
digests  checkpoint, made_from    metadata of these names             attributes of these names

Without time, row and file are the same. The bytes of a file depend on the values only.
"""

import json
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from jaxtyping import Float32, Int64
from zarr.errors import ZarrUserWarning

from matpac.files import check_place

TEXT = np.dtypes.StringDType()
CLIPS_PER_CHUNK = 1024
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
    made_from: str
    """Digest of everything the table follows from: encoder, files, how they were embedded."""
    file: Int64[np.ndarray, " row"] | None = None
    """In time only: of each row, the position of its file in `paths`."""
    time_ms: Float32[np.ndarray, " row"] | None = None
    """In time only: what each row is centered at."""

    def digests(self) -> dict[str, str]:
        return {"checkpoint": self.checkpoint, "made_from": self.made_from}

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
        columns = table.columns() | {name: np.array(value) for name, value in table.digests().items()}
        for name, values in columns.items():
            # Strings of one width: those of any need pickles here.
            plain = np.array(values.tolist(), np.str_) if values.dtype == TEXT else values
            with file.open(_entry(name), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, plain, allow_pickle=False)


def _npz_made_from(path: Path) -> str:
    with zipfile.ZipFile(path) as file, file.open("made_from.npy") as stream:
        return str(np.lib.format.read_array(stream, allow_pickle=False))


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", MINUTE_ONE)


def write_parquet(path: Path, table: Table, parts: Parts) -> None:
    fields: dict[str, pa.DataType] = {"path": pa.string(), "embedding": pa.list_(pa.float32(), table.dim)}
    if table.time_ms is not None:
        fields["time_ms"] = pa.float32()
    about = {"left_out": json.dumps(table.left_out, ensure_ascii=False), **table.digests()}
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
    return str(pq.read_schema(path).metadata[b"made_from"], "utf-8")


def write_zarr(path: Path, table: Table, parts: Parts) -> None:
    """A folder; attributes and layout as in the project's stores of embeddings."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs.update(table.digests())
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


def _zarr_made_from(path: Path) -> str:
    return str(zarr.open_group(path, mode="r").attrs["made_from"])


def _numbered(parts: Parts) -> Iterator[tuple[int, Float32[np.ndarray, "row dim"]]]:
    """Each part that has rows, with the number of its first."""
    first = 0
    for part in parts:
        if len(part):
            yield first, part
        first += len(part)


class Format(NamedTuple):
    write: Callable[[Path, Table, Parts], None]
    read_made_from: Callable[[Path], str]

    def made_from(self, path: Path) -> str | None:
        """As the table at `path` says; None where there is none, or one of another program."""
        try:
            return self.read_made_from(path)
        except Exception:  # other programs' files raise whatever their bytes lead to
            return None


FORMATS = {
    ".npz": Format(write_npz, _npz_made_from),
    ".parquet": Format(write_parquet, _parquet_made_from),
    ".zarr": Format(write_zarr, _zarr_made_from),
}
"""By the ending of a name."""


def format_for(out: Path) -> Format:
    """Raises ValueError where the ending names no format, or no such file can be there."""
    if out.suffix not in FORMATS:
        raise ValueError(f"--out: need a name that ends in {', '.join(FORMATS)}, got {out}")
    is_folder = out.suffix == ".zarr"
    in_the_way = out.exists() and (
        out.is_dir() != is_folder or (is_folder and not (out / "zarr.json").exists())
    )
    if in_the_way:
        raise ValueError(f"--out: need a new name or one to replace, found something else at {out}")
    check_place(out)
    return FORMATS[out.suffix]


def put_array(group: zarr.Group, name: str, values: np.ndarray, *dimensions: str) -> None:
    create_array(group, name, values.shape, values.dtype, *dimensions)[...] = values


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: np.dtype, *dimensions: str
) -> zarr.Array:
    return group.create_array(
        name,
        shape=shape,
        chunks=(max(1, min(shape[0], CLIPS_PER_CHUNK)), *shape[1:]),
        dtype=dtype,
        dimension_names=dimensions,
        # Embeddings hardly compress, and the bytes must not depend on a compressor's version.
        compressors=None,
    )


def consolidate(group: zarr.Group) -> None:
    """All metadata in one file, once nothing more is added."""
    with warnings.catch_warnings():
        # xarray warns where this is missing, zarr warns where it is written; both read it silently.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(group.store)
