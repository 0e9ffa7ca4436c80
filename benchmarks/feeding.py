"""Clips on disk -> batches of random crops (float16 [256, 608, 80]).

4,096 clips of 10 s (noise: nothing is compressed) lie as shards and as one float32 .npy each. The
peers:

- a DataLoader over the .npy files in the released manner: load a clip, cut, standardize, collate;
  the faster of none and one worker process. Ours leaves standardizing to the device; one line has
  it done on the core.
- WebDataset's own decoding of the same shards, shards and samples shuffled.

The limit is a memory copy of as many crops: from random places of one array that holds all clips,
into arrays in turn, as many as a stream fills. Ours and the copy fill memory that was filled
before, as in the middle of a run.

Page cache warm: every file was read once from front to back, as by `cat`. Cold: before each round
the system was told to drop the files, which is checked; both then use all cores, the peer one
worker for each of our threads.
"""

import os
import random
import statistics
import time
import warnings
from collections.abc import Iterable
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.claims import Claim, run, seconds
from benchmarks.fresh import fresh, megabytes
from matpac.files import write_json
from matpac.params import LogMel
from matpac.shards.crops import NUM_THREADS, Crops, ReusedMemory, random_bits
from matpac.shards.folder import ShardFolder
from matpac.shards.index import SCHEMA, Index, write_index
from matpac.shards.tar import StoredClip, tar_name, write_tar

if TYPE_CHECKING:
    # And in the function that uses it: a process that loads two million clips must not pay for it.
    import torch

NUM_CLIPS, CLIP_FRAMES, NUM_MELS, CROP_FRAMES = 4096, 998, 80, 608
CLIPS_PER_SHARD = 256
BATCH = 256
LABELS = ["/m/09x0r", "/m/04rlf"]
MEAN, STD = -7.056, 4.193
LOGMEL = LogMel(
    sample_rate_hz=16000, window_ms=25, hop_ms=10, num_mels=80, fmin_hz=50, fmax_hz=8000, resampler="soxr_hq"
)
ROUNDS, COLD_ROUNDS = 5, 2
EPOCHS = 5
"""Crops of ours and of the copy in a round; a single epoch would be too short to time."""
STREAM_ARRAYS = 4
MANY_CLIPS = 2_000_000
"""Number of clips in AudioSet."""


def measure() -> list[Claim]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_clips(folder)
        warm = fresh(crops_per_s_on_one_core, folder).result
        all_cores = fresh(crops_per_s_on_all_cores, folder).result
        growth = fresh(growth_over_epochs, folder / "shards").result
        cold = fresh(crops_per_s_cold, folder).result
        make_many_clips(folder / "many")
        index = fresh(load_index, folder / "many")
        crops = fresh(first_clips, folder / "many")
    loader = max(warm["npy, no worker"], warm["npy, one worker"])
    rate = "crops/s"
    return [
        Claim(
            "random crops, one core",
            rate,
            warm["ours"],
            "memory copy",
            warm["copy"],
            goal=0.75,
            is_limit=True,
        ),
        Claim("random crops, one core", rate, warm["ours"], "DataLoader over .npy files", loader, goal=5),
        Claim("random crops, one core", rate, warm["ours"], "WebDataset", warm["webdataset"], goal=5),
        Claim(
            "random crops, one core, standardized there",
            rate,
            warm["ours, standardized"],
            "DataLoader over .npy files",
            loader,
        ),
        Claim(f"random crops, {os.cpu_count()} cores", rate, all_cores),
        Claim(
            f"random crops, {os.cpu_count()} cores, nothing cached",
            rate,
            cold["ours"],
            "DataLoader over .npy files",
            cold["npy"],
        ),
        Claim("memory gained over 20 epochs", "MB", growth, goal=16, less_is_better=True),
        Claim("index of 2,000,000 clips, loading", "s", index.seconds, goal=3, less_is_better=True),
        Claim(
            "index of 2,000,000 clips, whole process",
            "MB",
            index.peak_megabytes,
            goal=500,
            less_is_better=True,
        ),
        Claim("2,000,000 clips to the first drawn", "s", crops.seconds, goal=3, less_is_better=True),
        Claim(
            "2,000,000 clips to the first drawn, whole process",
            "MB",
            crops.peak_megabytes,
            goal=500,
            less_is_better=True,
        ),
    ]


def make_clips(folder: Path) -> None:
    """The same clips in `shards` and in `npy`."""
    (folder / "shards").mkdir()
    (folder / "npy").mkdir()
    generator = np.random.default_rng(0)
    offsets: list[int] = []
    for first in range(0, NUM_CLIPS, CLIPS_PER_SHARD):
        clips = []
        for clip in range(first, first + CLIPS_PER_SHARD):
            noise = generator.standard_normal((CLIP_FRAMES, NUM_MELS), dtype=np.float32)
            about = {"labels": LABELS, "split": "train", "path": f"{name_of(clip)}.flac"}
            clips.append(StoredClip(name_of(clip), (noise * STD + MEAN).astype(np.float16), about))
        offsets += write_tar(folder / "shards" / tar_name(first // CLIPS_PER_SHARD), clips)
        for stored in clips:
            np.save(folder / "npy" / f"{stored.id}.npy", stored.log_mel.astype(np.float32))
    names = [name_of(clip) for clip in range(NUM_CLIPS)]
    describe(folder / "shards", names, np.array(offsets))
    os.sync()


def make_many_clips(folder: Path) -> None:
    """Index and tars of two million clips; the tars have the right size and no content."""
    folder.mkdir()
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
    names = letters[np.random.default_rng(0).integers(0, len(letters), (MANY_CLIPS, 11))].view("U11").ravel()
    member_bytes = 2 * CLIP_FRAMES * NUM_MELS + 2048
    offsets = 640 + np.arange(MANY_CLIPS) % CLIPS_PER_SHARD * member_bytes
    describe(folder, names.tolist(), offsets)
    for number in range(-(-MANY_CLIPS // CLIPS_PER_SHARD)):
        with (folder / tar_name(number)).open("wb") as tar:
            tar.truncate(640 + CLIPS_PER_SHARD * member_bytes)


def name_of(clip: int) -> str:
    return f"clip-{clip:06d}"


def describe(folder: Path, names: list[str], offsets: NDArray[np.int64]) -> None:
    """The other files of a finished folder of shards."""
    number = len(names)
    columns: dict[str, Any] = {
        "id": names,
        "shard": np.arange(number) // CLIPS_PER_SHARD,
        "offset": offsets,
        "num_frames": np.full(number, CLIP_FRAMES),
        "duration_s": np.full(number, 10.0),
        "labels": [LABELS] * number,
        "split": ["train"] * number,
        "fold": [None] * number,
        "group": names,
        "absent": [None] * number,
        "path": names,
        "native_rate_hz": np.full(number, 48000),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
    write_index(folder / "index.parquet", pa.Table.from_arrays(arrays, schema=SCHEMA))
    num_values = number * CLIP_FRAMES * NUM_MELS
    moments = {"sum": MEAN * num_values, "sum_of_squares": (STD**2 + MEAN**2) * num_values}
    write_json(folder / "statistics.json", {"num_values": num_values, **moments})
    write_json(folder / "logmel.json", LOGMEL.model_dump(mode="json"))


def crops_per_s_on_one_core(folder: Path) -> dict[str, float]:
    import torch

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    crops = open_crops(folder / "shards")
    shards = ShardFolder(folder / "shards")
    clips = np.stack([shards.read_clip(clip) for clip in range(NUM_CLIPS)])
    check(folder, crops, clips)
    read_through(folder)
    memory = ReusedMemory()
    arrays = [np.empty((BATCH, CROP_FRAMES, NUM_MELS), dtype=np.float16) for _ in range(STREAM_ARRAYS)]
    # Memory is filled for the first time here.
    stream(crops, 1, memory)
    copy(clips, 1, arrays)
    passes = {
        "ours": (EPOCHS, partial(stream, crops, EPOCHS, memory)),
        "ours, standardized": (1, partial(stream_standardized, crops, 1, memory)),
        "copy": (EPOCHS, partial(copy, clips, EPOCHS, arrays)),
        "npy, no worker": (1, partial(exhaust, npy_loader(folder / "npy", num_workers=0))),
        "npy, one worker": (1, partial(exhaust, npy_loader(folder / "npy", num_workers=1))),
        "webdataset": (1, partial(exhaust, webdataset_loader(folder / "shards"))),
    }
    spent = seconds({name: epochs for name, (_, epochs) in passes.items()}, ROUNDS)
    return {name: number * NUM_CLIPS / spent[name] for name, (number, _) in passes.items()}


def crops_per_s_on_all_cores(folder: Path) -> float:
    crops = open_crops(folder / "shards")
    spent = seconds({"ours": partial(stream, crops, EPOCHS)}, ROUNDS)
    return EPOCHS * NUM_CLIPS / spent["ours"]


def crops_per_s_cold(folder: Path) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    # They wait for the disk, not for the cores, so there may be more of them.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    epochs = {
        "ours": partial(stream, open_crops(folder / "shards"), 1),
        "npy": partial(exhaust, npy_loader(folder / "npy", num_workers=NUM_THREADS)),
    }
    spent: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(COLD_ROUNDS):
        for name, epoch in epochs.items():
            forget(folder)
            started = time.perf_counter()
            epoch()
            spent[name].append(time.perf_counter() - started)
    return {name: NUM_CLIPS / statistics.median(values) for name, values in spent.items()}


def growth_over_epochs(shards: Path) -> float:
    """Growth of the process in megabytes after the first tenth of the batches, at most."""
    small, num_batches = 64, 20 * NUM_CLIPS // 64
    held = [megabytes() for _ in open_crops(shards).stream(0, small, num_batches)]
    return max(held[num_batches // 10 :]) - held[num_batches // 10]


def load_index(folder: Path) -> None:
    assert len(Index(folder / "index.parquet")) == MANY_CLIPS


def first_clips(folder: Path) -> None:
    """Everything before the first read: index, open files, the order of the epoch."""
    assert len(open_crops(folder).clips(0, BATCH)) == BATCH


def open_crops(shards: Path) -> Crops:
    return Crops([shards], CROP_FRAMES, "drop", seed=0)


def stream(crops: Crops, num_epochs: int, memory: ReusedMemory | None = None) -> None:
    for _ in crops.stream(0, BATCH, num_epochs * NUM_CLIPS // BATCH, empty=memory):
        pass


def stream_standardized(crops: Crops, num_epochs: int, memory: ReusedMemory) -> None:
    import torch

    standard = torch.empty(BATCH, CROP_FRAMES, NUM_MELS)
    for batch in crops.stream(0, BATCH, num_epochs * NUM_CLIPS // BATCH, empty=memory):
        standard.copy_(torch.from_numpy(batch.log_mel)).sub_(MEAN).div_(STD)


def copy(clips: NDArray[np.float16], num_epochs: int, arrays: list[NDArray[np.float16]]) -> None:
    generator = np.random.default_rng(0)
    for _, log_mel in zip(range(num_epochs * NUM_CLIPS // BATCH), cycle(arrays), strict=False):
        places = zip(
            generator.integers(0, NUM_CLIPS, BATCH).tolist(),
            generator.integers(0, CLIP_FRAMES - CROP_FRAMES + 1, BATCH).tolist(),
            strict=True,
        )
        for out, (clip, start) in zip(log_mel, places, strict=True):
            np.copyto(out, clips[clip, start : start + CROP_FRAMES])


class NpyClips:
    """The released data set: a file per clip."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, clip: int) -> "torch.Tensor":
        return self.crop(clip, random.randint(0, CLIP_FRAMES - CROP_FRAMES))

    def crop(self, clip: int, start: int) -> "torch.Tensor":
        import torch

        log_mel = torch.from_numpy(np.load(self.paths[clip]))
        return (log_mel[start : start + CROP_FRAMES] - MEAN) / STD


def npy_loader(folder: Path, num_workers: int) -> "Iterable[torch.Tensor]":
    from torch.utils.data import DataLoader

    # Workers that stay, so that starting them is not what we time.
    return DataLoader(
        NpyClips(folder), BATCH, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0
    )


def webdataset_loader(shards: Path) -> Iterable[Any]:
    import webdataset

    tars = [str(path) for path in sorted(shards.glob("*.tar"))]
    dataset = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000).decode().to_tuple("npy")
    return dataset.map_tuple(random_crop).batched(BATCH)


def random_crop(log_mel: NDArray[np.float16]) -> NDArray[np.float16]:
    start = random.randint(0, CLIP_FRAMES - CROP_FRAMES)
    return log_mel[start : start + CROP_FRAMES]


def exhaust(batches: Iterable[Any]) -> None:
    assert sum(len(log_mel_of(batch)) for batch in batches) == NUM_CLIPS


def log_mel_of(batch: Any) -> Any:  # noqa: ANN401
    """WebDataset makes tuples."""
    return batch[0] if isinstance(batch, tuple | list) else batch


def check(folder: Path, crops: Crops, clips: NDArray[np.float16]) -> None:
    """All parties cut the same values out of a clip."""
    import torch
    import webdataset

    batch = crops.batch(0, BATCH)
    num_places = np.uint64(CLIP_FRAMES - CROP_FRAMES + 1)
    starts = random_bits(0, "start", np.zeros_like(batch.clips), batch.clips) % num_places
    npy = NpyClips(folder / "npy")
    for ours, clip, start in zip(batch.log_mel, batch.clips.tolist(), starts.tolist(), strict=True):
        np.testing.assert_array_equal(ours, clips[clip, start : start + CROP_FRAMES])
        standard = (torch.from_numpy(ours).float() - MEAN) / STD
        torch.testing.assert_close(npy.crop(clip, start), standard, rtol=0, atol=0)
    tar = str(folder / "shards" / tar_name(0))
    decoded = webdataset.WebDataset([tar], shardshuffle=False).decode().to_tuple("npy")
    for (log_mel,), clip in zip(decoded, clips[:CLIPS_PER_SHARD], strict=True):
        np.testing.assert_array_equal(log_mel, clip)
    for loaded in (npy_loader(folder / "npy", num_workers=0), webdataset_loader(folder / "shards")):
        assert log_mel_of(next(iter(loaded))).shape == batch.log_mel.shape


def read_through(folder: Path) -> None:
    """Read the file into the page cache, front to back in large steps."""
    forget(folder)
    for path in files_of(folder):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def forget(folder: Path) -> None:
    """Drop files from the page cache. Raises RuntimeError if more than a few stay in it."""
    files = files_of(folder)
    for _ in range(10):
        # Pages that are not on the disk yet cannot be dropped.
        os.sync()
        drop(files)
        if sum(is_cached(path) for path in files) <= 0.01 * len(files):
            break
        time.sleep(1)
    else:
        raise RuntimeError(f"{folder}: need a disk, this file system keeps files in memory. Set TMPDIR.")
    # The check itself made the system read ahead.
    drop(files)


def drop(files: Iterable[Path]) -> None:
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_cached(path: Path) -> bool:
    """Whether a byte in the middle can be read without waiting for the disk."""
    with path.open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], path.stat().st_size // 2, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        return True


def files_of(folder: Path) -> list[Path]:
    return sorted([*folder.glob("shards/*.tar"), *folder.glob("npy/*.npy")])


if __name__ == "__main__":
    run(measure, __doc__)
