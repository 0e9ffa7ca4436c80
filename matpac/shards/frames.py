"""runs of frames -> memory: many files, read at random places from several threads at once."""

import errno
import os
import resource
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SPARE_DESCRIPTORS = 256
"""Number of descriptors left for everything else that a process opens."""
WITHOUT_WAITING = getattr(os, "RWF_NOWAIT", None)
"""Flag of Linux: fail rather than wait for the disk."""


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
        """The runs in parts of about equal size, none of them empty."""
        num_parts = min(num_parts, len(self.file))
        if num_parts == 0:
            return []
        columns = (np.array_split(column, num_parts) for column in self)
        return [Runs(*part) for part in zip(*columns, strict=True)]

    def as_numbers(self) -> Iterator[tuple[int, int, int, int]]:
        """File, position in it, begin and end in memory of each run.

        Numbers come three times faster from lists than from arrays.
        """
        columns = (self.file, self.position, self.place, self.place + self.num_bytes)
        return zip(*(column.tolist() for column in columns), strict=True)


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
        for file, position, begin, end in runs.as_numbers():
            if os.preadv(self._descriptors[file], [memory[begin:end]], position) != end - begin:
                raise TruncatedShard(self.paths[file])

    def read_cached(self, out: NDArray[np.float16], runs: Runs) -> Runs:
        """Read the runs that the system holds in memory; return those that must wait for the disk.

        The system begins to fetch the latter. Some file systems cannot tell, then all are returned.
        """
        if WITHOUT_WAITING is None:
            return runs
        memory = out.data.cast("B")
        waiting = []
        for number, (file, position, begin, end) in enumerate(runs.as_numbers()):
            try:
                num_read = os.preadv(self._descriptors[file], [memory[begin:end]], position, WITHOUT_WAITING)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                    raise
                num_read = 0
            if num_read != end - begin:
                waiting.append(number)
        return Runs(runs.file[waiting], runs.position[waiting], runs.place[waiting], runs.num_bytes[waiting])

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
