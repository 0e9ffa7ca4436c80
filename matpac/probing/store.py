"""embeddings of a dataset <-> Zarr store that probes, notebooks and xarray read.

Beside the arrays lies SHA256SUMS, the checksums of all files. They are checked whenever a store is read.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import zarr
from jaxtyping import Float32, Int64, UInt8

from matpac.clip import Task
from matpac.encoder.over_time import OverTime
from matpac.encoder.zarr import CLIPS_PER_CHUNK, check_whole, consolidate, create_array, put_array
from matpac.files import check_seal, move_into_place, partial_path, remedy, seal
from matpac.params import Pooling
from matpac.probing.steps import StepWriter

BASELINES = ("random_init", "logmel_statistics")
FEATURES = ("pretrained", *BASELINES)
"""Features of every store: embeddings of the encoder, embeddings of the same encoder before
training, and mean, standard deviation and maximum of the log-mel over time."""
OVER_TIME = ("pretrained", "random_init")
"""Features that have steps over time: their array holds the mean, another the standard deviation."""
DEVIATION = "_deviation"
"""Ending of the name of that other array."""
ARRAYS = ("ids", "split", "fold", "labels", "observed")
"""Arrays of every store besides its features."""
HEARD = "heard"
"""Array of stores whose encoder knows what it was pre-trained on."""


class Origin(NamedTuple):
    """Identity of an encoder in `embed.others`, whatever its name."""

    module: str
    model: str | None
    digest: str
    """Digest of the code of the module's package and, if `model` is a path, its contents."""


@dataclass(frozen=True)
class EmbeddedClips:
    """Clips of a dataset with their labels; all arrays and lists have one entry per clip.

    Features are read one at a time (`read_feature`), because together they may exceed memory.
    """

    dataset: str
    checkpoint: str
    """Digest of the checkpoint behind the feature `pretrained`."""
    task: Task
    ids: list[str]
    splits: list[str]
    """`train`, `validation` or `test`; empty if the task has folds."""
    folds: Int64[np.ndarray, " clip"]
    """Fold of each clip, from 1; 0 if the task has splits."""
    labels: UInt8[np.ndarray, "clip class"]
    """1 if the clip has the class; columns in the order of `task.classes`."""
    observed: UInt8[np.ndarray, "clip class"]
    """1 if it is known whether the clip has the class, 0 if nobody checked."""
    heard: UInt8[np.ndarray, " clip"] | None = None
    """1 if the encoder was pre-trained on the clip, without its labels; None if nobody knows."""
    also_heard: tuple[str, ...] = ()
    """Names of initial weights that were pre-trained on recordings nobody knows."""
    others: Mapping[str, Origin] = field(default_factory=dict)
    """Other encoders with embeddings in the store, by their names."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all features in the store, in its order."""
        return (*FEATURES, *self.others)


def write_embeddings(
    folder: Path,
    clips: EmbeddedClips,
    features: Mapping[str, Iterable[Float32[np.ndarray, " dim"] | OverTime]],
) -> None:
    """Replace the store `folder`; its bytes depend on the values only.

    `features` (keys: `clips.features`) give a row per clip, in order. An `OverTime` row also has its
    deviation stored, and its steps if it has any (matpac/probing/steps.py). Features are consumed one
    after another, with at most CLIPS_PER_CHUNK rows and STEPS_PER_FILE steps in memory. The store gets
    its name once it is whole. Raises ValueError if lengths differ, an id occurs twice or a value is not
    finite.
    """
    check(clips)
    partial = partial_path(folder)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(partial, clips, features)
        check_whole(partial, (*ARRAYS, *features))
        seal(partial)
        move_into_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    partial: Path,
    clips: EmbeddedClips,
    features: Mapping[str, Iterable[Float32[np.ndarray, " dim"] | OverTime]],
) -> None:
    group = zarr.open_group(partial, mode="w", zarr_format=3)
    group.attrs.update(
        {
            "dataset": clips.dataset,
            "checkpoint": clips.checkpoint,
            "classes": list(clips.task.classes),
            "multi_label": clips.task.multi_label,
            "metric": clips.task.metric,
            "num_folds": clips.task.num_folds,
            "official_split": clips.task.official_split,
            "also_heard": list(clips.also_heard),
            "others": {name: origin._asdict() for name, origin in clips.others.items()},
        }
    )
    put_array(group, "ids", np.array(clips.ids, dtype=np.dtypes.StringDType()), "clip")
    put_array(group, "split", np.array(clips.splits, dtype=np.dtypes.StringDType()), "clip")
    put_array(group, "fold", clips.folds, "clip")
    put_array(group, "labels", clips.labels, "clip", "class")
    put_array(group, "observed", clips.observed, "clip", "class")
    if clips.heard is not None:
        put_array(group, HEARD, clips.heard, "clip")
    for name, rows in features.items():
        _put_feature(group, name, rows, clips)
    consolidate(group)


def read_clips(folder: Path) -> EmbeddedClips:
    """Check that a store is whole, and read its labels, splits and folds.

    All its files are read and compared with their checksums; features are not kept.

    Args:
        folder: A store of embeddings, data/embeddings/<dataset>.

    Returns:
        The clips with their labels, one entry per clip in every field.

    Raises:
        ValueError: `folder` holds no store of embeddings, or a damaged one.
    """
    if not folder.is_dir():
        names = ", ".join(sorted(path.name for path in folder.parent.glob("*/"))) or "no dataset"
        raise ValueError(
            f"{folder}: need a store of embeddings, found those of {names}. "
            "`dvc repro embed` makes them for all of probe.datasets (params.yaml)."
        )
    check_seal(folder, f"embed@{folder.name}")
    try:
        group = zarr.open_group(folder, mode="r")
        attrs = group.attrs.asdict()
        clips = EmbeddedClips(
            dataset=cast(str, attrs["dataset"]),
            checkpoint=cast(str, attrs["checkpoint"]),
            task=Task(
                classes=tuple(cast(list[str], attrs["classes"])),
                multi_label=cast(bool, attrs["multi_label"]),
                metric=attrs["metric"],  # type: ignore[arg-type]
                num_folds=cast(int | None, attrs["num_folds"]),
                official_split=cast(bool, attrs["official_split"]),
            ),
            ids=_get(group, "ids").tolist(),
            splits=_get(group, "split").tolist(),
            folds=_get(group, "fold"),
            labels=_get(group, "labels"),
            observed=_get(group, "observed"),
            # Older stores have neither.
            heard=_get(group, HEARD) if HEARD in group else None,
            also_heard=tuple(cast(list[str], attrs.get("also_heard", []))),
            others={
                name: Origin(**origin)
                for name, origin in cast(dict[str, dict[str, str]], attrs["others"]).items()
            },
        )
    except (FileNotFoundError, KeyError) as error:
        raise ValueError(
            f"{folder}: need a store of embeddings, found {error!r}. {remedy(folder, f'embed@{folder.name}')}"
        ) from error
    check(clips)
    return clips


def read_feature(
    folder: Path,
    name: str,
    chosen: Int64[np.ndarray, " chosen"] | None = None,
    *,
    pooling: Pooling = "mean",
) -> Float32[np.ndarray, "clip dim"]:
    """Read one feature of a store.

    Args:
        folder: A store of embeddings, data/embeddings/<dataset>.
        name: One of `clips.features`.
        chosen: Positions of clips [chosen]; None for all clips.
        pooling: Whether to put deviations behind the means, for the features in `OVER_TIME`.

    Returns:
        Embeddings [clip, dim], float32.

    Raises:
        ValueError: The store is older than its deviations.
    """
    group = zarr.open_group(folder, mode="r")
    names = [name, f"{name}{DEVIATION}"] if pooling != "mean" and name in OVER_TIME else [name]
    if names[-1] not in group:
        raise ValueError(
            f"{folder}: need deviations for probe.pooling: {pooling}, found a store without them. "
            f"{remedy(folder, f'embed@{folder.name}')}"
        )
    arrays = [cast("zarr.Array[Any]", group[one]) for one in names]
    parts = [cast(np.ndarray, array[...] if chosen is None else array.oindex[chosen]) for array in arrays]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def check(clips: EmbeddedClips) -> None:
    num_clips, num_classes = len(clips.ids), len(clips.task.classes)
    lengths = {
        "splits": len(clips.splits),
        "folds": len(clips.folds),
        "labels": len(clips.labels),
    }
    for name, length in lengths.items():
        if length != num_clips:
            raise ValueError(f"{clips.dataset}: {name}: need {num_clips} clips, got {length}")
    if clips.labels.shape[1] != num_classes:
        raise ValueError(
            f"{clips.dataset}: labels: need a column for each of {num_classes} classes, "
            f"got {clips.labels.shape[1]}"
        )
    seen: set[str] = set()
    for clip in clips.ids:
        if clip in seen:
            raise ValueError(f"{clips.dataset}: need ids that occur once, got {clip} twice")
        seen.add(clip)


def _put_feature(
    group: zarr.Group,
    name: str,
    rows: Iterable[Float32[np.ndarray, " dim"] | OverTime],
    clips: EmbeddedClips,
) -> None:
    writer = StepWriter(group, name)

    def moments() -> Iterator[tuple[Float32[np.ndarray, " dim"], ...]]:
        for clip, row in zip(clips.ids, rows, strict=False):
            if not isinstance(row, OverTime):
                yield (row,)
                continue
            if row.steps is not None:
                writer.append(row.steps, clip)
            yield row.mean, row.deviation

    num_clips, source = len(clips.ids), moments()
    arrays: list[zarr.Array[Any]] = []
    for start in range(0, num_clips, CLIPS_PER_CHUNK):
        ids = clips.ids[start : start + CLIPS_PER_CHUNK]
        chunk = list(islice(source, len(ids)))
        if len(chunk) < len(ids):
            raise ValueError(f"{clips.dataset}: {name}: need {num_clips} clips, got {start + len(chunk)}")
        values = [np.stack(kind) for kind in zip(*chunk, strict=True)]
        # Where a deviation is not finite, neither is the mean.
        broken = np.flatnonzero(~np.isfinite(values[0]).all(axis=1))
        if len(broken):
            raise ValueError(
                f"{clips.dataset}: {name}: need finite values, got others for clip {ids[broken[0]]}"
            )
        if start == 0:
            arrays = [
                create_array(
                    group, f"{name}{ending}", (num_clips, one.shape[1]), one.dtype, "clip", f"{name}_dim"
                )
                for one, ending in zip(values, ("", DEVIATION), strict=False)
            ]
        for array, one in zip(arrays, values, strict=True):
            array[start : start + len(ids)] = one
    writer.close()


def _get(group: zarr.Group, name: str) -> np.ndarray:
    return cast(np.ndarray, cast("zarr.Array[Any]", group[name])[...])
