"""shards -> embeddings."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from matpac.encoder.encoder import load_encoder, untrained_encoder
from matpac.encoder.over_time import OverTime
from matpac.files import room_for
from matpac.params import Embed
from matpac.probing.external import Located, OtherEncoder, load_other, read_sounds, recordings_of
from matpac.probing.heard import say_heard
from matpac.probing.labelled import open_labelled
from matpac.probing.store import write_embeddings
from matpac.progress import Progress, counted
from matpac.weights.open import open_checkpoint


def embed_stage(shards: Path, located: Located, checkpoint: Path, out: Path, params: Embed) -> None:
    """Embed a labelled dataset by trained, untrained and other encoders and log-mel statistics.

    Clips without a split or fold are left out, because no probe uses them. Only other encoders read
    the recordings (`located`); ours read the shards. Raises ValueError if the dataset has no labels
    or cannot be probed (`folds_of`), a group is in several splits or folds that are not official,
    shards or weights are not as they were written, the shards have another front end than the
    checkpoint, or another encoder cannot be used (`load_other`).
    """
    trained = load_encoder(checkpoint, precision=params.precision)
    untrained = untrained_encoder(checkpoint, precision=params.precision)
    folder, chosen, table, clips = open_labelled(shards, open_checkpoint(checkpoint), "probe.datasets")
    say_heard(clips)
    others = [load_other(name, other) for name, other in params.others.items()]
    clips = replace(clips, others={other.name: other.origin for other in others})

    def log_mels() -> Iterator[NDArray[np.float16]]:
        return (folder.read_clip(clip) for clip in chosen.tolist())

    batch_size = params.batch_size
    features: dict[str, Iterator[NDArray[np.float32] | OverTime]] = {}
    for name, encoder in (("pretrained", trained), ("random_init", untrained)):
        embed = encoder.embed_log_mels_in_time if params.over_time else encoder.moments_of_log_mels
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


def statistics(log_mel: NDArray[np.float16]) -> Float32[np.ndarray, " dim"]:
    """Mean, deviation and maximum of every mel band over time: the baseline without learning."""
    wide = log_mel.astype(np.float32)
    return np.concatenate([wide.mean(0), wide.std(0), wide.max(0)])
