"""log-mels <-> shard: a WebDataset tar with, per clip, <id>.npy (float16 [frame, mel]) and <id>.json."""

import io
import json
import tarfile
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matpac.files import whole_file
from matpac.shards.frames import Frames, OpenFiles, Runs, TruncatedShard

COPY_BYTES = 2**20
"""A clip is written by one call of the system, instead of by one per 16 kB."""
NPY_HEADER_BYTES = 128
"""Fixed, so that the position of a clip's first frame follows from that of its member."""


def tar_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


class StoredClip(NamedTuple):
    id: str
    log_mel: NDArray[np.float16]
    """[frame, mel]"""
    about: dict[str, Any]
    """Content of the JSON beside the array."""


def write_tar(path: Path, clips: Iterable[StoredClip]) -> list[int]:
    """Write a tar; return the position of each clip's first frame, in bytes.

    No header field depends on the time or the machine, so the same clips give the same bytes.
    """
    offsets = []
    with (
        whole_file(path) as partial,
        tarfile.TarFile(partial, "w", format=tarfile.USTAR_FORMAT, copybufsize=COPY_BYTES) as tar,
    ):
        for clip in clips:
            offsets.append(tar.offset + tarfile.BLOCKSIZE + NPY_HEADER_BYTES)
            array = np.ascontiguousarray(clip.log_mel)
            _add_member(tar, f"{clip.id}.npy", npy_header(array.shape), array.data)
            about = json.dumps(clip.about, ensure_ascii=False)
            _add_member(tar, f"{clip.id}.json", about.encode())
            # The next clip is made in the memory of this one.
            del clip, array
    return offsets


def npy_header(shape: tuple[int, ...]) -> bytes:
    """Header in format 1.0 of numpy.lib.format, equally long for all shapes."""
    prefix = np.lib.format.magic(1, 0) + (NPY_HEADER_BYTES - 10).to_bytes(2, "little")
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}"
    return prefix + text.ljust(NPY_HEADER_BYTES - 11).encode() + b"\n"


class TarFrames(Frames):
    """The frames of clips in tars."""

    def __init__(
        self,
        paths: list[Path],
        shard: NDArray[np.int32],
        offset: NDArray[np.int64],
        num_frames: NDArray[np.int64],
        num_mels: int,
    ) -> None:
        """`shard`, `offset` and `num_frames` [clip] as in the index. Raises TruncatedShard."""
        self.files = OpenFiles(paths)
        self._shard, self._offset = shard, offset
        self._frame_bytes = 2 * num_mels
        ends = np.zeros(len(paths), dtype=np.int64)
        np.maximum.at(ends, shard, offset + num_frames * self._frame_bytes)
        for truncated in np.flatnonzero(self.files.num_bytes() < ends):
            raise TruncatedShard(paths[truncated])

    def runs(
        self,
        clips: NDArray[np.int64],
        first_frames: NDArray[np.int64],
        num_frames: NDArray[np.int64],
        place: NDArray[np.int64],
    ) -> Runs:
        position = self._offset[clips] + first_frames * self._frame_bytes
        return Runs(self._shard[clips], position, place, num_frames * self._frame_bytes)


def _add_member(tar: tarfile.TarFile, name: str, *contents: bytes | memoryview) -> None:
    parts = [memoryview(content).cast("B") for content in contents]
    member = tarfile.TarInfo(name)
    member.size = sum(map(len, parts))
    tar.addfile(member, io.BufferedReader(_Joined(parts), COPY_BYTES))


class _Joined(io.RawIOBase):
    """Parts of a file, read in order without a copy of the whole: a log-mel may have a gigabyte."""

    def __init__(self, parts: Iterable[memoryview]) -> None:
        self._parts = deque(part for part in parts if len(part))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._parts:
            return 0
        part = self._parts.popleft()
        num_bytes = min(len(part), len(buffer))
        buffer[:num_bytes] = part[:num_bytes]
        if num_bytes < len(part):
            self._parts.appendleft(part[num_bytes:])
        return num_bytes
