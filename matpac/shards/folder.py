"""data/shards/<dataset> -> log-mels of single clips."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matpac.files import read_json
from matpac.params import LogMel
from matpac.shards.index import Index
from matpac.shards.statistics import Statistics, read_statistics
from matpac.shards.tar import TarFrames, tar_name
from matpac.shards.zarr_store import ZARR_NAME, ZarrFrames


class ShardFolder:
    """A finished shard folder, open for reading from any thread; `len(folder)` clips.

    Whichever format it has, the same clips give the same arrays.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError where there is no finished folder, TruncatedShard where a file is cut off."""
        if not (path / "index.parquet").exists():
            raise ValueError(
                f"{path}: need a folder of shards, found no index.parquet in it. "
                f"Make it with `python -m flows.shards {path.name}` or `dvc repro`."
            )
        self.path = path
        self.index = Index(path / "index.parquet")
        self.logmel = LogMel.model_validate(read_json(path / "logmel.json"))
        self.statistics: Statistics = read_statistics(path)
        self.frames: TarFrames | ZarrFrames
        if (path / ZARR_NAME).exists():
            self.frames = ZarrFrames(path / ZARR_NAME, self.index.offset)
        else:
            self.frames = TarFrames(
                [path / tar_name(number) for number in range(int(self.index.shard.max()) + 1)],
                self.index.shard,
                self.index.offset,
                self.index.num_frames,
                self.logmel.num_mels,
            )

    def __len__(self) -> int:
        return len(self.index)

    def read_clip(self, clip: int) -> NDArray[np.float16]:
        """All frames of a clip: [frame, mel]."""
        shape = (int(self.index.num_frames[clip]), self.logmel.num_mels)
        log_mel = np.empty(shape, dtype=np.float16)
        self.frames.read_into(log_mel, clip, 0)
        return log_mel
