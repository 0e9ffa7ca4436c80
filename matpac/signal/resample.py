"""waveform -> waveform at another rate."""

import math
from collections.abc import Iterable, Iterator
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
PIECE_SAMPLES = 2**22
"""Samples that are resampled at once: 16 MB, sixteen times that from 1 to 16 kHz."""
Resampler = Literal["soxr_hq", "kaiser_best"]


def resample(
    samples: Float32[np.ndarray, " time"], from_hz: int, to_hz: int, method: Resampler
) -> Float32[np.ndarray, " resampled"]:
    """The waveform at `to_hz`, ceil(time * to_hz / from_hz) samples long."""
    if from_hz == to_hz:
        return samples
    blocks = list(resample_blocks([samples], from_hz, to_hz, method))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def resample_blocks(
    blocks: Iterable[Float32[np.ndarray, " time"]], from_hz: int, to_hz: int, method: Resampler
) -> Iterator[Float32[np.ndarray, " resampled"]]:
    """Resample a waveform that comes in blocks; gives blocks of other lengths.

    The result does not depend on the blocks: joined, they are what `resample` makes of the whole.
    """
    if from_hz == to_hz:
        yield from blocks
        return
    num_given = num_made = 0

    def counted() -> Iterator[Float32[np.ndarray, " time"]]:
        nonlocal num_given
        for block in blocks:
            # In pieces, because a low rate becomes many times longer.
            for first in range(0, len(block), PIECE_SAMPLES):
                piece = block[first : first + PIECE_SAMPLES]
                num_given += len(piece)
                yield piece

    resampled = (kaiser_sinc if method == "kaiser_best" else _soxr)(counted(), from_hz, to_hz)
    for block in resampled:
        block = block[: -(-num_given * to_hz // from_hz) - num_made]
        num_made += len(block)
        if len(block):
            yield block
    # soxr rounds the length to the nearest integer, so one sample may be missing.
    if missing := -(-num_given * to_hz // from_hz) - num_made:
        yield np.zeros(missing, dtype=np.float32)


def _soxr(
    pieces: Iterable[Float32[np.ndarray, " time"]], from_hz: int, to_hz: int
) -> Iterator[Float32[np.ndarray, " resampled"]]:
    stream = soxr.ResampleStream(from_hz, to_hz, num_channels=1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def kaiser_sinc(
    pieces: Iterable[Float32[np.ndarray, " time"]], from_hz: int, to_hz: int
) -> Iterator[Float32[np.ndarray, " resampled"]]:
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
    tail = 2 * reach + row_step
    # Rows that are computed, of each group of columns. A product of other rows would round otherwise, so
    # each has the same rows however the input is cut, and some columns get ahead of others.
    done = dict.fromkeys(range(0, num_phases, WIDTH), 0)
    computed = np.empty((0, num_periods * num_phases), dtype=np.float32)

    def rows_of(samples: Float32[np.ndarray, " time"], num_rows: int, *, last: bool) -> int:
        """Compute what is possible with these samples; returns how many rows are complete."""
        nonlocal computed
        computed = np.concatenate(
            [computed, np.empty((num_rows - len(computed), computed.shape[1]), np.float32)]
        )
        for first, begin in done.items():
            filters = _filters(step, num_phases, first, reach, num_periods)
            num_taps, width = filters.shape
            rows = sliding_window_view(samples[first * step // num_phases :], num_taps)[::row_step]
            rows_of_product = max(BLOCK_SAMPLES // num_taps, 1)
            end = num_rows if last else num_rows - (num_rows - begin) % rows_of_product
            for start in range(begin, end, rows_of_product):
                block = np.ascontiguousarray(rows[start : min(start + rows_of_product, end)])
                computed[start : start + len(block), first : first + width] = block @ filters
            done[first] = end
        return min(done.values())

    held = np.zeros(reach, dtype=np.float32)
    num_left = 0
    for piece in _of_length(pieces, PIECE_SAMPLES):
        held = np.concatenate([held, piece])
        num_left += len(piece)
        num_rows = (len(held) - tail) // row_step
        if num_rows <= len(computed):
            continue
        complete = rows_of(held, num_rows, last=False)
        yield computed[:complete].reshape(-1)
        computed, held = computed[complete:].copy(), held[complete * row_step :].copy()
        num_left -= complete * row_step
        done = {first: end - complete for first, end in done.items()}
    num_rows = max(-(-num_left // row_step), 0)
    held = np.pad(held, (0, max(num_rows * row_step + tail - len(held), 0)))
    rows_of(held, num_rows, last=True)
    yield computed.reshape(-1)


def _of_length(
    pieces: Iterable[Float32[np.ndarray, " time"]], num_samples: int
) -> Iterator[Float32[np.ndarray, " joined"]]:
    """The same samples in pieces of at least this length; the last may be shorter."""
    found: list[Float32[np.ndarray, " time"]] = []
    num_found = 0
    for piece in pieces:
        found.append(piece)
        num_found += len(piece)
        if num_found >= num_samples:
            yield np.concatenate(found)
            found, num_found = [], 0
    if found:
        yield np.concatenate(found)


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
