"""waveform -> waveform at another rate."""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import soxr
from jaxtyping import Float32
from numpy.lib.stride_tricks import sliding_window_view

ZERO_CROSSINGS = 64
ROLLOFF = 0.9475937167399596
KAISER_BETA = 14.769656459379492
WIDTH = 160
"""Outputs in a row of the matrix products. More phases are split into several products, which bounds the
memory for rates without a common divisor; with fewer phases, several periods share a row."""
BLOCK_SAMPLES = 2**18
"""Samples in the left side of a matrix product, which repeats inputs; they fit into a cache."""


def resample(
    samples: Float32[np.ndarray, " time"],
    from_hz: int,
    to_hz: int,
    method: Literal["soxr_hq", "kaiser_best"],
) -> Float32[np.ndarray, " resampled"]:
    """The waveform at `to_hz`, ceil(time * to_hz / from_hz) samples long."""
    if from_hz == to_hz:
        return samples
    num_samples = -(-len(samples) * to_hz // from_hz)
    if method == "kaiser_best":
        return kaiser_sinc(samples, from_hz, to_hz)[:num_samples]
    resampled = soxr.resample(samples, from_hz, to_hz, quality="HQ")[:num_samples]
    # soxr rounds the length to the nearest integer, so one sample may be missing.
    missing = num_samples - len(resampled)
    return np.pad(resampled, (0, missing)) if missing else resampled


def kaiser_sinc(
    samples: Float32[np.ndarray, " time"], from_hz: int, to_hz: int
) -> Float32[np.ndarray, " resampled"]:
    """Band-limited interpolation by a sinc under a Kaiser window. The result may be a little longer.

    Output sample `j` lies at input time `j * from_hz / to_hz`. With both rates divided by their
    greatest common divisor, the filters repeat every `to` outputs (phases) while the input advances
    by `from` samples: one row of a matrix for one or several such periods, one column per output.
    """
    divisor = math.gcd(from_hz, to_hz)
    step, num_phases = from_hz // divisor, to_hz // divisor
    reach = math.ceil(ZERO_CROSSINGS * step / (min(step, num_phases) * ROLLOFF))
    num_periods = max(WIDTH // num_phases, 1)
    row_step = num_periods * step
    num_rows = -(-len(samples) // row_step)
    padded = np.zeros(reach + num_rows * row_step + reach + row_step, dtype=np.float32)
    padded[reach : reach + len(samples)] = samples
    resampled = np.empty((num_rows, num_periods * num_phases), dtype=np.float32)
    for first in range(0, num_phases, WIDTH):
        filters = _filters(step, num_phases, first, reach, num_periods)
        num_taps, width = filters.shape
        rows = sliding_window_view(padded[first * step // num_phases :], num_taps)[::row_step]
        rows_per_block = max(BLOCK_SAMPLES // num_taps, 1)
        for start in range(0, num_rows, rows_per_block):
            block = np.ascontiguousarray(rows[start : min(start + rows_per_block, num_rows)])
            resampled[start : start + len(block), first : first + width] = block @ filters
    return resampled.reshape(-1)


@lru_cache(maxsize=8)
def _filters(
    step: int, num_phases: int, first: int, reach: int, num_periods: int
) -> Float32[np.ndarray, "tap output"]:
    """Filters of the phases from `first` on, repeated for several periods that are `step` apart."""
    filters = _filters_of_period(step, num_phases, first, reach)
    num_taps, width = filters.shape
    repeated = np.zeros((num_taps + (num_periods - 1) * step, num_periods * width), dtype=np.float32)
    for period in range(num_periods):
        start = period * step
        repeated[start : start + num_taps, period * width : (period + 1) * width] = filters
    return repeated


def _filters_of_period(
    step: int, num_phases: int, first: int, reach: int
) -> Float32[np.ndarray, "tap phase"]:
    """Filters in single precision throughout, as in the released code.

    With exact filters the waveform would differ by 7e-6, and nearly silent mel bands by 1e-3.
    """
    last = min(first + WIDTH, num_phases) - 1
    first_tap = first * step // num_phases - reach
    last_tap = -(-last * step // num_phases) + reach
    phases = np.arange(first, last + 1, dtype=np.float32)
    taps = np.arange(first_tap, last_tap + 1, dtype=np.float32)
    cutoff = np.float32(min(step, num_phases) * ROLLOFF)
    periods = taps[:, None] / np.float32(step) - phases[None, :] / np.float32(num_phases)
    crossings = (periods * cutoff).clip(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.i0(KAISER_BETA * np.sqrt(1 - (crossings / ZERO_CROSSINGS) ** 2))
    angle = crossings * np.float32(np.pi)
    sinc = np.where(angle == 0, 1, np.sin(angle) / np.where(angle == 0, 1, angle))
    return (sinc * window * (cutoff / step / np.i0(KAISER_BETA))).astype(np.float32)
