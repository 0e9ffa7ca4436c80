"""tar, parquet or arrow file -> the recordings in it, listed and read without unpacking."""

import errno
import json
import tarfile
import threading
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, islice
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from matpac.walk import PassedOver

NOTES = (".json", ".cls", ".txt")
"""Suffixes of the members of a WebDataset sample that describe its audio."""
ROWS_AT_ONCE = 16
"""Rows per batch; a row holds a whole recording, so few of them fit into memory."""
BUFFER_BYTES = 2**20
CACHE = "cache-"
"""Beginning of the names of arrow files that Hugging Face's `map` leaves beside a dataset. They repeat
its rows."""
ARROW_MAGIC = b"ARROW1"
"""Beginning of an arrow file with an index at its end; others are streams."""


class Place(NamedTuple):
    """A run of bytes in a file."""

    position: int
    num_bytes: int


class Member(NamedTuple):
    name: str
    occurrence: int
    """Number of this occurrence from 1, since a tar may hold one name several times."""
    place: Place | None
    """None if the bytes are not in one run, as for a link or a sparse file."""


@dataclass(frozen=True, slots=True)
class TarListing:
    members: list[Member]
    """Members in their order in the tar."""
    notes: Mapping[tuple[str, int], Place]
    """Place of each note, by name and occurrence."""
    others: PassedOver
    """Members that are neither audio nor notes."""
    damage: str
    """What is wrong with a tar that is cut short or damaged: there may have been more members. Else empty."""

    def about(self, path: Path, member: Member) -> str:
        """JSON of the member's sample, with its `.cls` and `.txt` as further keys; "" if there is
        none.

        A text that is no JSON object is returned as it is.

        Raises:
            OSError: If the tar cannot be read.
        """
        notes = {}
        for suffix in NOTES:
            place = self._note(member, suffix)
            if place is None:
                continue
            note = read_place(path, place)
            if len(note) == place.num_bytes:  # Else it is cut off.
                notes[suffix] = note.decode(errors="replace")
        text = notes.pop(".json", "{}" if notes else "")
        try:
            sample = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if not isinstance(sample, dict):
            return text
        return json.dumps(sample | {suffix[1:]: note.strip() for suffix, note in notes.items()})

    def _note(self, member: Member, suffix: str) -> Place | None:
        """WebDataset cuts a name at the first dot, many people at the last one: try both."""
        path = PurePosixPath(member.name)
        keys = path.with_suffix(""), path.with_name(path.name.partition(".")[0])
        places = (self.notes.get((f"{key}{suffix}", member.occurrence)) for key in keys)
        return next((place for place in places if place is not None), None)


def list_tar(path: Path, suffixes: frozenset[str]) -> TarListing:
    """Members with one of the suffixes, except hidden ones, and the notes about them.

    Reads the headers only and keeps one line per member. No content of the file makes it raise.
    """
    members: list[Member] = []
    notes: dict[tuple[str, int], Place] = {}
    others, damage = PassedOver(), ""
    num_named = Counter[str]()
    try:
        with tarfile.open(path, "r:") as archive:
            end = 0
            while (header := archive.next()) is not None:
                if archive.offset <= end:
                    raise tarfile.ReadError("a header of negative size, which would be read for ever")
                end = archive.offset
                archive.members.clear()  # type: ignore[attr-defined] # Else it keeps every header.
                name = PurePosixPath(_utf8(header.name).lstrip("/")).as_posix()
                suffix = PurePosixPath(name).suffix.lower()
                if header.isdir() or _is_hidden(name):
                    continue
                if suffix not in suffixes.union(NOTES):
                    others.add_file(name)
                    continue
                num_named[name] += 1
                in_one_run = header.isreg() and not header.issparse()
                place = Place(header.offset_data, header.size) if in_one_run else None
                if suffix in suffixes:
                    members.append(Member(name, num_named[name], place))
                elif place is not None:
                    notes[name, num_named[name]] = place
            if not _has_end_mark(path, archive.offset):
                damage = f"no valid header at byte {archive.offset:,}, where a member or the end should be"
    except (tarfile.TarError, ValueError, RecursionError) as error:  # Nested headers.
        damage = shorten(str(error), 200)
    except OSError as error:
        return TarListing(members, notes, others, error.strerror or str(error))
    return TarListing(members, notes, others, damage and f"damaged tar: {damage}")


def _has_end_mark(path: Path, position: int) -> bool:
    """Whether a block of zeros is there; tarfile also takes a damaged header for the end."""
    return read_place(path, Place(position, tarfile.BLOCKSIZE)) == bytes(tarfile.BLOCKSIZE)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)


def _utf8(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="replace")


def read_place(path: Path, place: Place) -> bytes:
    """The bytes of a place, fewer if the file ends before. Raises OSError."""
    with path.open("rb") as file:
        # A damaged header may ask for more than fits into memory.
        num_left = max(path.stat().st_size - place.position, 0)
        file.seek(place.position)
        return file.read(min(place.num_bytes, num_left))


class Row(NamedTuple):
    number: int
    content: bytes | None
    """Bytes of the audio file; None if the row has none."""
    path: str
    """Field `path` beside the bytes; empty without one."""
    about: str
    """JSON of the other columns, except binary ones."""


def has_audio(path: Path, schema: pa.Schema) -> bool:
    """Whether a file's rows are recordings of a dataset."""
    is_cache = path.name.startswith(CACHE) and path.suffix.lower() == ".arrow"
    return audio_column(schema) is not None and not is_cache


def audio_column(schema: pa.Schema) -> str | None:
    """A struct with a field `bytes` (as Hugging Face writes audio), or a binary column `audio`."""
    names = [
        field.name
        for field in schema
        if _is_binary(_bytes_in(field.type)) or (field.name == "audio" and _is_binary(field.type))
    ]
    return "audio" if "audio" in names else next(iter(names), None)


def _bytes_in(kind: pa.DataType) -> pa.DataType | None:
    has_bytes = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return kind.field("bytes").type if has_bytes else None


def _is_binary(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the classes in columns that hold their numbers, as Hugging Face notes them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {column: names for column, feature in features.items() if (names := _names_in(feature))}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return {}


def _names_in(feature: Any) -> list[str] | None:  # noqa: ANN401 - whatever the metadata holds
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature["names"]]
    return _names_in(feature.get("feature"))


def _named(value: Any, names: list[str]) -> Any:  # noqa: ANN401 - a cell
    """Names in place of numbers; none for -1, which stands for an unknown class."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if isinstance(value, str):
        return value
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def parquet_rows(path: Path) -> Iterator[Row]:
    """All rows of a parquet or arrow file in their order; none if it has no column of audio.

    Raises:
        OSError: If the file is damaged, perhaps after some rows.
    """
    with _damage_is_os_error(), _open(path) as file:
        schema = file.schema
        audio = audio_column(schema)
        if audio is None or not has_audio(path, schema):
            return
        names = class_names(schema)
        columns = [field.name for field in schema if field.name == audio or not _is_binary(field.type)]
        rows = chain.from_iterable(batch.to_pylist() for batch in file.batches(0, columns))
        for number, row in enumerate(rows):
            # Other fields of the struct, such as `path`, may be the only place with the name of the
            # file.
            cell = row[audio] if isinstance(row[audio], dict) else {}
            about = cell | row
            del about[audio]
            about.pop("bytes", None)
            about |= {column: _named(about[column], names[column]) for column in names if column in about}
            in_json = json.dumps(about, sort_keys=True, default=str)
            yield Row(number, _content(row[audio]), str(cell.get("path") or ""), in_json)


def num_rows(path: Path) -> int:
    """Number of rows of a parquet or arrow file; 0 if it has no column of audio. Raises OSError."""
    with _damage_is_os_error(), _open(path) as file:
        return sum(file.group_sizes()) if has_audio(path, file.schema) else 0


def read_row(path: Path, number: int) -> bytes:
    """The audio of one row; fast if rows are asked for in their order. Raises OSError."""
    stat = path.stat()
    with _damage_is_os_error():
        rows = _rows_of(path, stat.st_mtime_ns, stat.st_size, threading.get_ident())
        return rows.read(number)


class _Rows:
    """The audio of one parquet file, read forwards from any row."""

    def __init__(self, path: Path) -> None:
        self.file = _open(path)
        self.first_rows = [0, *accumulate(self.file.group_sizes())]
        self.cells: Iterator[Any] = iter(())
        self.next_row = -1

    def read(self, number: int) -> bytes:
        group = bisect_right(self.first_rows, number) - 1
        if not self.first_rows[group] <= self.next_row <= number:
            self.cells, self.next_row = self._from_group(group), self.first_rows[group]
        place, self.next_row = number - self.next_row, -1  # So that an error starts anew.
        content = _content(next(islice(self.cells, place, None), None))
        self.next_row = number + 1
        if content is None:
            raise OSError(errno.ENODATA, f"no audio in row {number}")
        return content

    def _from_group(self, group: int) -> Iterator[Any]:
        audio = audio_column(self.file.schema)
        batches = self.file.batches(group, [audio] if audio else [])
        return chain.from_iterable(batch.column(0).to_pylist() for batch in batches)


_rows_of = lru_cache(maxsize=8)(
    lambda path, mtime_ns, num_bytes, thread: _Rows(path)  # One for each thread: it has a position.
)


def _content(cell: Any) -> bytes | None:  # noqa: ANN401 - bytes, or a struct that holds them
    content: bytes | None = cell["bytes"] if isinstance(cell, dict) else cell
    return content


class _ParquetFile:
    """Groups of rows, of which a few rows are in memory at a time."""

    def __init__(self, path: Path) -> None:
        # No pre-buffering: a whole row group of audio may not fit into memory.
        self.file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)
        self.schema = self.file.schema_arrow

    def group_sizes(self) -> list[int]:
        metadata = self.file.metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def batches(self, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """All rows from a group on."""
        groups = list(range(group, self.file.num_row_groups))
        yield from self.file.iter_batches(ROWS_AT_ONCE, groups, columns=columns, use_threads=False)

    def __enter__(self) -> "_ParquetFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


class _ArrowFile(_ParquetFile):
    """The same for an arrow file, of either format. Its record batches are the groups."""

    def __init__(self, path: Path) -> None:
        self.file = pa.memory_map(str(path))
        is_seekable = self.file.read(len(ARROW_MAGIC)) == ARROW_MAGIC
        self.file.seek(0)
        if is_seekable:
            reader = pa.ipc.open_file(self.file)
            self._groups = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            reader = pa.ipc.open_stream(self.file)
            self._groups = iter(reader)
        self.schema = reader.schema
        self._read: list[pa.RecordBatch] = []

    def group_sizes(self) -> list[int]:
        with suppress(pa.ArrowException, OSError):  # Those before a damage can be read.
            deque(self._from(0), maxlen=0)
        return [group.num_rows for group in self._read]

    def batches(self, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for whole in self._from(group):
            for start in range(0, whole.num_rows, ROWS_AT_ONCE):
                yield whole.select(columns).slice(start, ROWS_AT_ONCE)

    def _from(self, group: int) -> Iterator[pa.RecordBatch]:
        """Record batches are views of the file, so it costs nothing to keep them."""
        yield from self._read[group:]
        for batch in self._groups:
            self._read.append(batch)
            if len(self._read) > group:
                yield batch


def _open(path: Path) -> _ParquetFile:
    return _ArrowFile(path) if path.suffix.lower() == ".arrow" else _ParquetFile(path)


@contextmanager
def _damage_is_os_error() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError) as error:
        raise OSError(errno.EIO, f"damaged file: {shorten(str(error), 200)}") from error
