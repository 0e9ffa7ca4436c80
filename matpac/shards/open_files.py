"""Many files read at random places, from several threads at once."""

import os
import resource
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPARE_DESCRIPTORS = 256
"""For everything else that a process opens."""


class TruncatedShard(ValueError):
    """A file of a shard folder ends before the data that its index promises."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} ends before its last clip: the copy is incomplete. "
            f"Delete {path.parent} and run `dvc repro` (or `dvc checkout`) again."
        )


class OpenFiles:
    """Stays open until nobody refers to it any more. Reading releases the interpreter's lock."""

    def __init__(self, paths: Sequence[Path]) -> None:
        allow_open_files(len(paths))
        self.paths = list(paths)
        self._descriptors: list[int] = []
        weakref.finalize(self, _close, self._descriptors)
        for path in paths:
            self._descriptors.append(os.open(path, os.O_RDONLY))

    def read_into(self, out: NDArray[np.float16], file: int, position: int) -> None:
        """Fill the contiguous array `out` with the bytes of a file from `position` on.

        Raises TruncatedShard.
        """
        if os.preadv(self._descriptors[file], [out.data], position) != out.nbytes:
            raise TruncatedShard(self.paths[file])

    def num_bytes(self) -> NDArray[np.int64]:
        """Sizes of the files [file]."""
        sizes = [os.fstat(descriptor).st_size for descriptor in self._descriptors]
        return np.array(sizes, dtype=np.int64)


def allow_open_files(num_files: int) -> None:
    """Raise this process's limit where the system lets us; the usual one of 1,024 is soon reached."""
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
