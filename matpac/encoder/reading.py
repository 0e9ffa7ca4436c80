"""audio files -> their log-mels in order, read ahead by threads within a bound of memory."""

from collections.abc import Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Condition
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from matpac.clip import REJECT, UnusableAudio
from matpac.encoder.batches import FRAMES_AT_ONCE
from matpac.params import Channels, LogMel
from matpac.signal.recording import NO_MEMORY, convert
from matpac.threads import in_order

FILES_AHEAD, FRAMES_AHEAD = 512, 2 * FRAMES_AT_ONCE
"""Files and frames that are read and not yet embedded: 164 MB with the paper's front end. Beyond it, each
reader holds at most one file, or the beginning of a long one."""
FRAMES_AT_THE_BEGINNING = FRAMES_AT_ONCE
"""Frames of a file that are read ahead, 43 minutes; the encoder asks for the rest when it is its turn."""

Pieces = Iterator[NDArray[np.float32]]


class Reading(NamedTuple):
    """A file that is being read."""

    pieces: Pieces
    """Log-mels `[frame, mel]`, one after the other. Any of them may raise UnusableAudio."""
    notes: list[str]
    """What is odd about the file, as for `matpac.clip.Note`. Complete after the last piece."""


class Room:
    """Frames that may be held. Whoever finds no room waits; the next file in order always goes on."""

    def __init__(self, most_frames: int) -> None:
        self._most, self._held, self._next = most_frames, 0, 0
        self._is_open = True
        self._changed = Condition()

    def wait(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._held < self._most or number <= self._next or not self._is_open
            )

    def fill(self, num_frames: int) -> None:
        with self._changed:
            self._held += num_frames

    def empty(self, num_frames: int) -> None:
        """The next file in order has been taken."""
        with self._changed:
            self._held -= num_frames
            self._next += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()


def read_ahead(
    paths: Iterable[Path],
    logmel: LogMel,
    filters: Float32[np.ndarray, "bin mel"],
    chunk_frames: int,
    num_threads: int,
    reject: Collection[str] = REJECT,
    channels: Channels = "mean",
) -> Generator[Reading, None, None]:
    """Log-mels of files, in order.

    Args:
        paths: Files to read.
        logmel: Front end.
        filters: Mel filterbank `[bin, mel]` of the front end.
        chunk_frames: Frames of the encoder's chunks. Every piece but a file's last is a multiple.
        num_threads: Readers.
        reject: Reasons to refuse audio that can be decoded, as for `matpac.signal.audio.decode`.
        channels: What becomes of several channels, as for `matpac.signal.audio.decode`.

    Returns:
        A reading of each file, with one piece unless the file is long. Use it before the next one.
    """
    room = Room(FRAMES_AHEAD)

    def read(number: int, path: Path) -> tuple[int, Reading]:
        room.wait(number)
        num_frames, reading = begin(path, logmel, filters, chunk_frames, reject, channels)
        room.fill(num_frames)
        return num_frames, reading

    jobs = (partial(read, number, path) for number, path in enumerate(paths))
    with (
        ThreadPoolExecutor(num_threads) as pool,
        closing(in_order(jobs, FILES_AHEAD, pool)) as results,
    ):
        try:
            for num_frames, reading in results:
                room.empty(num_frames)
                yield reading
        finally:
            room.close()


def begin(
    path: Path,
    logmel: LogMel,
    filters: Float32[np.ndarray, "bin mel"],
    chunk_frames: int,
    reject: Collection[str] = REJECT,
    channels: Channels = "mean",
) -> tuple[int, Reading]:
    """Read a file to its end, or the beginning of a long one.

    Returns:
        Frames in memory, and the reading, as `read_ahead` gives it.
    """
    try:
        converted = convert(path, logmel, filters, reject=reject, channels=channels)
        blocks = converted.blocks
        found: list[NDArray[np.float32]] = []
        num_frames = 0
        for block in blocks:
            found.append(block)
            num_frames += len(block)
            if num_frames >= FRAMES_AT_THE_BEGINNING:
                pieces = _cut(path, np.concatenate(found), blocks, chunk_frames)
                return num_frames, Reading(pieces, converted.notes)
    except UnusableAudio as error:
        return 0, Reading(_failed(error), [])
    except MemoryError:
        return 0, Reading(_failed(UnusableAudio(path, NO_MEMORY)), [])
    whole = found[0] if len(found) == 1 else np.concatenate(found)
    return num_frames, Reading(iter([whole]), converted.notes)


def _cut(path: Path, held: NDArray[np.float32], blocks: Pieces, chunk_frames: int) -> Pieces:
    """The frames of `held` and `blocks` in whole chunks."""
    try:
        while True:
            end = len(held) // chunk_frames * chunk_frames
            if end:
                yield held[:end]
            held = held[end:].copy()
            block = next(blocks, None)
            if block is None:
                break
            held = np.concatenate([held, block])
        if len(held):
            yield held
    except MemoryError as error:
        raise UnusableAudio(path, NO_MEMORY) from error


def _failed(error: UnusableAudio) -> Pieces:
    yield from ()
    raise error
