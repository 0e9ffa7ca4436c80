"""Embeddings of a dataset <-> Zarr store that probes, notebooks and xarray read."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import zarr
from jaxtyping import Float32, Int64, UInt8
from zarr.errors import ZarrUserWarning

from matpac.datasets.clip import Task
from matpac.files import move_into_place

FEATURES = ("pretrained", "random_init", "logmel_statistics")
"""What probes are trained on: the encoder's embeddings, those of the same encoder before training,
and mean, standard deviation and maximum of the log-mel over time."""

CLIPS_PER_CHUNK = 1024


@dataclass(frozen=True)
class EmbeddingSet:
    """One dataset as the probes see it; all arrays and lists have one entry per clip."""

    dataset: str
    checkpoint: str
    """Digest of the checkpoint that `pretrained` comes from."""
    task: Task
    ids: list[str]
    splits: list[str]
    """`train`, `validation`, `test`, or empty where folds are used."""
    folds: Int64[np.ndarray, " clip"]
    """From 1; 0 where splits are used."""
    labels: UInt8[np.ndarray, "clip class"]
    """1 where the clip has the class; columns in the order of `task.classes`."""
    features: dict[str, Float32[np.ndarray, "clip _dim"]]
    """Keys: FEATURES."""


def write_embeddings(folder: Path, embeddings: EmbeddingSet) -> None:
    """Replace the store `folder`; its bytes depend on the values only.

    Raises ValueError where lengths differ or a feature is not finite.
    """
    check(embeddings)
    partial = folder.with_name(f".{folder.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    group = zarr.open_group(partial, mode="w", zarr_format=3)
    group.attrs.update(
        {
            "dataset": embeddings.dataset,
            "checkpoint": embeddings.checkpoint,
            "classes": list(embeddings.task.classes),
            "multi_label": embeddings.task.multi_label,
            "metric": embeddings.task.metric,
            "num_folds": embeddings.task.num_folds,
        }
    )
    _put(group, "ids", np.array(embeddings.ids, dtype=np.dtypes.StringDType()), "clip")
    _put(group, "split", np.array(embeddings.splits, dtype=np.dtypes.StringDType()), "clip")
    _put(group, "fold", embeddings.folds, "clip")
    _put(group, "labels", embeddings.labels, "clip", "class")
    for name, values in embeddings.features.items():
        _put(group, name, values, "clip", f"{name}_dim")
    with warnings.catch_warnings():
        # xarray warns where this is missing, zarr warns where it is written; both read it silently.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(group.store)
    move_into_place(partial, folder)


def read_embeddings(folder: Path) -> EmbeddingSet:
    """Raises ValueError where `folder` holds no such store."""
    try:
        group = zarr.open_group(folder, mode="r")
        attrs = group.attrs.asdict()
        embeddings = EmbeddingSet(
            dataset=cast(str, attrs["dataset"]),
            checkpoint=cast(str, attrs["checkpoint"]),
            task=Task(
                classes=tuple(cast(list[str], attrs["classes"])),
                multi_label=cast(bool, attrs["multi_label"]),
                metric=attrs["metric"],  # type: ignore[arg-type]
                num_folds=cast(int | None, attrs["num_folds"]),
            ),
            ids=_get(group, "ids").tolist(),
            splits=_get(group, "split").tolist(),
            folds=_get(group, "fold"),
            labels=_get(group, "labels"),
            features={name: _get(group, name) for name in FEATURES},
        )
    except (FileNotFoundError, KeyError) as error:
        raise ValueError(f"{folder}: need a store of embeddings, found {error!r}") from error
    check(embeddings)
    return embeddings


def check(embeddings: EmbeddingSet) -> None:
    num_clips, num_classes = len(embeddings.ids), len(embeddings.task.classes)
    shapes = {
        "splits": (len(embeddings.splits),),
        "folds": embeddings.folds.shape,
        "labels": embeddings.labels.shape[:1],
        **{name: values.shape[:1] for name, values in embeddings.features.items()},
    }
    for name, shape in shapes.items():
        if shape != (num_clips,):
            raise ValueError(f"{embeddings.dataset}: {name}: need {num_clips} clips, got {shape[0]}")
    if embeddings.labels.shape[1] != num_classes:
        raise ValueError(
            f"{embeddings.dataset}: labels: need a column for each of {num_classes} classes, "
            f"got {embeddings.labels.shape[1]}"
        )
    for name, values in embeddings.features.items():
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(broken):
            raise ValueError(
                f"{embeddings.dataset}: {name}: need finite values, got others in {len(broken)} of "
                f"{num_clips} clips; the first is {embeddings.ids[broken[0]]}"
            )


def _put(group: zarr.Group, name: str, values: np.ndarray, *dimensions: str) -> None:
    chunks = tuple(
        max(1, min(size, CLIPS_PER_CHUNK)) if axis == 0 else size for axis, size in enumerate(values.shape)
    )
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=chunks,
        dtype=values.dtype,
        dimension_names=dimensions,
        # Embeddings hardly compress, and the bytes must not depend on a compressor's version.
        compressors=None,
    )
    array[...] = values


def _get(group: zarr.Group, name: str) -> np.ndarray:
    return cast(np.ndarray, cast(zarr.Array, group[name])[...])
