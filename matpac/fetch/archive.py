"""archive -> folder: zip, tar or tar.gz, in one file or in parts, without trust in what it says.

tarfile's filter="data" would refuse some of these members, but not in zips, nor in our words.
"""

import errno
import gzip
import io
import re
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from matpac.fetch.http import REPORT_EVERY_S, DiskTooSmall, Report, check_room, full_disk_in_words
from matpac.fetch.split_archive import Joined, joined

CHUNK_BYTES = 2**20
MOST_GROWTH, ALWAYS_ALLOWED_BYTES = 100, 2**26
"""Limits of the unpacked size: this many times the archive, or 64 MiB if that is more. Audio never
shrinks like that, a bomb does."""
TAR_GZ_GROWTH = 2.0
"""Room to expect for a .tar.gz, which has no list of sizes. 16-bit music takes 1.2 to 1.7."""
MOST_HEADER_BYTES = 2**24
"""Limit for the headers of a tar's member, which are read into memory."""
MOST_NAME_BYTES, MOST_PATH_BYTES = 240, 2000
"""Less than file systems allow (255, 4096), to leave room for the folder and for working names."""

ZIP_ENCRYPTED, ZIP_UTF8 = 0x1, 0x800
FILE, FOLDER = "a file", "a folder"
KINDS = {
    tarfile.REGTYPE: FILE,
    tarfile.AREGTYPE: FILE,
    tarfile.CONTTYPE: FILE,
    tarfile.DIRTYPE: FOLDER,
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a fifo",
    tarfile.GNUTYPE_SPARSE: "a file with holes",
}
BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError),
    *(NotImplementedError, RecursionError, ValueError, OverflowError),
)
"""Errors that the readers raise for damaged archives."""
ARCHIVE_ERRORS = (None, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
"""Errors of the archive, not of this machine: bad data, a position before the first byte, a file
that is a folder."""


class UnusableArchive(ValueError):
    """Damaged, malicious, or not what it should be."""


def unpack(parts: Sequence[Path], folder: Path, report: Report | None = None) -> None:
    """Unpack an archive, given as its parts in their order, into the folder.

    Parts are a file cut into pieces (name.zip.001, .002, ...) or a split zip (name.z01, ...,
    name.zip). Members appear whole or not at all, and members that are there in the right size are
    not written again, so an interrupted call can be repeated. Nothing is written outside the folder
    except one working file beside it. `report` receives bytes of the archive.

    Raises:
        UnusableArchive: In one line that names archive and member, if a member is damaged, reaches
            outside, is neither a file nor a folder, comes twice, or grows like a bomb.
        DiskTooSmall: If there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        files = [stack.enter_context(part.open("rb")) for part in parts]
        writer = _Writer(parts[-1].name, sum(part.stat().st_size for part in parts), folder)
        stack.enter_context(writer.problems_in_words())
        whole = joined(files)
        head = whole.read(2)
        whole.seek(0)
        if head == b"PK":
            written = _unpack_zip(whole, writer)
        elif head == b"\x1f\x8b":
            written = _unpack_tar(gzip.GzipFile(fileobj=io.BufferedReader(whole)), TAR_GZ_GROWTH, writer)
        else:
            written = _unpack_tar(io.BufferedReader(whole), 1.0, writer)
        reported_at = 0.0
        for _ in written:
            if report is not None and time.monotonic() - reported_at > REPORT_EVERY_S:
                reported_at = time.monotonic()
                report(min(whole.tell(), writer.archive_bytes), writer.archive_bytes)
        if report is not None:
            report(writer.archive_bytes, writer.archive_bytes)


def _unpack_zip(whole: Joined, writer: "_Writer") -> Iterator[None]:
    with zipfile.ZipFile(io.BufferedReader(whole)) as archive:
        members = archive.infolist()
        # We judge all members before writing the first byte.
        targets = [writer.claim(_name(info), _kind(info), info.file_size) for info in members]
        missing = [
            (info, target)
            for info, target in zip(members, targets, strict=True)
            if target is not None and not _is_whole(target, info.file_size)
        ]
        check_room(writer.folder, sum(info.file_size for info, _ in missing), "unpacking")
        for info, target in missing:
            writer.member = _name(info)
            with archive.open(info) as content:
                yield from writer.write(target, info.file_size, content.read)


def _name(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & ZIP_UTF8:
        return info.orig_filename
    try:  # Many programs write UTF-8 without saying so; zipfile takes it for code page 437.
        return info.orig_filename.encode("cp437").decode()
    except UnicodeError:
        return info.orig_filename


def _kind(info: zipfile.ZipInfo) -> str:
    form = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & ZIP_ENCRYPTED:
        return "an encrypted file"
    if form == stat.S_IFLNK:
        return "a symbolic link"
    if form not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a special file"
    return FOLDER if form == stat.S_IFDIR or info.orig_filename.endswith("/") else FILE


def _unpack_tar(stream: io.BufferedIOBase, growth: float, writer: "_Writer") -> Iterator[None]:
    """`growth` is the expected size of the tar, as a multiple of the archive."""
    there = sum(path.stat().st_size for path in writer.folder.rglob("*") if path.is_file())
    check_room(writer.folder, growth * writer.archive_bytes - there, "unpacking")
    source = _Rationed(stream)
    try:
        archive = tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK_BYTES, tarinfo=_Member)  # noqa: SIM115
    except tarfile.ReadError as error:
        raise tarfile.ReadError(f"neither zip nor tar: {error}") from error
    with archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # Else it keeps them all.
            source.ration = member.size + MOST_HEADER_BYTES
            kind = "a file with holes" if member.issparse() else KINDS.get(member.type, "a special file")
            target = writer.claim(member.name, kind, member.size)
            if target is not None and not _is_whole(target, member.size):
                content = archive.extractfile(member)
                assert content is not None, "a file has content"
                yield from writer.write(target, member.size, content.read)
        while source.read(CHUNK_BYTES):
            pass  # The checksum of a .gz comes after the tar.


class _Member(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """TarFile takes a bad header for the end of the archive, unless it is the first."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # The true end.
            raise tarfile.ReadError(f"{error} where a member should be") from error


class _Rationed(io.RawIOBase):
    """A stream that fails if more is read than the present ration."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self.stream, self.ration = stream, MOST_HEADER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # all it is given
        num_bytes = self.stream.readinto(buffer)
        self.ration -= num_bytes
        if self.ration < 0:
            raise tarfile.ReadError(f"followed by over {MOST_HEADER_BYTES:,} bytes of headers")
        return num_bytes


class _Writer:
    """Judges the members of one archive, writes them, and words what is wrong with them."""

    def __init__(self, archive: str, archive_bytes: int, folder: Path) -> None:
        self.archive, self.archive_bytes, self.folder = archive, archive_bytes, folder
        self.most_bytes = max(MOST_GROWTH * archive_bytes, ALWAYS_ALLOWED_BYTES)
        self.member = ""
        """Name of the present member, for messages."""
        self.claimed: set[str] = set()
        self.claimed_bytes = 0

    def claim(self, name: str, kind: str, num_bytes: int) -> Path | None:
        """Path for the member; None for a folder. Raises UnusableArchive if it is refused."""
        self.member = name
        path = PurePosixPath(name).as_posix()
        objection = _objection(name, kind)
        if objection is None and kind == FILE and path in self.claimed:
            objection = "comes twice"
        self.claimed_bytes += max(num_bytes, 0)
        if objection is None and self.claimed_bytes > self.most_bytes:
            objection = (
                f"makes {self.claimed_bytes:,} bytes out of {self.archive_bytes:,}: a bomb "
                f"(at most {self.most_bytes:,} are unpacked)"
            )
        if objection is not None:
            raise UnusableArchive(f"{self.archive}: refused, since its member {_short(name)!r} {objection}")
        if kind == FOLDER:
            return None
        self.claimed.add(path)
        return self.folder / path

    def write(self, target: Path, num_bytes: int, read: Callable[[int], bytes]) -> Iterator[None]:
        """Yield after every piece. Trusts the bytes that come, not the size in the archive."""
        partial = self.folder.with_name(f"{self.folder.name}.member")
        written = 0
        try:
            with full_disk_in_words(self.folder):
                with partial.open("wb") as out:
                    while piece := read(CHUNK_BYTES):
                        written += len(piece)
                        if written > num_bytes:
                            break
                        out.write(piece)
                        yield
                if written != num_bytes:
                    raise EOFError(f"need {num_bytes:,} bytes, found {written:,}")
                target.parent.mkdir(parents=True, exist_ok=True)
                partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def problems_in_words(self) -> Iterator[None]:
        try:
            yield
        except (UnusableArchive, DiskTooSmall):
            raise
        except OSError as error:
            # Other errors of the operating system are not the archive's fault.
            kind = UnusableArchive if error.errno in ARCHIVE_ERRORS else ValueError
            raise kind(self._line(error)) from error
        except BROKEN as error:
            raise UnusableArchive(self._line(error)) from error

    def _line(self, error: Exception) -> str:
        place = f" at member {_short(self.member)!r}" if self.member else ""
        problem = _short(" ".join(str(error).split()) or type(error).__name__)
        return f"{self.archive}: cannot be unpacked{place} ({problem})"


def _short(text: str) -> str:
    """Cut a name, or a message that quotes one: names in archives may be long."""
    return text if len(text) <= MOST_NAME_BYTES else f"{text[:MOST_NAME_BYTES]}..."


def _is_whole(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _objection(name: str, kind: str) -> str | None:
    """Reason to refuse a member, whatever else is in the archive; None if there is none."""
    parts = PurePosixPath(name).parts
    if kind not in (FILE, FOLDER):
        return f"is {kind}"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in parts:
        return "leads out of its folder"
    if "\\" in name or "\0" in name:
        return "has a backslash or a zero in its name"
    if kind == FILE and (not parts or name.endswith("/")):
        return "has no name"
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if max(lengths, default=0) > MOST_NAME_BYTES or sum(lengths) + len(lengths) > MOST_PATH_BYTES:
        return f"has too long a name (over {MOST_NAME_BYTES} bytes, or a path over {MOST_PATH_BYTES})"
    return None
