"""shards -> batches of random crops, the same ones whatever reads them.

Sample `k` of the endless stream belongs to epoch `k // num_clips`. Every epoch shuffles all clips of all
folders, from (seed, epoch); where a clip is cut follows from (seed, epoch, clip). Nothing else decides: not
the number of threads, nor the size of a batch, nor what was read before. So a run goes on anywhere.
"""

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matpac.params import LogMel, Pretrain
from matpac.shards.folder import ShardFolder, read_logmel
from matpac.shards.statistics import Statistics, combined
from matpac.threads import ahead

SILENCE = np.float16(np.log(1.1920929e-07))
"""What the front end makes of digital silence."""
NUM_THREADS = 4
"""From disk they read twice as fast as one, from the page cache of a single core 5 % slower."""

Empty = Callable[[tuple[int, ...]], NDArray[np.float16]]
"""Makes the array that a batch of this shape is read into, in pinned memory for example."""


class Batch(NamedTuple):
    log_mel: NDArray[np.float16]
    """[batch, frame, mel]"""
    clips: NDArray[np.int64]
    """[batch], as `Crops.ids` takes them."""


class ReusedMemory:
    """np.empty, in the memory of arrays that nobody refers to any more, not even through a part or a tensor.

    The system clears new memory before it is ours; with batches of a thousand that takes as long as reading.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    def __call__(self, shape: tuple[int, ...]) -> NDArray[np.float16]:
        memory = self._free.pop() if self._free else None
        if memory is None or memory.shape != (math.prod(shape),):
            memory = np.empty(math.prod(shape), dtype=np.float16).data
        # All that is made from this array refers to it, since its memory is no array's.
        array = np.frombuffer(memory, dtype=np.float16)
        weakref.finalize(array, self._free.append, memory)
        return array.reshape(shape)


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
        self._kept = kept
        self._first_of_folder = np.cumsum([0, *(len(folder) for folder in self.folders)])
        self._threads = ThreadPoolExecutor(NUM_THREADS)
        self._orders: dict[int, NDArray[np.int64]] = {}

    def batch(self, first_sample: int, size: int, empty: Empty | None = None) -> Batch:
        """Samples `first_sample` ... `first_sample + size - 1` of the stream."""
        epochs, clips = self._drawn(first_sample, size)
        starts = self._starts(epochs, clips)
        lengths = np.minimum(self._num_frames[clips], self.crop_frames)
        shape = (size, self.crop_frames, self.num_mels)
        log_mel = np.empty(shape, dtype=np.float16) if empty is None else empty(shape)
        for row in np.flatnonzero(lengths < self.crop_frames):
            log_mel[row, lengths[row] :] = SILENCE
        places = np.arange(size) * log_mel[0].nbytes
        reads = []
        for folder, rows, clips_there in self._by_folder(clips):
            runs = folder.frames.runs(clips_there, starts[rows], lengths[rows], places[rows])
            reads += [
                self._threads.submit(folder.frames.files.read, log_mel, part)
                for part in runs.parts(NUM_THREADS)
            ]
        for read in reads:
            read.result()
        return Batch(log_mel, clips)

    def stream(
        self,
        first_sample: int,
        size: int,
        num_batches: int,
        *,
        stride: int | None = None,
        prefetch: int = 2,
        empty: Empty | None = None,
    ) -> Iterator[Batch]:
        """Batches that begin every `stride` samples; a thread reads up to `prefetch` of them ahead.

        By default they are consecutive. Of several processes that train together, each reads its `size` of
        every `stride` samples.
        """
        stride = size if stride is None else stride
        empty = ReusedMemory() if empty is None else empty
        samples = range(first_sample, first_sample + num_batches * stride, stride)
        return ahead((partial(self.batch, sample, size, empty) for sample in samples), prefetch + 1, 1)

    def clips(self, first_sample: int, size: int) -> NDArray[np.int64]:
        """What `batch` would show, without reading it: clips [batch], as `ids` takes them."""
        _, clips = self._drawn(first_sample, size)
        return clips

    def ids(self, clips: NDArray[np.int64]) -> list[str]:
        """`<dataset>/<clip id>` of clips of a batch."""
        names = np.empty(len(clips), dtype=object)
        for folder, rows, clips_there in self._by_folder(clips):
            names[rows] = [f"{folder.path.name}/{name}" for name in folder.index.ids_of(clips_there)]
        return names.tolist()

    def _drawn(self, first_sample: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Epoch and clip of every sample."""
        samples = np.arange(first_sample, first_sample + size)
        epochs = samples // self.num_clips
        clips = np.empty(size, dtype=np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            inside = epochs == epoch
            clips[inside] = self._order(epoch)[samples[inside] % self.num_clips]
        return epochs, clips

    def _by_folder(
        self, clips: NDArray[np.int64]
    ) -> Iterator[tuple[ShardFolder, NDArray[np.int64], NDArray[np.int64]]]:
        """The folders these clips lie in, each with the rows of `clips` and the clips' numbers there."""
        clips_of_all = self._kept[clips]
        folder_of = np.searchsorted(self._first_of_folder, clips_of_all, side="right") - 1
        for number in np.unique(folder_of).tolist():
            rows = np.flatnonzero(folder_of == number)
            yield self.folders[number], rows, clips_of_all[rows] - self._first_of_folder[number]

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


def crops_of_finished(shards: Path, logmel: LogMel, pretrain: Pretrain) -> Crops | None:
    """What pre-training would read; None where a dataset has no shards in `shards` yet, or of other log-mels.

    Raises ValueError where no clip is long enough.
    """
    folders = [shards / name for name in pretrain.datasets]
    if not folders or not all((folder / "index.parquet").exists() for folder in folders):
        return None
    if any(read_logmel(folder).first_difference(logmel) for folder in folders):
        return None
    return Crops(folders, pretrain.crop_frames, pretrain.short_clips, pretrain.seed)


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
