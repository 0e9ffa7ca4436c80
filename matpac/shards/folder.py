"""data/shards/<dataset> -> log-mels of single clips."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from matpac.clip import Task
from matpac.digests import Digests, digests, digests_in, looked_up
from matpac.files import read_json, remedy
from matpac.params import LogMel, read_section
from matpac.shards.index import Index
from matpac.shards.statistics import Statistics, read_statistics
from matpac.shards.tar import TarFrames, tar_name
from matpac.shards.zarr import ZARR_NAME, ZarrFrames


class ShardFolder:
    """A finished shard folder, open for reading from any thread; `len(folder)` clips.

    Both formats give the same arrays.

    Args:
        path: `data/shards/<dataset>`.

    Raises:
        ValueError: The folder is not finished, or a file in it is damaged; the error names it.
        TruncatedShard: A file ends before the data that the index promises.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "index.parquet").exists():
            raise ValueError(
                f"{path}: need a folder of shards, found no index.parquet in it. "
                f"Make it with `python -m flows.shards {path.name}` or `dvc repro`."
            )
        self.path = path
        with damage_mended(path):
            self.index = Index(path / "index.parquet")
            self.logmel = read_logmel(path)
            self.statistics: Statistics = read_statistics(path)
        self.frames = _open(
            path, self.index.shard, self.index.offset, self.index.num_frames, self.logmel.num_mels
        )

    def __len__(self) -> int:
        return len(self.index)

    def read_clip(self, clip: int) -> NDArray[np.float16]:
        """All frames of a clip.

        Args:
            clip: Number of the clip in the index.

        Returns:
            Log-mel `[frame, mel]` in float16, not standardized.
        """
        shape = (int(self.index.num_frames[clip]), self.logmel.num_mels)
        log_mel = np.empty(shape, dtype=np.float16)
        self.frames.read_into(log_mel, clip, 0)
        return log_mel

    def recordings(self, clips: NDArray[np.int64] | None = None) -> Digests:
        """Ids and digests of the recordings behind clips.

        Args:
            clips: Numbers of the clips in the index; None for all.

        Returns:
            A row for each clip, in this order. Contents are unknown if the shards have no digests.parquet,
            as those of older versions.

        Raises:
            ValueError: digests.parquet is damaged.
        """
        ids = self.index.ids(clips)
        with damage_mended(self.path):
            content = looked_up(digests_in(self.path), ids)
        return Digests(digests(self.path.name, ids, content))


@contextmanager
def damage_mended(path: Path) -> Iterator[None]:
    """Add to the error of a damaged file how the folder is made again."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error} {remedy(path, f'shards@{path.name}')}") from None


def read_logmel(path: Path) -> LogMel:
    return read_section(LogMel, path / "logmel.json")


def read_task(path: Path) -> Task | None:
    """The task of the dataset in a finished folder; None if its clips have no labels."""
    path /= "task.json"
    return None if read_json(path) is None else read_section(Task, path)


def sample(path: Path, num_clips: int) -> list[tuple[str, NDArray[np.float16]]]:
    """Ids and log-mels [frame, mel] of clips spread over a finished folder; opens only their shards."""
    table = pq.read_table(path / "index.parquet", columns=["id", "shard", "offset", "num_frames"])
    table = table.take(np.unique(np.linspace(0, len(table) - 1, num_clips).astype(int)))
    shard, offset, num_frames = (
        table[name].to_numpy(zero_copy_only=False) for name in ("shard", "offset", "num_frames")
    )
    num_mels = read_logmel(path).num_mels
    frames = _open(path, shard, offset, num_frames, num_mels)
    log_mels = [np.empty((length, num_mels), dtype=np.float16) for length in num_frames.tolist()]
    for clip, log_mel in enumerate(log_mels):
        frames.read_into(log_mel, clip, 0)
    return list(zip(table["id"].to_pylist(), log_mels, strict=True))


def _open(
    path: Path,
    shard: NDArray[np.int32],
    offset: NDArray[np.int64],
    num_frames: NDArray[np.int64],
    num_mels: int,
) -> TarFrames | ZarrFrames:
    """The frames of a folder of either format; opens only the tars that `shard` [clip] names."""
    if (path / ZARR_NAME).exists():
        return ZarrFrames(path / ZARR_NAME, offset)
    numbers, place = np.unique(shard, return_inverse=True)
    tars = [path / tar_name(number) for number in numbers.tolist()]
    return TarFrames(tars, place.astype(np.int32), offset, num_frames, num_mels)
