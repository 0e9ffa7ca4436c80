"""shards -> batches of random crops, the same for every reader.

Sample `k` of the endless stream belongs to epoch `k // num_clips`. Every epoch shuffles all clips of all
folders by (seed, epoch) and crops each at a place given by (seed, epoch, clip). Nothing else matters: not
the number of threads, the size of a batch or earlier reads. So a run can resume anywhere.
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

from matpac.digests import Digests, joined
from matpac.params import LogMel, Pretrain
from matpac.shards.folder import ShardFolder, read_logmel
from matpac.shards.statistics import Statistics, combined
from matpac.threads import ahead

SILENCE = np.float16(np.log(1.1920929e-07))
"""Log-mel of digital silence."""
NUM_THREADS = 4
"""Threads that wait for the disk; four read twice as fast as one. What is cached, one reads faster."""

Empty = Callable[[tuple[int, ...]], NDArray[np.float16]]
"""Shape of a batch -> the array to read it into, in pinned memory for example."""


class Batch(NamedTuple):
    log_mel: NDArray[np.float16]
    """[batch, frame, mel]"""
    clips: NDArray[np.int64]
    """[batch], numbers of clips for `Crops.ids`."""


class ReusedMemory:
    """np.empty that reuses the memory of arrays without references, views and tensors included.

    The system clears new memory, which for batches of a thousand takes as long as reading.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    def __call__(self, shape: tuple[int, ...]) -> NDArray[np.float16]:
        memory = self._free.pop() if self._free else None
        if memory is None or memory.shape != (math.prod(shape),):
            memory = np.empty(math.prod(shape), dtype=np.float16).data
        # Views and tensors keep this array alive, because its memory belongs to no other array.
        array = np.frombuffer(memory, dtype=np.float16)
        weakref.finalize(array, self._free.append, memory)
        return array.reshape(shape)


class Crops:
    """Random crops of one dataset or of a mixture; every clip is seen once an epoch.

    Args:
        folders: Finished shard folders with one front end.
        crop_frames: Length of a crop.
        short_clips: Whether clips shorter than a crop are left out ("drop") or followed by digital
            silence ("pad"). Padding follows the log-mel: the few windows that would straddle the end
            of the recording are not computed.
        seed: The whole stream follows from it.

    Raises:
        ValueError: The folders have different front ends, or no clip is long enough.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        crop_frames: int,
        short_clips: Literal["drop", "pad"],
        seed: int,
    ) -> None:
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
        """Consecutive samples of the stream.

        Args:
            first_sample: Number of the first sample, from 0.
            size: Number of samples.
            empty: Makes the array to read into; by default np.empty.

        Returns:
            Log-mels `[batch, frame, mel]` in float16, and the numbers of their clips `[batch]`.

        Raises:
            TruncatedShard: A file ends before the data that its index promises.
        """
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
            files = folder.frames.files
            runs = folder.frames.runs(clips_there, starts[rows], lengths[rows], places[rows])
            waiting = files.read_cached(log_mel, runs)
            reads += [self._threads.submit(files.read, log_mel, part) for part in waiting.parts(NUM_THREADS)]
        for read in reads:
            read.result()
        return Batch(log_mel, clips)

    def stream(
        self,
        first_sample: int,
        size: int,
        num_batches: int,
        *,
        prefetch: int = 2,
        empty: Empty | None = None,
    ) -> Iterator[Batch]:
        """Batches one after another, read ahead by a thread.

        Args:
            first_sample: Number of the first sample of the first batch.
            size: Number of samples in a batch.
            num_batches: Number of batches.
            prefetch: Number of batches to read ahead.
            empty: Makes the array to read into; by default memory is reused.

        Returns:
            Batches as from `batch`.

        Raises:
            TruncatedShard: A file ends before the data that its index promises.
        """
        empty = ReusedMemory() if empty is None else empty
        samples = range(first_sample, first_sample + num_batches * size, size)
        return ahead((partial(self.batch, sample, size, empty) for sample in samples), prefetch + 1, 1)

    def clips(self, first_sample: int, size: int) -> NDArray[np.int64]:
        """Numbers of the clips that `batch` would return, without reading them.

        Args:
            first_sample: Number of the first sample.
            size: Number of samples.

        Returns:
            Numbers of clips `[batch]`.
        """
        _, clips = self._drawn(first_sample, size)
        return clips

    def ids(self, clips: NDArray[np.int64]) -> list[str]:
        """Names of clips.

        Args:
            clips: Numbers of clips `[batch]`, from a batch.

        Returns:
            `<dataset>/<clip id>` of each.
        """
        names = np.empty(len(clips), dtype=object)
        for folder, rows, clips_there in self._by_folder(clips):
            names[rows] = [f"{folder.path.name}/{name}" for name in folder.index.ids_of(clips_there)]
        return names.tolist()

    def recordings(self, num_samples: int) -> Digests:
        """Recordings of the clips that the first samples of the stream are drawn from.

        Args:
            num_samples: Number of samples.

        Returns:
            Each recording once; none of the clips that are left out for being short.

        Raises:
            ValueError: The digests.parquet of a folder is damaged.
        """
        # Every clip is seen once before any is seen twice.
        clips = self.clips(0, min(num_samples, self.num_clips))
        return joined([folder.recordings(there) for folder, _, there in self._by_folder(np.sort(clips))])

    def _drawn(self, first_sample: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Epoch and clip of each sample."""
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
        """Folders of the clips, each with the rows in `clips` and the clips' numbers in the folder."""
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
            # The previous order stays, because batches may span two epochs.
            previous = {kept: self._orders[kept] for kept in self._orders if kept == epoch - 1}
            self._orders = {**previous, epoch: order}
        return order

    def _starts(self, epochs: NDArray[np.int64], clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """First frame of each crop, uniform over all that leave room for a whole crop."""
        num_places = np.maximum(self._num_frames[clips] - self.crop_frames, 0) + 1
        bits = random_bits(self.seed, "start", epochs, clips)
        starts: NDArray[np.int64] = (bits % num_places.astype(np.uint64)).astype(np.int64)
        return starts


def crops_of_finished(shards: Path, logmel: LogMel, pretrain: Pretrain) -> Crops | None:
    """The crops for pre-training, or None if a dataset has no shards with this front end yet.

    Raises ValueError if no clip is long enough.
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
    """64 random bits for each pair of epoch and clip, without state or a generator that may change.

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
                f"logmel.{field}: need one front end for all shards, found {getattr(first.logmel, field)} in "
                f"{first.path} and {getattr(folder.logmel, field)} in {folder.path}. Run `dvc repro`."
            )
