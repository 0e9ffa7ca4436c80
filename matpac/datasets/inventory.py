"""folder -> its recordings with checksums: plain files, members of tars, rows of parquet files.

Millions of recordings pass through here one after the other and are never in memory together.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow as pa
from pyarrow import parquet

from matpac.clip import UnusableAudio
from matpac.datasets.containers import Member, Place, TarListing, list_tar, parquet_rows, read_place, read_row
from matpac.files import checksum, not_a_file, read_json, whole_file, write_json
from matpac.threads import ahead
from matpac.walk import (
    AUDIO_SUFFIXES,
    PLAIN_FILES,
    PassedOver,
    Storage,
    find_files,
    require_some,
    storage_of,
    suffix_of,
)

AUDIO = Path("data/audio")
TABLE, PASSED_OVER = "recordings.parquet", "passed_over.json"
SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "bytes": pa.int64(),
        "sha256": pa.string(),
        "file": pa.string(),
        "position": pa.int64(),
        "about": pa.string(),
        "trouble": pa.string(),
    }
)
JOB_RECORDINGS = 64
WAITING_JOBS = 32
BATCH_ROWS, ROWS_PER_GROUP = 2**13, 2**16
AT_ONCE = 2**18
"""Bytes that are read at once for a checksum."""
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
    """Checksum, empty if the recording cannot be read and so will be rejected."""
    file: str
    """Path of the file that holds it, relative to the root; `path` itself for a plain file."""
    position: int = 0
    """Position of the first byte of a tar's member, or number of the row; 0 for a plain file."""
    about: str = ""
    """JSON about it in its container: the member `<key>.json`, or the other columns of the row."""
    trouble: str = ""
    """Why it cannot be read: no permission, a link to nothing, a damaged tar, ..."""

    def unreadable(self) -> UnusableAudio:
        """The rejection of a recording without a checksum."""
        trouble = self.trouble or "nor could it for the inventory"
        return UnusableAudio(Path(self.path), f"cannot be read ({trouble})")


@dataclass(frozen=True)
class Inventory:
    num_recordings: int
    num_bytes: int
    num_unreadable: int
    passed_over: PassedOver


def take_inventory(
    root: Path,
    stored_as: Collection[Storage] = PLAIN_FILES,
    passed_over: PassedOver | None = None,
    tables: Collection[Path] = (),
) -> Iterator[Recording]:
    """Every recording with its size and checksum, in the order of `file`, then `position`.

    From a damaged container we list all that can be read; the rest is one recording without a
    checksum, named by the file.

    Args:
        root: Folder of the recordings.
        stored_as: What to look for: audio files, tars of them, parquet files with a column of audio.
        passed_over: Receives what is not read; complete after the last recording.
        tables: Tables of labels, which are read elsewhere and so not passed over.

    Raises:
        ValueError, OSError: As audio_files does.
    """
    passed_over = passed_over if passed_over is not None else PassedOver()
    paths = find_files(root, stored_as, passed_over, tables)
    found = chain.from_iterable(ahead(_jobs(root, paths, passed_over), WAITING_JOBS))
    return require_some(found, root, stored_as, passed_over)


T = TypeVar("T")
Job = Callable[[], list[Recording]]


def _jobs(root: Path, found: Iterable[str], passed_over: PassedOver) -> Iterator[Job]:
    for storage, paths in groupby(found, key=storage_of):
        if storage == "files":
            for part in _parts(paths):
                yield partial(_plain, root, part)
            continue
        for path in paths:
            is_empty = True
            for job in _tar_jobs(root, path, passed_over) if storage == "tars" else _parquet_jobs(root, path):
                is_empty = False
                yield job
            if is_empty:
                passed_over.add(f"{suffix_of(path)} without recordings", path)


def _tar_jobs(root: Path, file: str, passed_over: PassedOver) -> Iterator[Job]:
    if what := _not_a_file(root / file):
        yield partial(_rest_of, file, what)
        return
    listing = list_tar(root / file, AUDIO_SUFFIXES)
    for part in _parts(listing.members):
        yield partial(_members, root, file, listing, part)
    if listing.damage:
        yield partial(_rest_of, file, listing.damage)
    passed_over.add_all(listing.others, f"{file}/")


def _parquet_jobs(root: Path, file: str) -> Iterator[Job]:
    """Read and hash rows at once, so that few of them are in memory together."""
    if what := _not_a_file(root / file):
        yield partial(_rest_of, file, what)
        return
    try:
        for row in parquet_rows(root / file):
            name, num_bytes = f"{file}/{row.number}", len(row.content or b"")
            sha256 = "" if row.content is None else hashlib.sha256(row.content).hexdigest()
            trouble = _trouble_of_empty(root / file, row.path) if row.content is None else ""
            recording = Recording(name, num_bytes, sha256, file, row.number, row.about, trouble)
            yield partial(list, [recording])
    except OSError as error:
        yield partial(_rest_of, file, _in_words(error))


def _trouble_of_empty(table: Path, path: str) -> str:
    """Why a row without bytes has none. A path in it is named, and never opened."""
    if not path:
        return "the row is empty"
    parts = PurePosixPath(path).parts
    is_here = ".." not in parts and not path.startswith("/") and (table.parent / path).is_file()
    hint = ", a file beside the table: kind folder reads those" if is_here else ""
    return f"the row holds only a path, {path}{hint}"


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    items = iter(items)
    while part := list(islice(items, JOB_RECORDINGS)):
        yield part


def _plain(root: Path, paths: Sequence[str]) -> list[Recording]:
    return [_file(root, path) for path in paths]


def _file(root: Path, path: str) -> Recording:
    try:
        if what := _not_a_file(root / path):  # A pipe would block.
            return _unreadable(path, path, what)
        with (root / path).open("rb", buffering=0) as file:
            found = hashlib.sha256()
            while content := file.read(AT_ONCE):  # hashlib.file_digest is slow for small files.
                found.update(content)
            return Recording(path, file.tell(), found.hexdigest(), path)
    except OSError as error:
        return _unreadable(path, path, _in_words(error))


def _not_a_file(path: Path) -> str:
    try:
        return not_a_file(path)
    except OSError as error:
        return _in_words(error)


def _in_words(error: OSError) -> str:
    return error.strerror or str(error)


def _unreadable(path: str, file: str, trouble: str) -> Recording:
    return Recording(path, 0, "", file, trouble=trouble)


def _members(root: Path, file: str, listing: TarListing, members: Sequence[Member]) -> list[Recording]:
    return [_member(root, file, listing, member) for member in members]


def _member(root: Path, file: str, listing: TarListing, member: Member) -> Recording:
    again = f"~{member.occurrence}" if member.occurrence > 1 else ""
    path = f"{file}/{member.name}{again}"
    place = member.place
    if place is None:
        return _unreadable(path, file, "a link or a sparse file in a tar")
    trouble = ""
    try:
        content, about = read_place(root / file, place), listing.about(root / file, member)
    except OSError as error:
        content, about, trouble = b"", "", _in_words(error)
    if len(content) < place.num_bytes:
        trouble = trouble or "the tar ends in the middle of it"
    sha256 = "" if trouble else hashlib.sha256(content).hexdigest()
    return Recording(path, place.num_bytes, sha256, file, place.position, about, trouble)


def _rest_of(file: str, trouble: str) -> list[Recording]:
    return [_unreadable(file, file, trouble)]


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


def write_recordings(
    folder: Path, recordings: Iterable[Recording], passed_over: PassedOver | None = None
) -> Inventory:
    """Write `recordings.parquet` as the recordings come, then `passed_over.json`. Each appears complete."""
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
    passed_over = passed_over or PassedOver()
    write_json(folder / PASSED_OVER, asdict(passed_over))
    return Inventory(num_recordings, num_bytes, num_unreadable, passed_over)


def read_passed_over(folder: Path) -> PassedOver:
    """What stands in `passed_over.json`; nothing if it was not counted."""
    path = folder / PASSED_OVER
    return PassedOver(**read_json(path)) if path.exists() else PassedOver()


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
        raise recording.unreadable()
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
