"""shards -> clips with their labels, as probes and fine-tuning need them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from matpac.clip import Task
from matpac.digests import NEW, digests_in, known
from matpac.files import check_seal
from matpac.params import LogMel
from matpac.probing.folds import folds_of
from matpac.probing.store import EmbeddedClips
from matpac.shards.folder import ShardFolder, read_task
from matpac.shards.leaks import refuse_leaks
from matpac.weights.open import Weights


class Labelled(NamedTuple):
    """The clips of a shard folder that have a split or a fold."""

    folder: ShardFolder
    chosen: Int64[np.ndarray, " clip"]
    """Numbers of the clips in the folder."""
    table: pa.Table
    """Their rows of index.parquet."""
    clips: EmbeddedClips


def open_labelled(shards: Path, weights: Weights, key: str) -> Labelled:
    """Open the labelled clips of a dataset, and check that they can be trained and tested on.

    Args:
        shards: Folder of the shards.
        weights: Weights of the encoder.
        key: Key of params.yaml that names the dataset, for errors.

    Returns:
        The clips with a split, or with a fold if the task has folds.

    Raises:
        ValueError: The shards are not as they were written, have no labels or another front end, or a
            group is in several splits or folds that are not official; or as from `folds_of`.
    """
    folder = ShardFolder(shards)
    check_seal(shards, f"shards@{shards.name}")
    task = read_task(shards)
    if task is None:
        raise ValueError(
            f"{key}: need datasets with labels, got {shards.name}, which has none. "
            f"It can be used for pre-training (pretrain.datasets)."
        )
    check_front_end(folder.logmel, weights.logmel, shards)
    chosen = taking_part(folder.index.table, task)
    table = folder.index.table.take(chosen)
    clips = annotated(table, task, shards.name, weights.digest)
    # Fail now rather than after hours of work.
    folds_of(clips)
    if not task.official_split:
        refuse_leaks(shards.name, table)
    learned = digests_in(weights.path)
    if learned is not None:
        heard = known(folder.recordings(chosen).table, learned.table) != NEW
        clips = replace(clips, heard=heard.astype(np.uint8), also_heard=learned.unknown)
    return Labelled(folder, chosen, table, clips)


def taking_part(table: pa.Table, task: Task) -> Int64[np.ndarray, " chosen"]:
    """Positions of the clips with a split, or with a fold if the task has folds."""
    column = table["split" if task.num_folds is None else "fold"]
    return np.flatnonzero(column.is_valid().to_numpy())


def annotated(table: pa.Table, task: Task, dataset: str, checkpoint: str) -> EmbeddedClips:
    """Rows of index.parquet -> labels, splits and folds for the probes.

    Raises ValueError if a label is not a class of the task, or is both present and absent.
    """
    columns: dict[str, list[Any]] = {
        name: table[name].to_pylist() for name in ("id", "split", "fold", "labels", "absent")
    }
    position = {name: index for index, name in enumerate(task.classes)}
    labels = np.zeros((len(table), len(task.classes)), dtype=np.uint8)
    observed = np.ones_like(labels)
    annotations = zip(columns["id"], columns["labels"], columns["absent"], strict=True)
    for row, (clip, present, absent) in enumerate(annotations):
        for label in [*present, *(absent or [])]:
            if label not in position:
                raise ValueError(f"{dataset}: need labels among the task's classes, got {label!r} for {clip}")
        labels[row, [position[label] for label in present]] = 1
        if absent is not None:
            observed[row] = labels[row]
            observed[row, [position[label] for label in absent]] = 1
            if both := set(present) & set(absent):
                raise ValueError(f"{dataset}: {clip}: need labels or absent, got {min(both)!r} in both")
    return EmbeddedClips(
        dataset=dataset,
        checkpoint=checkpoint,
        task=task,
        ids=columns["id"],
        splits=[split or "" for split in columns["split"]],
        folds=np.array([fold or 0 for fold in columns["fold"]], dtype=np.int64),
        labels=labels,
        observed=observed,
    )


def check_front_end(of_shards: LogMel, of_checkpoint: LogMel, shards: Path) -> None:
    field = of_checkpoint.first_difference(of_shards)
    if field is not None:
        raise ValueError(
            f"logmel.{field}: the checkpoint was trained with {getattr(of_checkpoint, field)}, "
            f"the shards in {shards} were made with {getattr(of_shards, field)}. Run `dvc repro`."
        )
