"""arrays with named axes <-> a Zarr group whose bytes depend on the values only."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import ZarrUserWarning

CLIPS_PER_CHUNK = 1024


def put_array(group: zarr.Group, name: str, values: np.ndarray, *dimensions: str) -> None:
    create_array(group, name, values.shape, values.dtype, *dimensions)[...] = values


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: np.dtype, *dimensions: str
) -> "zarr.Array[Any]":
    return group.create_array(
        name,
        shape=shape,
        chunks=(max(1, min(shape[0], CLIPS_PER_CHUNK)), *shape[1:]),
        dtype=dtype,
        dimension_names=dimensions,
        # Embeddings hardly compress, and the bytes must not depend on a compressor's version.
        compressors=None,
        # Otherwise a chunk of zeros is left out, and looks like one that was never written.
        config={"write_empty_chunks": True},
    )


def consolidate(group: zarr.Group) -> None:
    """Put all metadata into one file, once nothing more is added."""
    with warnings.catch_warnings():
        # xarray warns if this is missing, zarr warns if it is written; both read it silently.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(group.store)


def check_whole(path: Path, names: Iterable[str]) -> None:
    """Raise RuntimeError if a finished store lacks one of the arrays `names`, or a chunk of any array."""
    arrays = dict(zarr.open_group(path, mode="r").arrays())
    holes = [name for name, array in arrays.items() if array.nchunks_initialized < array.nchunks]
    for name in (*names, *holes):
        if name not in arrays or name in holes:
            raise RuntimeError(
                f"{path}: need the whole array {name}, found {'a part' if name in arrays else 'none'}. "
                "Another program changed the folder, or the disk is broken. Run this again."
            )
