"""parts of an archive -> one file to read, without joining them on the disk."""

import errno
import io
import os
import struct
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple
from zipfile import BadZipFile

# Records of PKWARE's APPNOTE.TXT 6.3: end of the directory, its zip64 version and its locator.
END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR64 = struct.Struct("<4sLQL")
ENTRY_BYTES = 46
MAX_16, MAX_32 = 2**16 - 1, 2**32 - 1
ZIP64_FIELDS = 1


class Joined(io.RawIOBase):
    """Several binary files, one after the other."""

    def __init__(self, files: Sequence[io.BufferedIOBase]) -> None:
        self.files = files
        self.starts = [0, *accumulate(file.seek(0, os.SEEK_END) for file in files)]
        self.position = 0

    @property
    def size(self) -> int:
        return self.starts[-1]

    def position_of(self, number: int, offset: int) -> int:
        """Position of an offset in one of the files. Raises BadZipFile if there is no such file."""
        if number >= len(self.files):
            raise BadZipFile(f"its directory names a part {number + 1}, of {len(self.files)}")
        return self.starts[number] + offset

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        if position < 0:
            raise OSError(errno.EINVAL, "position before the first byte")
        self.position = position
        return position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # all it is given
        if self.position >= self.size:
            return 0
        number = bisect_right(self.starts, self.position) - 1
        self.files[number].seek(self.position - self.starts[number])
        data = self.files[number].read(min(len(buffer), self.starts[number + 1] - self.position))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def joined(files: Sequence[io.BufferedIOBase]) -> Joined:
    """The parts of an archive as one file.

    Parts are a file cut into pieces, or a split zip. A split zip counts positions from the
    beginning of each part. We give it a second directory in memory that counts from the first byte
    of all, so that it reads like any other zip.

    Raises:
        BadZipFile: If parts of a split zip are missing.
    """
    whole = Joined(files)
    end = _find_end(whole)
    if end is None or end.num_parts == 1:
        whole.seek(0)
        return whole
    if end.num_parts != len(files):
        raise BadZipFile(f"a split zip of {end.num_parts} parts, found {len(files)}")
    return Joined([*files, io.BytesIO(_directory(whole, end))])


class _End(NamedTuple):
    """Facts about the directory of a zip, from the end of the zip."""

    num_parts: int
    part: int
    """Number of the part in which the directory begins, at `offset`."""
    offset: int
    size: int
    num_entries: int


def _find_end(whole: Joined) -> _End | None:
    """None if this is no zip."""
    tail_start = max(whole.size - END.size - MAX_16, 0)
    tail = _read(whole, tail_start, whole.size - tail_start)
    position = tail.rfind(b"PK\5\6")
    if position < 0 or position + END.size > len(tail):
        return None
    _, last_part, part, _, num_entries, size, offset, _ = END.unpack_from(tail, position)
    end = _End(last_part + 1, part, offset, size, num_entries)
    locator = tail[max(position - LOCATOR64.size, 0) : position]
    if not locator.startswith(b"PK\6\7"):
        return end
    _, end_part, end_offset, num_parts = LOCATOR64.unpack(locator)
    record = _read(whole, whole.position_of(end_part, end_offset), END64.size)
    if not record.startswith(b"PK\6\6") or len(record) < END64.size:
        return end
    *_, part, _, num_entries, size, offset = END64.unpack(record)
    return _End(num_parts, part, offset, size, num_entries)


def _directory(whole: Joined, end: _End) -> bytes:
    """A new directory and its end in the form of zip64, as if there had never been parts."""
    old = _read(whole, whole.position_of(end.part, end.offset), end.size)
    new, position = bytearray(), 0
    for _ in range(end.num_entries):
        entry = bytearray(old[position : position + ENTRY_BYTES])
        if not entry.startswith(b"PK\1\2") or len(entry) < ENTRY_BYTES:
            raise BadZipFile("its directory is damaged")
        compressed, size, name_bytes, extra_bytes, comment_bytes, part = struct.unpack_from(
            "<2L4H", entry, 20
        )
        [offset] = struct.unpack_from("<L", entry, 42)
        name_start = position + ENTRY_BYTES
        extra_start = name_start + name_bytes
        comment_start = extra_start + extra_bytes
        position = comment_start + comment_bytes

        large, extra = _without_zip64(old[extra_start:comment_start])
        size, compressed, offset = (
            large.pop(0) if value == MAX_32 and large else value for value in (size, compressed, offset)
        )
        start = whole.position_of(part, offset)
        extra = struct.pack("<2H3Q", ZIP64_FIELDS, 24, size, compressed, start) + extra
        struct.pack_into("<2L", entry, 20, MAX_32, MAX_32)
        struct.pack_into("<H", entry, 30, len(extra))
        struct.pack_into("<H", entry, 34, 0)
        struct.pack_into("<L", entry, 42, MAX_32)
        new += entry + old[name_start:extra_start] + extra + old[comment_start:position]
    counts = (end.num_entries, end.num_entries, len(new), whole.size)
    new += END64.pack(b"PK\6\6", END64.size - 12, 45, 45, 0, 0, *counts)
    new += LOCATOR64.pack(b"PK\6\7", 0, whole.size + len(new) - END64.size, 1)
    return bytes(new + END.pack(b"PK\5\6", 0, 0, MAX_16, MAX_16, MAX_32, MAX_32, 0))


def _without_zip64(extra: bytes) -> tuple[list[int], bytes]:
    """The zip64 sizes in the extra fields of an entry, and the other fields."""
    large: list[int] = []
    others, position = b"", 0
    while position + 4 <= len(extra):
        kind, num_bytes = struct.unpack_from("<2H", extra, position)
        field = extra[position : position + 4 + num_bytes]
        if kind == ZIP64_FIELDS:
            large = [number for (number,) in struct.iter_unpack("<Q", field[4 : 4 + num_bytes // 8 * 8])]
        else:
            others += field
        position += len(field)
    return large, others


def _read(whole: Joined, start: int, num_bytes: int) -> bytes:
    """At most so many bytes, and fewer if there are no more: sizes in an archive may be lies."""
    whole.seek(start)
    left = max(min(num_bytes, whole.size - start), 0)
    pieces = []
    while left:
        pieces.append(whole.read(left))
        left -= len(pieces[-1])
    return b"".join(pieces)
