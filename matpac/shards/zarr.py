"""log-mels <-> logmel.zarr: one Zarr v3 array `log_mel` [frame, mel] of all clips, one after another.

The array `offsets` [clip + 1] beside it holds the first frame of each clip. Time is cut into files of many
chunks ("sharding") without compression, which would save a fifth of the space and cost most of the speed.
So a crop is one run of bytes here too.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matpac.files import read_json
from matpac.shards.frames import Frames, OpenFiles, Runs, TruncatedShard

ZARR_NAME = "logmel.zarr"
FRAMES_PER_CHUNK = 1024
CHUNKS_PER_FILE = 256
INDEX_ENTRY_BYTES = 16
CHECKSUM_BYTES = 4


def write_zarr(
    path: Path,
    log_mels: Iterable[NDArray[np.float16]],
    num_frames: NDArray[np.int64],
    num_mels: int,
) -> None:
    """Write clips [frame, mel] of the given lengths [clip] into a new store."""
    import zarr  # Training, which only reads, does without.

    offsets = first_frames(num_frames)
    total = int(offsets[-1])
    frames_per_file = FRAMES_PER_CHUNK * CHUNKS_PER_FILE
    group = zarr.create_group(path, zarr_format=3)
    group.create_array(
        "offsets", data=offsets, chunks=offsets.shape, compressors=None, dimension_names=["border"]
    )
    array = group.create_array(
        "log_mel",
        shape=(total, num_mels),
        dtype=np.float16,
        chunks=(FRAMES_PER_CHUNK, num_mels),
        shards=(frames_per_file, num_mels),
        compressors=None,
        dimension_names=["frame", "mel"],
        # Otherwise a chunk of zeros would be left out, and later chunks would move up.
        config={"write_empty_chunks": True},
    )
    buffer = np.empty((min(frames_per_file, total), num_mels), dtype=np.float16)
    filled = written = 0
    for log_mel in log_mels:
        rest = log_mel
        while len(rest):
            taken = rest[: len(buffer) - filled]
            buffer[filled : filled + len(taken)] = taken
            filled += len(taken)
            rest = rest[len(taken) :]
            if filled == len(buffer):
                array[written : written + filled] = buffer
                written, filled = written + filled, 0
    array[written : written + filled] = buffer[:filled]
    assert written + filled == total
    with warnings.catch_warnings():
        # Zarr warns that this is not in the specification yet, but xarray looks for it.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path, zarr_format=3)


def first_frames(num_frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """First frames of clips of the given lengths [clip], and the end of the last: [clip + 1]."""
    return np.concatenate([[0], np.cumsum(num_frames)]).astype(np.int64)


class ZarrFrames(Frames):
    """The frames of clips in a store, read from its files without Zarr."""

    def __init__(self, path: Path, offset: NDArray[np.int64], name: str = "log_mel") -> None:
        """`offset` [clip] as in the index. Raises ValueError for layouts other than ours."""
        array = read_json(path / name / "zarr.json")
        self._path = path
        total, self.width = array["shape"]
        self._frames_per_file, _ = array["chunk_grid"]["configuration"]["chunk_shape"]
        num_files = -(-total // self._frames_per_file)
        self.files = OpenFiles([path / name / "c" / str(n) / "0" for n in range(num_files)])
        self._frame_bytes = 2 * self.width
        self._offset = offset
        self._check_layout(array, total)

    def runs(
        self,
        clips: NDArray[np.int64],
        first_frames: NDArray[np.int64],
        num_frames: NDArray[np.int64],
        place: NDArray[np.int64],
    ) -> Runs:
        frame, left = self._offset[clips] + first_frames, num_frames
        found = []
        while len(frame):
            file, frame_in_file = np.divmod(frame, self._frames_per_file)
            taken = np.minimum(left, self._frames_per_file - frame_in_file)
            num_bytes = taken * self._frame_bytes
            found.append(Runs(file, frame_in_file * self._frame_bytes, place, num_bytes))
            # The rest of a clip that crosses the border is in the next file.
            rest = taken < left
            frame, left, place = (frame + taken)[rest], (left - taken)[rest], (place + num_bytes)[rest]
        return Runs(*map(np.concatenate, zip(*found, strict=True)))

    def _check_layout(self, array: dict[str, Any], total: int) -> None:
        """The index at the end of each file must list all chunks in their order, without gaps."""
        sharding = array["codecs"][0]["configuration"]
        if [codec["name"] for codec in sharding["codecs"]] != ["bytes"]:
            raise ValueError(
                f"{self._path}: need uncompressed chunks, as `python -m flows.shards` writes them, "
                f"found the codecs {sharding['codecs']}."
            )
        frames_per_chunk, _ = sharding["chunk_shape"]
        chunk_bytes = frames_per_chunk * self._frame_bytes
        index_bytes = self._frames_per_file // frames_per_chunk * INDEX_ENTRY_BYTES
        for file, num_bytes in enumerate(self.files.num_bytes().tolist()):
            frames = min(total - file * self._frames_per_file, self._frames_per_file)
            num_chunks = -(-frames // frames_per_chunk)
            if num_bytes < num_chunks * chunk_bytes + index_bytes + CHECKSUM_BYTES:
                raise TruncatedShard(self.files.paths[file])
            entries = np.empty(index_bytes // 2, dtype=np.float16)
            position = num_bytes - index_bytes - CHECKSUM_BYTES
            self.files.read(entries, Runs(*np.array([[file], [position], [0], [index_bytes]])))
            starts, sizes = entries.view("<u8").reshape(-1, 2)[:num_chunks].T
            in_order = np.arange(num_chunks) * chunk_bytes
            if not (np.array_equal(starts, in_order) and (sizes == chunk_bytes).all()):
                raise ValueError(
                    f"{self.files.paths[file]}: need chunks in their order, found another order. "
                    "Make the shards again."
                )
