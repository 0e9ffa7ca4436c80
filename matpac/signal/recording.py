"""audio file -> log-mel, block by block: memory grows with the log-mel, not with the samples.

Blocks give the same bits as the whole recording, so no length changes the way a recording is converted.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Float32

from matpac.clip import UnusableAudio
from matpac.params import Channels, LogMel
from matpac.signal.audio import decode_blocks, too_long
from matpac.signal.logmel import log_mel_blocks
from matpac.signal.resample import resample_blocks

MOST_BYTES = 2**30
"""Longest log-mel as float16, the form that is held whole: 18.6 hours with the paper's front end. The file's
own rate and size make no difference."""
NO_MEMORY = "cannot be read (not enough memory is free)"
"""A reason that may be gone with the next run."""


@dataclass
class Converted:
    """A recording as it comes out of the front end. Its length is known once all blocks have been read."""

    native_rate_hz: int
    blocks: Iterator[Float32[np.ndarray, "frame mel"]]
    """Log-mel; every block but the last has the same number of frames."""
    num_samples: int = 0
    """Samples decoded so far, at the rate of the file."""
    notes: list[str] = field(default_factory=list)
    """What is odd about it, as for `matpac.clip.Note`. Complete after the last block."""

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.native_rate_hz


def convert(
    source: Path | bytes,
    params: LogMel,
    filters: Float32[np.ndarray, "bin mel"],
    name: Path | None = None,
    reject: Collection[str] = (),
    channels: Channels = "mean",
) -> Converted:
    """Decode, resample and analyze a recording in blocks.

    Args:
        source: A file or its bytes.
        params: Front end.
        filters: Mel filterbank `[bin, mel]` of the front end.
        name: Path for error messages; by default that of the file.
        reject: Reasons to refuse audio that can be decoded, as for `decode`.
        channels: What becomes of several channels, as for `decode`.

    Raises:
        UnusableAudio: With the reason, here or while blocks are read: damage is found where it lies.
    """
    path = name or (source if isinstance(source, Path) else Path("<bytes>"))
    native_rate_hz, samples, notes = decode_blocks(source, path, reject, channels, longest_s(params))
    converted = Converted(native_rate_hz, iter(()), notes=notes)

    def counted() -> Iterator[Float32[np.ndarray, " time"]]:
        for block in samples:
            converted.num_samples += len(block)
            yield block

    waveform = resample_blocks(counted(), native_rate_hz, params.sample_rate_hz, params.resampler)
    converted.blocks = _checked(path, log_mel_blocks(waveform, params, filters), params)
    return converted


def whole_log_mel(
    blocks: Iterable[Float32[np.ndarray, "_ mel"]],
) -> Float16[np.ndarray, "frame mel"]:
    """All blocks as one array of float16, without a second copy in memory."""
    whole: Float16[np.ndarray, "frame mel"] | None = None
    for block in blocks:
        if whole is None:
            whole = block.astype(np.float16)
            continue
        done = len(whole)
        # The system moves large arrays by their page tables; copies would double the memory.
        whole.resize((done + len(block), block.shape[1]), refcheck=False)
        whole[done:] = block
    assert whole is not None, "a recording has at least one block"
    return whole


def most_frames(params: LogMel) -> int:
    """Frames of the longest recording that is converted."""
    return MOST_BYTES // (2 * params.num_mels)


def longest_s(params: LogMel) -> float:
    return most_frames(params) * params.hop_samples / params.sample_rate_hz


def _checked(
    path: Path, blocks: Iterator[Float32[np.ndarray, "frame mel"]], params: LogMel
) -> Iterator[Float32[np.ndarray, "frame mel"]]:
    num_frames = 0
    for block in blocks:
        num_frames += len(block)
        if num_frames > most_frames(params):
            raise too_long(path, longest_s(params))
        # Looked at in float32, which is faster; a finite logarithm always fits into float16.
        if not np.isfinite(block).all():
            raise UnusableAudio(path, "not finite (the log-mel overflows)")
        yield block
    if num_frames == 0:
        raise UnusableAudio(path, "too short (shorter than one window)")
