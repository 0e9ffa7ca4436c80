"""shards -> batches of random crops, the same ones whatever reads them.

Sample `k` of the endless stream belongs to epoch `k // num_clips`. Every epoch shuffles all clips of all
folders, from (seed, epoch); where a clip is cut follows from (seed, epoch, clip). Nothing else decides: not
the number of threads, nor the size of a batch, nor what was read before. So a run goes on anywhere.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matpac.shards.folder import ShardFolder
from matpac.shards.statistics import Statistics, combined

SILENCE = np.float16(np.log(1.1920929e-07))
"""What the front end makes of digital silence."""
NUM_THREADS = 4
"""Reading releases the interpreter's lock; more threads only help on slow disks."""


Shape = tuple[int, int, int]


def ordinary_memory(shape: Shape) -> NDArray[np.float16]:
    return np.empty(shape, dtype=np.float16)


class Batch(NamedTuple):
    log_mel: NDArray[np.float16]
    """[batch, frame, mel]"""
    clips: NDArray[np.int64]
    """[batch], as `Crops.ids` takes them."""


class Crops:
    """Random crops of one dataset or of a mixture in which every clip is seen once an epoch."""

    def __init__(
        self,
        folders: Sequence[Path],
        crop_frames: int,
        short_clips: Literal["drop", "pad"],
        seed: int,
    ) -> None:
        """Clips shorter than a crop are left out (`drop`) or followed by digital silence (`pad`).

        Padding follows the log-mel, not the waveform: the few windows that would straddle the end of the
        recording are not computed.

        Raises ValueError where folders do not fit together or hold no clip that is long enough.
        """
        self.folders = [ShardFolder(path) for path in folders]
        _check_same_front_end(self.folders)
        self.crop_frames, self.seed = crop_frames, seed
        self.num_mels = self.folders[0].logmel.num_mels
        self.statistics: Statistics = combined(folder.statistics for folder in self.folders)
        num_frames = np.concatenate([folder.index.num_frames for folder in self.folders])
        firsts = np.cumsum([0, *(len(folder) for folder in self.folders)])
        longest_first = 0 if short_clips == "pad" else crop_frames
        kept = np.flatnonzero(num_frames >= longest_first)
        if len(kept) == 0:
            raise ValueError(
                f"pretrain.crop_frames: need clips of at least {crop_frames} frames, the longest of "
                f"{', '.join(str(path) for path in folders)} has {num_frames.max()}. "
                "Use shorter crops, or pretrain.short_clips: pad."
            )
        self.num_clips = len(kept)
        self.num_dropped = len(num_frames) - len(kept)
        self._num_frames = num_frames[kept]
        self._folder_of = np.searchsorted(firsts, kept, side="right") - 1
        self._clip_in_folder = kept - firsts[self._folder_of]
        self._threads = ThreadPoolExecutor(NUM_THREADS)
        self._orders: dict[int, NDArray[np.int64]] = {}

    def batch(
        self, first_sample: int, size: int, empty: Callable[[Shape], NDArray[np.float16]] = ordinary_memory
    ) -> Batch:
        """Samples `first_sample` ... `first_sample + size - 1` of the stream."""
        epochs, clips = self._drawn(first_sample, size)
        starts = self._starts(epochs, clips)
        log_mel = empty((size, self.crop_frames, self.num_mels))
        parts = [slice(part, size, NUM_THREADS) for part in range(NUM_THREADS)]
        read = partial(self._read, log_mel, clips, starts)
        for _ in self._threads.map(read, parts):
            pass
        return Batch(log_mel, clips)

    def stream(
        self,
        first_sample: int,
        size: int,
        num_batches: int,
        *,
        stride: int | None = None,
        prefetch: int = 2,
        empty: Callable[[Shape], NDArray[np.float16]] = ordinary_memory,
    ) -> Iterator[Batch]:
        """Batches that begin every `stride` samples; a thread reads up to `prefetch` of them ahead."""
        ahead: deque = deque()
        reader = ThreadPoolExecutor(1)
        try:
            for number in range(num_batches):
                first = first_sample + number * (stride or size)
                ahead.append(reader.submit(self.batch, first, size, empty))
                if len(ahead) > prefetch:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)

    def clips(self, first_sample: int, size: int) -> NDArray[np.int64]:
        """What `batch` would show, without reading it: clips [batch], as `ids` takes them."""
        _, clips = self._drawn(first_sample, size)
        return clips

    def _drawn(self, first_sample: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        samples = np.arange(first_sample, first_sample + size)
        epochs = samples // self.num_clips
        clips = np.empty(size, dtype=np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            inside = epochs == epoch
            clips[inside] = self._order(epoch)[samples[inside] % self.num_clips]
        return epochs, clips

    def ids(self, clips: NDArray[np.int64]) -> list[str]:
        """`<dataset>/<clip id>` of clips of a batch."""
        names = []
        for clip in clips.tolist():
            folder = self.folders[self._folder_of[clip]]
            names.append(f"{folder.path.name}/{folder.index.id_of(int(self._clip_in_folder[clip]))}")
        return names

    def _read(
        self,
        log_mel: NDArray[np.float16],
        clips: NDArray[np.int64],
        starts: NDArray[np.int64],
        part: slice,
    ) -> None:
        clips = clips[part]
        lengths = np.minimum(self._num_frames[clips], self.crop_frames)
        for out, folder, clip, start, length in zip(
            log_mel[part],
            self._folder_of[clips].tolist(),
            self._clip_in_folder[clips].tolist(),
            starts[part].tolist(),
            lengths.tolist(),
            strict=True,
        ):
            self.folders[folder].frames.read_into(out[:length], clip, start)
            out[length:] = SILENCE

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """All clips [clip], shuffled for this epoch."""
        order = self._orders.get(epoch)
        if order is None:
            clips = np.arange(self.num_clips)
            bits = random_bits(self.seed, "order", np.full_like(clips, epoch), clips)
            order = np.argsort(bits, kind="stable")
            # The previous one stays: batches may cross the border between two epochs.
            previous = {kept: self._orders[kept] for kept in self._orders if kept == epoch - 1}
            self._orders = {**previous, epoch: order}
        return order

    def _starts(self, epochs: NDArray[np.int64], clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """First frame of every crop, uniform over all places where a whole crop fits."""
        num_places = np.maximum(self._num_frames[clips] - self.crop_frames, 0) + 1
        bits = random_bits(self.seed, "start", epochs, clips)
        return (bits % num_places.astype(np.uint64)).astype(np.int64)


def random_bits(
    seed: int, purpose: Literal["order", "start"], epochs: NDArray[np.int64], clips: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """64 random bits for every pair of epoch and clip: no state, and no generator that may change.

    SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), once per number.
    """
    bits = _mixed(np.full(clips.shape, seed, dtype=np.uint64))
    bits = _mixed(bits + np.uint64(["order", "start"].index(purpose)))
    bits = _mixed(bits + epochs.astype(np.uint64))
    return _mixed(bits + clips.astype(np.uint64))


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _check_same_front_end(folders: Sequence[ShardFolder]) -> None:
    first = folders[0]
    for folder in folders[1:]:
        field = first.logmel.first_difference(folder.logmel)
        if field is not None:
            raise ValueError(
                f"logmel.{field}: need one front end for all shards, got {getattr(first.logmel, field)} in "
                f"{first.path} and {getattr(folder.logmel, field)} in {folder.path}. Run `dvc repro`."
            )
