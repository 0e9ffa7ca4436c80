"""folder -> its recordings with checksums: plain files, members of tars, rows of parquet files.

Millions of recordings pass through here one after the other and are never in memory together.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import parquet

from matpac.clip import UnusableAudio
from matpac.datasets.containers import Member, Place, TarListing, list_tar, parquet_rows, read_place, read_row
from matpac.files import checksum, whole_file
from matpac.threads import ahead
from matpac.walk import AUDIO_SUFFIXES, PLAIN_FILES, Storage, find_files, require_some, storage_of

AUDIO = Path("data/audio")
TABLE = "recordings.parquet"
SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "bytes": pa.int64(),
        "sha256": pa.string(),
        "file": pa.string(),
        "position": pa.int64(),
        "about": pa.string(),
    }
)
JOB_RECORDINGS = 64
WAITING_JOBS = 32
BATCH_ROWS, ROWS_PER_GROUP = 2**13, 2**16
LARGEST_IN_MEMORY = 2**26
"""Bytes of the largest file that `unchanged` returns as bytes."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One piece of audio: a file, a member of a tar, or a row of a parquet file."""

    path: str
    """Unique name in the dataset: path of the file relative to the root, with forward slashes.
    Inside a container, the name of the member or the number of the row follows."""
    bytes: int
    sha256: str
    """Checksum, empty if the recording cannot be read (no permission, a dead link, a damaged tar)
    and so will be rejected."""
    file: str
    """Path of the file that holds it, relative to the root; `path` itself for a plain file."""
    position: int = 0
    """Position of the first byte of a tar's member, or number of the row; 0 for a plain file."""
    about: str = ""
    """JSON about it in its container: the member `<key>.json`, or the other columns of the row."""


@dataclass(frozen=True)
class Inventory:
    num_recordings: int
    num_bytes: int
    num_unreadable: int


def take_inventory(root: Path, stored_as: Collection[Storage] = PLAIN_FILES) -> Iterator[Recording]:
    """Every recording with its size and checksum, in the order of `file`, then `position`.

    `stored_as` says what to look for: audio files, tars of them, parquet files with a column of
    audio. From a damaged container we list all that can be read; the rest is one recording without
    a checksum, named by the file.

    Raises:
        ValueError: As audio_files does.
    """
    found = chain.from_iterable(ahead(_jobs(root, stored_as), WAITING_JOBS))
    return require_some(found, root, stored_as)


T = TypeVar("T")
Job = Callable[[], list[Recording]]


def _jobs(root: Path, stored_as: Collection[Storage]) -> Iterator[Job]:
    for storage, paths in groupby(find_files(root, stored_as), key=storage_of):
        if storage == "files":
            for part in _parts(paths):
                yield partial(_plain, root, part)
            continue
        for path in paths:
            yield from _tar_jobs(root, path) if storage == "tars" else _parquet_jobs(root, path)


def _tar_jobs(root: Path, file: str) -> Iterator[Job]:
    listing = list_tar(root / file, AUDIO_SUFFIXES)
    for part in _parts(listing.members):
        yield partial(_members, root, file, listing, part)
    if not listing.is_whole:
        yield partial(_rest_of, file)


def _parquet_jobs(root: Path, file: str) -> Iterator[Job]:
    """Read and hash rows at once, so that few of them are in memory together."""
    try:
        for row in parquet_rows(root / file):
            sha256 = "" if row.content is None else hashlib.sha256(row.content).hexdigest()
            num_bytes = len(row.content or b"")
            yield partial(
                list, [Recording(f"{file}/{row.number}", num_bytes, sha256, file, row.number, row.about)]
            )
    except OSError:
        yield partial(_rest_of, file)


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    items = iter(items)
    while part := list(islice(items, JOB_RECORDINGS)):
        yield part


def _plain(root: Path, paths: Sequence[str]) -> list[Recording]:
    return [Recording(path, *_checksum(root / path), path) for path in paths]


def _checksum(path: Path) -> tuple[int, str]:
    try:
        if not path.is_file():  # A pipe would block.
            return 0, ""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return file.tell(), sha256
    except OSError:
        return 0, ""


def _members(root: Path, file: str, listing: TarListing, members: Sequence[Member]) -> list[Recording]:
    return [_member(root, file, listing, member) for member in members]


def _member(root: Path, file: str, listing: TarListing, member: Member) -> Recording:
    again = f"~{member.occurrence}" if member.occurrence > 1 else ""
    path = f"{file}/{member.name}{again}"
    place = member.place
    if place is None:
        return Recording(path, 0, "", file)
    try:
        content, about = read_place(root / file, place), listing.about(root / file, member)
    except OSError:
        content, about = b"", ""
    sha256 = hashlib.sha256(content).hexdigest() if len(content) == place.num_bytes else ""
    return Recording(path, place.num_bytes, sha256, file, place.position, about)


def _rest_of(file: str) -> list[Recording]:
    return [Recording(file, 0, "", file)]


def open_path(root: Path, recording: Recording) -> Path | None:
    """Path of the recording if it is a file of its own; None inside a container."""
    return root / recording.path if recording.file == recording.path else None


def read_bytes(root: Path, recording: Recording) -> bytes:
    """All bytes of the recording. Rows are fastest in their order. Raises OSError."""
    file = root / recording.file
    if recording.file == recording.path:
        return file.read_bytes()
    if storage_of(recording.file) == "parquet":
        return read_row(file, recording.position)
    return read_place(file, Place(recording.position, recording.bytes))


def content_digest(recordings: Iterable[Recording]) -> str:
    """One checksum of all names and contents, however the files were packed."""
    lines = sorted(f"{recording.path} {recording.sha256}\n" for recording in recordings)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def has_inventory(folder: Path) -> bool:
    return (folder / TABLE).is_file()


def write_recordings(folder: Path, recordings: Iterable[Recording]) -> Inventory:
    """Write `recordings.parquet` as the recordings come. It appears when it is complete."""
    num_recordings = num_bytes = num_unreadable = 0
    with (
        whole_file(folder / TABLE) as partial_table,
        parquet.ParquetWriter(partial_table, SCHEMA, compression="zstd", use_dictionary=["file"]) as table,
    ):
        recordings = iter(recordings)
        while part := list(islice(recordings, ROWS_PER_GROUP)):
            columns = [[getattr(recording, name) for recording in part] for name in SCHEMA.names]
            table.write_table(pa.table(columns, SCHEMA))
            num_recordings += len(part)
            num_bytes += sum(recording.bytes for recording in part)
            num_unreadable += sum(not recording.sha256 for recording in part)
    return Inventory(num_recordings, num_bytes, num_unreadable)


def read_recordings(folder: Path) -> Iterator[Recording]:
    """The recordings in the order in which they were written."""
    with parquet.ParquetFile(folder / TABLE, pre_buffer=False) as table:
        for batch in table.iter_batches(BATCH_ROWS):
            columns = [column.to_pylist() for column in batch.columns]
            yield from map(Recording, *columns)


class Recordings:
    """The recordings of a dataset; every iteration reads them again."""

    def __init__(self, raw: Path) -> None:
        self.raw = raw

    def __iter__(self) -> Iterator[Recording]:
        return read_recordings(self.raw)


def unchanged(recording: Recording, root: Path) -> Path | bytes:
    """The recording, if it is still as the inventory says: a shard must not follow from later
    edits.

    Files are read once, for the checksum and for the decoder. Only the largest stay on the disk.

    Returns:
        The bytes; for a large file of its own, the path.

    Raises:
        UnusableAudio: If it cannot be read or has changed.
    """
    if not recording.sha256:
        raise UnusableAudio(Path(recording.path), "cannot be read (nor could it for the inventory)")
    path = open_path(root, recording)
    source: Path | bytes
    try:
        if path is not None and recording.bytes > LARGEST_IN_MEMORY:
            source, found = path, checksum(path)
        else:
            source = content = read_bytes(root, recording)
            found = hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise UnusableAudio(Path(recording.path), f"cannot be read ({error.strerror})") from error
    if found != recording.sha256:
        raise UnusableAudio(Path(recording.path), "changed (run the download stage again)")
    return source
