"""shards or files -> embeddings."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from matpac.datasets.clip import Task
from matpac.files import read_json, whole_file
from matpac.params import Embed, LogMel
from matpac.probing.embeddings import EmbeddingSet, write_embeddings
from matpac.probing.encoder import AudioEncoder, load_encoder, untrained_encoder
from matpac.progress import Progress
from matpac.shards.folder import ShardFolder
from matpac.signal.audio import UnusableAudio


def embed_stage(shards: Path, checkpoint: Path, out: Path, params: Embed) -> None:
    """Embed all clips of a labelled dataset: trained encoder, untrained encoder, log-mel statistics.

    Raises ValueError where the dataset has no labels, or its shards have another front end than the
    checkpoint.
    """
    folder = ShardFolder(shards)
    raw_task = read_json(shards / "task.json")
    if raw_task is None:
        raise ValueError(
            f"probe.datasets: need datasets with labels, got {shards.name}, which has none. "
            f"It can be used for pre-training (pretrain.datasets)."
        )
    task = Task(**raw_task | {"classes": tuple(raw_task["classes"])})
    trained, untrained = load_encoder(checkpoint), untrained_encoder(checkpoint)
    check_front_end(folder.logmel, trained.logmel, shards)

    progress = Progress(f"embed {shards.name}", 2 * len(folder), "clips")
    features = {
        "pretrained": embedded(trained, folder, params, progress),
        "random_init": embedded(untrained, folder, params, progress),
        "logmel_statistics": np.stack([statistics(clip) for clip in clips(folder)]),
    }
    index = folder.index
    write_embeddings(
        out,
        EmbeddingSet(
            dataset=shards.name,
            checkpoint=checkpoint_digest(checkpoint),
            task=task,
            ids=index.column("id"),
            splits=[split or "" for split in index.column("split")],
            folds=np.array([fold or 0 for fold in index.column("fold")], dtype=np.int64),
            labels=multi_hot(index.column("labels"), task.classes),
            features=features,
        ),
    )


def embedded(
    encoder: AudioEncoder, folder: ShardFolder, params: Embed, progress: Progress
) -> Float32[np.ndarray, "clip dim"]:
    rows = []
    for row in encoder.embed_log_mels(clips(folder), batch_size=params.batch_size):
        rows.append(row)
        progress.advance()
    return np.stack(rows)


def clips(folder: ShardFolder) -> Iterator[NDArray[np.float16]]:
    return (folder.read_clip(clip) for clip in range(len(folder)))


def statistics(log_mel: NDArray[np.float16]) -> Float32[np.ndarray, " dim"]:
    """Mean, deviation and maximum of every mel band over time: what no learning gives for free."""
    wide = log_mel.astype(np.float32)
    return np.concatenate([wide.mean(0), wide.std(0), wide.max(0)])


def multi_hot(labels: Sequence[Sequence[str]], classes: Sequence[str]) -> UInt8[np.ndarray, "clip class"]:
    position = {name: index for index, name in enumerate(classes)}
    hot = np.zeros((len(labels), len(classes)), dtype=np.uint8)
    for clip, names in enumerate(labels):
        hot[clip, [position[name] for name in names]] = 1
    return hot


def check_front_end(of_shards: LogMel, of_checkpoint: LogMel, shards: Path) -> None:
    field = of_checkpoint.first_difference(of_shards)
    if field is not None:
        raise ValueError(
            f"logmel.{field}: the checkpoint was trained with {getattr(of_checkpoint, field)}, "
            f"the shards in {shards} were made with {getattr(of_shards, field)}. Run `dvc repro`."
        )


def checkpoint_digest(checkpoint: Path) -> str:
    path = checkpoint / "networks.safetensors" if checkpoint.is_dir() else checkpoint
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def embed_files(files: Sequence[Path], checkpoint: Path, out: Path) -> None:
    """Write `embeddings` [file, dim] and `paths` [file] to an .npz file.

    A file that cannot be used is named on standard error and left out; ValueError where none can.
    """
    encoder = load_encoder(checkpoint)
    progress = Progress("embed", len(files), "files")
    rows, paths = [], []
    for path in files:
        try:
            rows.append(encoder.embed_file(path))
            paths.append(str(path))
        except UnusableAudio as error:
            sys.stderr.write(f"left out: {error}\n")
        progress.advance()
    if not rows:
        raise ValueError(f"embed: none of {len(files)} files could be used")
    with whole_file(out) as partial, partial.open("wb") as file:
        np.savez(file, embeddings=np.stack(rows), paths=np.array(paths))
    sys.stderr.write(f"{out}: {len(rows)} embeddings of {encoder.dim} dimensions\n")
