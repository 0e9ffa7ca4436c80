"""audio file -> waveform."""

import os
import sys
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32

from matpac.params import LogMel
from matpac.signal.resample import resample

SLOWEST_RATE_HZ, FASTEST_RATE_HZ = 1_000, 1_000_000
LOUDEST = 1e10
"""Full scale is 1, or 2 ** 31 in some float files; far above this, energies overflow float32."""
MOST_SAMPLES = 2**28
"""A gigabyte as float32: 1.7 hours at 44.1 kHz. Longer recordings have to be cut first."""
BLOCK_SAMPLES = 2**20


class UnusableAudio(Exception):
    """A recording that cannot become a log-mel. The reason is a short phrase for a table."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_audio(path: Path, params: LogMel) -> Float32[np.ndarray, " time"]:
    """Mono waveform at `params.sample_rate_hz`, at least one window long.

    Raises UnusableAudio.
    """
    samples, native_rate_hz = decode(path)
    waveform = resample(samples, native_rate_hz, params.sample_rate_hz, params.resampler)
    if len(waveform) < params.window_samples:
        raise UnusableAudio(path, "too short (shorter than one window)")
    return waveform


def decode(path: Path) -> tuple[Float32[np.ndarray, " time"], int]:
    """Mean of the channels, and the rate of the file in Hz.

    Raises UnusableAudio.
    """
    if not path.is_file():
        raise UnusableAudio(path, "no such file")
    try:
        with soundfile.SoundFile(path) as file:
            return _mean_of_channels(path, file), file.samplerate
    except soundfile.LibsndfileError as error:
        raise UnusableAudio(path, f"cannot be decoded ({_message(error)})") from error


def _mean_of_channels(path: Path, file: soundfile.SoundFile) -> Float32[np.ndarray, " time"]:
    if not SLOWEST_RATE_HZ <= file.samplerate <= FASTEST_RATE_HZ:
        raise UnusableAudio(path, f"sample rate of {file.samplerate} Hz")
    # By blocks: many channels cost no memory, and a header may claim frames that are not there.
    frames_per_block = max(BLOCK_SAMPLES // file.channels, 1)
    blocks = []
    num_samples = 0
    while len(block := file.read(frames_per_block, dtype="float32", always_2d=True)):
        lowest, highest = block.min(), block.max()
        if not np.isfinite([lowest, highest]).all():
            raise UnusableAudio(path, "not finite (NaN or infinite samples)")
        if max(-lowest, highest) > LOUDEST:
            raise UnusableAudio(path, f"samples beyond {LOUDEST:g}")
        blocks.append(np.einsum("tc->t", block) / np.float32(file.channels))
        num_samples += len(block)
        if num_samples > MOST_SAMPLES:
            raise UnusableAudio(path, f"too long (more than {MOST_SAMPLES:,} samples)")
    if not blocks:
        raise UnusableAudio(path, "no samples")
    return np.concatenate(blocks)


def _message(error: soundfile.LibsndfileError) -> str:
    """libsndfile's words, except where they mislead."""
    if error.error_string.startswith("File does not exist or is not a regular file"):
        return "no valid MP3 frame"
    return error.error_string.rstrip(".")


def mute_c_libraries() -> None:
    """For worker processes: hide what C libraries print on standard error, not what Python does.

    libsndfile's MP3 decoder prints several lines about every damaged file and takes no orders.
    """
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
