"""waveform -> log-mel.

Runs in spawned workers that must start at once, so it imports neither torch nor librosa.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import scipy.fft
from jaxtyping import Float32
from numpy.lib.stride_tricks import sliding_window_view

from matpac.params import LogMel

FLOOR = 1.1920929e-07
"""Added to the energies before the logarithm: float32's epsilon, about -16 for digital silence."""
BLOCK_FRAMES = 256
FRAMES_AT_ONCE = 64 * BLOCK_FRAMES
"""Frames of a block of a recording, 164 s at 10 ms a frame; a multiple of `BLOCK_FRAMES` keeps the bits."""


def num_frames(num_samples: int, params: LogMel) -> int:
    """Frames of a waveform: every window that fits as a whole, one per hop."""
    return max(1 + (num_samples - params.window_samples) // params.hop_samples, 0)


def log_mel(
    waveform: Float32[np.ndarray, " time"], params: LogMel, filters: Float32[np.ndarray, "bin mel"]
) -> Float32[np.ndarray, "frame mel"]:
    """Natural logarithm of the mel energies, one row per hop.

    Nothing is padded: the first frame starts at sample 0 and the last one ends inside the waveform.

    Args:
        waveform: Mono samples `[time]` at `params.sample_rate_hz`, full scale 1.
        params: Window and hop of the front end.
        filters: Mel filterbank `[bin, mel]` of the front end, from `mel_filters(params)`.

    Returns:
        Log-mel `[frame, mel]`; without frames if the waveform is shorter than one window.
    """
    total = num_frames(len(waveform), params)
    result = np.empty((total, filters.shape[1]), dtype=np.float32)
    if total == 0:
        return result
    frames = sliding_window_view(waveform, params.window_samples)[:: params.hop_samples]
    window = hann(params.window_samples)
    # Blocks fit into the processor's cache and keep memory small for recordings of any length.
    for start in range(0, total, BLOCK_FRAMES):
        spectrum = scipy.fft.rfft(frames[start : start + BLOCK_FRAMES] * window)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        energies = power @ filters
        energies += np.float32(FLOOR)
        np.log(energies, out=result[start : start + BLOCK_FRAMES])
    return result


def log_mel_blocks(
    waveform: Iterable[Float32[np.ndarray, " time"]], params: LogMel, filters: Float32[np.ndarray, "bin mel"]
) -> Iterator[Float32[np.ndarray, "frame mel"]]:
    """Log-mel of a waveform that comes in blocks of any lengths.

    All blocks but the last have `FRAMES_AT_ONCE` frames. Joined, they are what `log_mel` makes of the
    whole, bit by bit; a waveform shorter than one window gives none.
    """
    # One hop more than the last window, because a hop may be longer than a window.
    step = FRAMES_AT_ONCE * params.hop_samples
    needed = step + params.window_samples
    held: list[Float32[np.ndarray, " time"]] = []
    num_held = 0
    for block in waveform:
        held.append(block)
        num_held += len(block)
        if num_held < needed:
            continue
        samples = np.concatenate(held)
        while len(samples) >= needed:
            yield log_mel(samples[: needed - params.hop_samples], params, filters)
            samples = samples[step:]
        held, num_held = [samples.copy()], len(samples)
    rest = held[0] if len(held) == 1 else np.concatenate([*held, np.empty(0, dtype=np.float32)])
    if num_frames(len(rest), params):
        yield log_mel(rest, params, filters)


@lru_cache(maxsize=8)
def hann(window_samples: int) -> Float32[np.ndarray, " time"]:
    """Periodic Hann window."""
    turns = np.arange(window_samples) / window_samples
    return (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype(np.float32)
