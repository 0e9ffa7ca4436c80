"""folder -> its audio files, the tars and parquet files that may hold audio, and what was passed over."""

import errno
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

Storage = Literal["files", "tars", "parquet"]
"""How recordings are stored: each in a file of its own, or many in a tar or a parquet file."""
# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3g2", ".3ga", ".3gp", ".aa3", ".aac", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".amr", ".ape",
    ".asf", ".au", ".avi", ".caf", ".dff", ".dsf", ".dts", ".dtshd", ".eac3", ".ec3", ".f4a", ".f4v",
    ".flac", ".flv", ".gsm", ".m2ts", ".m4a", ".m4b", ".m4r", ".m4v", ".mka", ".mkv", ".mlp", ".mov",
    ".mp2", ".mp3", ".mp4", ".mpa", ".mpc", ".mpeg", ".mpg", ".mpga", ".mts", ".nist", ".oga", ".ogg",
    ".ogv", ".ogx", ".oma", ".opus", ".qt", ".ra", ".rf64", ".rm", ".shn", ".snd", ".sph", ".spx",
    ".tak", ".thd", ".tta", ".vob", ".voc", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wmv",
    ".wv", ".wv1", ".wv2",
})
# fmt: on
"""Suffixes of audio and video files, readable here or not: unreadable ones must show up as rejected.
`.ts` is not among them: it is a video stream more rarely than it is source code."""
SUFFIXES: dict[Storage, frozenset[str]] = {
    "files": AUDIO_SUFFIXES,
    "tars": frozenset({".tar"}),
    "parquet": frozenset({".parquet", ".arrow"}),
}
IN_WORDS: dict[Storage, str] = {
    "files": f"audio files (.wav, .flac, .mp3, .ogg, .m4a, .mp4 or {len(AUDIO_SUFFIXES) - 6} other suffixes)",
    "tars": "tars with audio files in them (.tar, not compressed)",
    "parquet": "parquet or arrow files with a column of audio (a struct with `bytes`, or a binary `audio`)",
}
PLAIN_FILES: tuple[Storage, ...] = ("files",)
COMPRESSED = (".bz2", ".gz", ".lz", ".lz4", ".lzma", ".xz", ".z", ".zst")
# fmt: off
ARCHIVES = frozenset({
    ".7z", ".ace", ".arj", ".cab", ".dmg", ".iso", ".lha", ".lzh", ".rar", ".tar", ".tbz", ".tbz2",
    ".tgz", ".txz", ".tzst", ".zip", *COMPRESSED, *(f".tar{suffix}" for suffix in COMPRESSED),
})
# fmt: on
"""Suffixes of archives, which may hold recordings that nobody sees."""
NO_SUFFIX, OTHER = "no suffix", "other suffixes"
NO_PERMISSION, NOT_UTF8 = "no permission", "name not in UTF-8"
TROUBLES = {
    errno.EACCES: NO_PERMISSION,
    errno.EPERM: NO_PERMISSION,
    errno.ENOENT: "vanished meanwhile",
    errno.ENOTDIR: "vanished meanwhile",
    errno.ELOOP: "link to itself",
}
"""Why a folder or a link may be passed over, by the error that it gives. Other errors stop the walk."""
DEAD_LINK, LOOP = "link to nothing", "link to a folder above itself"
MOST_LINKS = 16
"""Links to one folder that are followed. Ten folders with links to each other have millions of paths."""
TOO_MANY = f"link to a folder that {MOST_LINKS} links lead to"
NUM_EXAMPLES, MOST_KINDS, KINDS_SHOWN = 3, 200, 8
T = TypeVar("T")


@dataclass
class PassedOver:
    """Files and folders that a walk found and did not read."""

    number: dict[str, int] = field(default_factory=dict)
    """How many there are, by kind: a suffix, or the reason why a folder or a link could not be read."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """The first few paths of each kind. Names that are not UTF-8 have escapes."""

    def add(self, kind: str, path: str, number: int = 1) -> None:
        if kind not in self.number and len(self.number) >= MOST_KINDS:
            kind = OTHER
        self.number[kind] = self.number.get(kind, 0) + number
        examples = self.examples.setdefault(kind, [])
        if len(examples) < NUM_EXAMPLES:
            examples.append(_escaped(path))

    def add_file(self, path: str) -> None:
        self.add(suffixes_of(path), path)

    def add_all(self, other: "PassedOver", below: str) -> None:
        """Add what was passed over in a container; `below` goes before the paths in it."""
        for kind, number in other.number.items():
            first, *others = other.examples[kind]
            self.add(kind, f"{below}{first}", number - len(others))
            for path in others:
                self.add(kind, f"{below}{path}")

    def total(self) -> int:
        return sum(self.number.values())

    def __bool__(self) -> bool:
        return bool(self.number)

    def by_number(self) -> dict[str, int]:
        """The same numbers, largest first."""
        return dict(sorted(self.number.items(), key=lambda item: (-item[1], item[0])))

    def in_words(self) -> str:
        """`8 files of other kinds: 5 .tar.gz (archives), 3 .pdf; 1 no permission (private/)`, or nothing."""
        numbers = self.by_number()
        files = {kind: number for kind, number in numbers.items() if _is_suffix(kind)}
        words = []
        if num_files := sum(files.values()):
            shown = [f"{number:,} {kind_in_words(kind)}" for kind, number in files.items()]
            if len(shown) > KINDS_SHOWN:
                shown[KINDS_SHOWN:] = [f"{len(shown) - KINDS_SHOWN:,} more kinds"]
            words.append(f"{num_files:,} file{'s' * (num_files > 1)} of other kinds: {', '.join(shown)}")
        for kind, number in numbers.items():
            if not _is_suffix(kind):
                more = ", ..." * (number > len(self.examples[kind]))
                words.append(f"{number:,} {kind} ({', '.join(self.examples[kind])}{more})")
        return "; ".join(words)


def kind_in_words(kind: str) -> str:
    return f"{kind} (archives)" if kind in ARCHIVES else kind


def _is_suffix(kind: str) -> bool:
    return kind.startswith(".") or kind in (NO_SUFFIX, OTHER)


class Entry(NamedTuple):
    path: str
    """Path relative to the root, with forward slashes; one more at the end if it is a folder."""
    trouble: str = ""
    """Why a folder or a link was passed over; empty for files."""


def audio_files(root: Path, passed_over: PassedOver | None = None) -> list[str]:
    """Paths of all audio files under the root, relative to it, sorted.

    Hidden files and folders (`.DS_Store`, `._take1.wav`) are left out. Linked folders are read.

    Args:
        root: The folder.
        passed_over: Receives what is not read.

    Raises:
        ValueError: If there is no folder, or no audio in it.
        OSError: If the disk fails. The error names the folder.
    """
    passed_over = passed_over if passed_over is not None else PassedOver()
    return list(require_some(find_files(root, PLAIN_FILES, passed_over), root, PLAIN_FILES, passed_over))


def find_files(
    root: Path,
    stored_as: Collection[Storage],
    passed_over: PassedOver | None = None,
    tables: Collection[Path] = (),
) -> Iterator[str]:
    """Paths under the root with a suffix of these storages, in the order of the paths as strings.

    Args:
        root: The folder.
        stored_as: What to look for.
        passed_over: Receives what is not read, as the walk gets there.
        tables: Files that are read elsewhere, and so are not passed over.

    Raises:
        ValueError: If there is no folder, or Python does not read names as UTF-8.
        OSError: If the disk fails.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: need a folder of recordings, found none. Say at `source` where yours are.")
    passed_over = passed_over if passed_over is not None else PassedOver()
    suffixes = frozenset().union(*(SUFFIXES[storage] for storage in stored_as))
    names, read_elsewhere = {table.name for table in tables}, {_identity(table.stat()) for table in tables}
    for path, trouble in walk(root):
        if not _is_utf8(path):
            if sys.getfilesystemencoding() != "utf-8":
                check_utf8(path, str(root))
            passed_over.add(NOT_UTF8, path)
        elif suffix_of(path) in suffixes and not path.endswith("/"):
            yield path
        elif trouble:
            passed_over.add(trouble, path)
        elif Path(path).name not in names or _identity((root / path).stat()) not in read_elsewhere:
            passed_over.add_file(path)


def require_some(
    found: Iterable[T], root: Path, stored_as: Collection[Storage], passed_over: PassedOver
) -> Iterator[T]:
    """Pass everything on. Raises ValueError after nothing at all."""
    is_empty = True
    for item in found:
        is_empty = False
        yield item
    if is_empty:
        needed = " or ".join(IN_WORDS[storage] for storage in stored_as)
        others = f", but {passed_over.in_words()}" if passed_over else ""
        raise ValueError(f"{root}: need {needed}, found none{others}")


def storage_of(path: str) -> Storage:
    return next(storage for storage, suffixes in SUFFIXES.items() if suffix_of(path) in suffixes)


def check_utf8(path: str, where: str) -> None:
    """Raises ValueError for a name that is no text, since it cannot be written into a table."""
    if _is_utf8(path):
        return
    reads = sys.getfilesystemencoding()
    todo = "Rename it." if reads == "utf-8" else f"Python reads names as {reads} here: set PYTHONUTF8=1."
    raise ValueError(f"{where}: need file names in UTF-8, found {_escaped(path)}. {todo}")


def _escaped(path: str) -> str:
    """The name as it is on the disk, with escapes for bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _is_utf8(path: str) -> bool:
    return path.isascii() or os.fsencode(path) == path.encode(errors="replace")


def walk(root: Path) -> Iterator[Entry]:
    """All files below the root that are not hidden, and the folders and links that cannot be read.

    Links to folders are followed, unless they lead to a folder above themselves or `MOST_LINKS` others
    have led there. The order is that of the paths as strings. Memory holds the names of one folder and
    of those above it.

    Raises:
        OSError: If the root may not be read, or a disk fails: neither may look like an empty folder.
    """
    yield from _walk(root, "", tuple(_above(root)), Counter())


Identity = tuple[int, int]
"""Device and inode of a folder."""


def _above(root: Path) -> Iterator[Identity]:
    """The root and the folders above it, as far as they may be looked at."""
    for folder in (root, *root.resolve().parents):
        with suppress(OSError):
            yield _identity(folder.stat())


def _walk(root: Path, folder: str, way: tuple[Identity, ...], followed: Counter[Identity]) -> Iterator[Entry]:
    """Entries below `folder` ("" or with a slash at its end).

    `way` leads to it from the top; `followed` counts the links to each folder.
    """
    try:
        with os.scandir(root / folder) as listing:
            found = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError as error:
        if not folder:
            raise OSError(error.errno, error.strerror, str(root)) from error
        yield Entry(folder, _trouble(error, root, folder))
        return
    files, folders = dict[str, Entry](), dict[str, Identity]()
    for entry in found:
        path = f"{folder}{entry.name}"
        try:
            # A link is looked at here: if it leads nowhere, nobody can tell a file from a folder.
            status = entry.stat() if entry.is_dir() or entry.is_symlink() else None
        except OSError as error:
            is_dead = entry.is_symlink() and error.errno == errno.ENOENT
            files[path] = Entry(path, DEAD_LINK if is_dead else _trouble(error, root, path))
            continue
        if status is None or not stat.S_ISDIR(status.st_mode):
            files[path] = Entry(path)
        elif _identity(status) in way:
            files[f"{path}/"] = Entry(f"{path}/", LOOP)
        elif entry.is_symlink() and followed[_identity(status)] == MOST_LINKS:
            files[f"{path}/"] = Entry(f"{path}/", TOO_MANY)
        else:
            followed[_identity(status)] += entry.is_symlink()
            folders[f"{path}/"] = _identity(status)
    for path in sorted([*files, *folders]):
        if path in folders:
            # A folder sorts with its slash, as the paths in it do.
            yield from _walk(root, path, (*way, folders[path]), followed)
        else:
            yield files[path]


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _trouble(error: OSError, root: Path, path: str) -> str:
    """Why it is passed over. Raises OSError for anything that nobody expects in a folder."""
    if error.errno in TROUBLES:
        return TROUBLES[error.errno]
    raise OSError(
        error.errno, f"{error.strerror}. Mend the disk, or leave it out", str(root / path)
    ) from error


def suffix_of(name: str) -> str:
    """The last suffix in lower case, or the whole name without one."""
    return name[name.rfind(".") :].lower()


def suffixes_of(path: str) -> str:
    """The suffix to count a file by: `.pdf`, `.tar.gz`, or words if it has none."""
    name = path.rpartition("/")[2].lower()
    stem, dot, last = name.rpartition(".")
    if not (stem and dot):
        return NO_SUFFIX
    if f".{last}" in COMPRESSED and stem.endswith(".tar"):
        return f".tar.{last}"
    # `take.1` and `2019.05.12` end with a number, not a kind.
    return f".{last}" if re.fullmatch(r"(?=.*[a-z])[a-z0-9_~-]{1,12}", last) else NO_SUFFIX
