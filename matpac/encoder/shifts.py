"""log-mels -> the same from later frames on; the steps of all of these -> steps in the order of time.

A step hears 16 frames and begins where the one before ends. Encoded from frame 4 on, the steps of a clip
begin a quarter later; the shifts 0, 4, 8 and 12 together give a step every 4 frames.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from matpac.encoder.batches import FRAMES_AT_ONCE

Frames = NDArray[np.floating]


class Shifted(NamedTuple):
    """Some frames of a clip, heard from `shift` on."""

    clip: int
    piece: int
    """Number of the frames; those with one number differ only in their shift."""
    shift: int
    log_mel: Frames


def with_shifts(
    pieces: Iterable[tuple[int, Frames]], shifts: Sequence[int], chunk_frames: int
) -> Iterator[Shifted]:
    """Every piece from each of the shifts on, those of one piece together.

    Args:
        pieces: Number of the clip, and some of its frames `[frame, mel]`, as for
            `AudioEncoder.embed_pieces`.
        shifts: First frames, the first of all being 0.
        chunk_frames: Frames of a chunk. Long pieces are cut into whole chunks, for the memory of their
            steps.

    Returns:
        A shifted piece is as long as the piece, since it goes on into the next one; it ends with the clip.
        One that would begin after the end is left out.
    """
    if len(shifts) == 1:
        for number, (clip, log_mel) in enumerate(pieces):
            yield Shifted(clip, number, 0, log_mel)
        return
    most = max(FRAMES_AT_ONCE // len(shifts) // chunk_frames, 1) * chunk_frames
    parts = (
        (clip, log_mel[first : first + most])
        for clip, log_mel in pieces
        for first in range(0, len(log_mel), most)
    )
    held: tuple[int, Frames] | None = None
    for number, (clip, log_mel) in enumerate(chain(parts, [(-1, np.empty((0, 0)))]), start=-1):
        if held is not None:
            before, frames = held
            goes_on = [log_mel[: shifts[-1]]] if clip == before else []
            longer = np.concatenate([frames, *goes_on])
            for shift in shifts:
                if shift < len(longer):
                    yield Shifted(before, number, shift, longer[shift : shift + len(frames)])
        held = clip, log_mel


def in_order_of_time(
    steps: Sequence[Float32[np.ndarray, "layer _ dim"]],
) -> Float32[np.ndarray, "layer step dim"]:
    """Steps of all shifts of a piece -> its steps: the first of each shift, then the second of each..."""
    if len(steps) == 1:
        return steps[0]
    num_layers, _, dim = steps[0].shape
    result = np.empty((num_layers, sum(of_shift.shape[1] for of_shift in steps), dim), dtype=np.float32)
    for position, of_shift in enumerate(steps):
        result[:, position :: len(steps)] = of_shift
    return result
