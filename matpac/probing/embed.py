"""shards -> embeddings."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from matpac.clip import Task
from matpac.encoder.encoder import load_encoder, untrained_encoder
from matpac.encoder.over_time import OverTime
from matpac.files import check_seal, room_for
from matpac.params import Embed, LogMel
from matpac.probing.external import Located, OtherEncoder, load_other, read_sounds, recordings_of
from matpac.probing.folds import folds_of
from matpac.probing.store import EmbeddedClips, write_embeddings
from matpac.progress import Progress, counted
from matpac.shards.folder import ShardFolder, read_task
from matpac.shards.leaks import refuse_leaks
from matpac.weights.open import open_checkpoint


def embed_stage(shards: Path, located: Located, checkpoint: Path, out: Path, params: Embed) -> None:
    """Embed a labelled dataset by trained, untrained and other encoders and log-mel statistics.

    Clips without a split or fold are left out, because no probe uses them. Only other encoders read
    the recordings (`located`); ours read the shards. Raises ValueError if the dataset has no labels
    or cannot be probed (`folds_of`), a group is in several splits or folds that are not official,
    shards or weights are not as they were written, the shards have another front end than the
    checkpoint, or another encoder cannot be used (`load_other`).
    """
    folder = ShardFolder(shards)
    check_seal(shards, f"shards@{shards.name}")
    task = read_task(shards)
    if task is None:
        raise ValueError(
            f"probe.datasets: need datasets with labels, got {shards.name}, which has none. "
            f"It can be used for pre-training (pretrain.datasets)."
        )
    trained = load_encoder(checkpoint, precision=params.precision)
    untrained = untrained_encoder(checkpoint, precision=params.precision)
    check_front_end(folder.logmel, trained.logmel, shards)
    chosen = taking_part(folder.index.table, task)
    table = folder.index.table.take(chosen)
    clips = annotated(table, task, shards.name, open_checkpoint(checkpoint).digest)
    # Fail now rather than after hours of embedding.
    folds_of(clips)
    if not task.official_split:
        refuse_leaks(shards.name, table)
    others = [load_other(name, other) for name, other in params.others.items()]
    clips = replace(clips, others={other.name: other.origin for other in others})

    def log_mels() -> Iterator[NDArray[np.float16]]:
        return (folder.read_clip(clip) for clip in chosen.tolist())

    batch_size = params.batch_size
    features: dict[str, Iterator[NDArray[np.float32] | OverTime]] = {}
    for name, encoder in (("pretrained", trained), ("random_init", untrained)):
        embed = encoder.embed_log_mels_in_time if params.over_time else encoder.embed_log_mels
        features[name] = iter(embed(log_mels(), batch_size=batch_size))
    features["logmel_statistics"] = map(statistics, log_mels())
    recordings = recordings_of(table["path"].to_pylist(), located) if others else []

    def scenes(other: OtherEncoder, num_clips: int) -> Iterator[NDArray[np.float32]]:
        first = recordings[:num_clips]
        how = other.sample_rate_hz, folder.logmel.resampler, located.channels
        sounds = read_sounds(first, located.root, *how)
        return other.embed(clips.ids[:num_clips], sounds, batch_size)

    for other in others:
        # A first embedding, so that a broken encoder fails now too.
        next(scenes(other, 1))
        features[other.name] = scenes(other, len(chosen))
    progress = Progress(f"embed {shards.name}", len(features) * len(chosen), "clips")
    rows_of = {name: counted(rows, progress.advance) for name, rows in features.items()}
    with room_for(out):
        write_embeddings(out, clips, rows_of)


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


def statistics(log_mel: NDArray[np.float16]) -> Float32[np.ndarray, " dim"]:
    """Mean, deviation and maximum of every mel band over time: the baseline without learning."""
    wide = log_mel.astype(np.float32)
    return np.concatenate([wide.mean(0), wide.std(0), wide.max(0)])


def check_front_end(of_shards: LogMel, of_checkpoint: LogMel, shards: Path) -> None:
    field = of_checkpoint.first_difference(of_shards)
    if field is not None:
        raise ValueError(
            f"logmel.{field}: the checkpoint was trained with {getattr(of_checkpoint, field)}, "
            f"the shards in {shards} were made with {getattr(of_shards, field)}. Run `dvc repro`."
        )
