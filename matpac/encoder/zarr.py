"""arrays with named axes <-> a Zarr group whose bytes depend on the values only."""

import warnings
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
    )


def consolidate(group: zarr.Group) -> None:
    """Put all metadata into one file, once nothing more is added."""
    with warnings.catch_warnings():
        # xarray warns if this is missing, zarr warns if it is written; both read it silently.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(group.store)
