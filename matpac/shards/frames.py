"""runs of frames -> memory: many files, read at random places from several threads at once."""

import os
import resource
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SPARE_DESCRIPTORS = 256
"""Number of descriptors left for everything else that a process opens."""


class TruncatedShard(ValueError):
    """A file of a shard folder ends before the data that its index promises."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} ends before its last clip: the copy is incomplete. "
            f"Delete {path.parent} and run `dvc repro` (or `dvc checkout`) again."
        )


class Runs(NamedTuple):
    """Consecutive bytes of files and their places in memory, as arrays [run]."""

    file: NDArray[np.integer]
    position: NDArray[np.int64]
    """Position in the file, in bytes."""
    place: NDArray[np.int64]
    """Position in memory, in bytes."""
    num_bytes: NDArray[np.int64]

    def parts(self, num_parts: int) -> list["Runs"]:
        """The runs in parts of about equal size."""
        columns = (np.array_split(column, num_parts) for column in self)
        return [Runs(*part) for part in zip(*columns, strict=True)]


class OpenFiles:
    """Files that stay open as long as this object lives. Reading releases the interpreter's lock."""

    def __init__(self, paths: Sequence[Path]) -> None:
        allow_open_files(len(paths))
        self.paths = list(paths)
        self._descriptors: list[int] = []
        weakref.finalize(self, _close, self._descriptors)
        for path in paths:
            self._descriptors.append(os.open(path, os.O_RDONLY))

    def read(self, out: NDArray[np.float16], runs: Runs) -> None:
        """Read runs into the contiguous array `out`. Raises TruncatedShard."""
        memory = out.data.cast("B")
        # Numbers come three times faster from lists than from arrays.
        begins, ends = runs.place.tolist(), (runs.place + runs.num_bytes).tolist()
        for file, position, begin, end in zip(
            runs.file.tolist(), runs.position.tolist(), begins, ends, strict=True
        ):
            if os.preadv(self._descriptors[file], [memory[begin:end]], position) != end - begin:
                raise TruncatedShard(self.paths[file])

    def num_bytes(self) -> NDArray[np.int64]:
        """Sizes of the files [file]."""
        sizes = [os.fstat(descriptor).st_size for descriptor in self._descriptors]
        return np.array(sizes, dtype=np.int64)


class Frames(ABC):
    """The frames of the clips in a shard folder of some format."""

    files: OpenFiles

    @abstractmethod
    def runs(
        self,
        clips: NDArray[np.int64],
        first_frames: NDArray[np.int64],
        num_frames: NDArray[np.int64],
        place: NDArray[np.int64],
    ) -> Runs:
        """Runs of consecutive frames of clips, to be read to places in memory; arrays [crop]."""

    def read_into(self, out: NDArray[np.float16], clip: int, first_frame: int) -> None:
        """Fill the contiguous `out` [frame, mel] with frames of one clip; nothing else is read."""
        self.files.read(out, self.runs(*np.array([[clip], [first_frame], [len(out)], [0]])))


def allow_open_files(num_files: int) -> None:
    """Raise this process's limit if the system allows it; the usual 1,024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(list(Path("/dev/fd").iterdir())) + num_files + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise ValueError(
                f"Need {needed:,} open files at once, the system allows {hard:,} (`ulimit -Hn`). "
                "Raise the limit, or shards.clips_per_shard in params.yaml."
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
