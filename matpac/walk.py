"""folder -> the audio files in it, and the tars and parquet files that may hold audio."""

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

Storage = Literal["files", "tars", "parquet"]
"""How recordings are stored: each in a file of its own, or many in a tar or a parquet file."""
# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a",
    ".m4b", ".mka", ".mp2", ".mp3", ".mp4", ".mpga", ".oga", ".ogg", ".opus", ".rf64", ".snd",
    ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wv",
})
# fmt: on
"""Suffixes of audio files, readable here or not: unreadable ones must show up as rejected."""
SUFFIXES: dict[Storage, frozenset[str]] = {
    "files": AUDIO_SUFFIXES,
    "tars": frozenset({".tar"}),
    "parquet": frozenset({".parquet", ".arrow"}),
}
IN_WORDS: dict[Storage, str] = {
    "files": f"audio files ({', '.join(sorted(AUDIO_SUFFIXES))})",
    "tars": "tars with audio files in them (.tar, not compressed)",
    "parquet": "parquet or arrow files with a column of audio (a struct with `bytes`, or a binary `audio`)",
}
PLAIN_FILES: tuple[Storage, ...] = ("files",)
T = TypeVar("T")


def audio_files(root: Path) -> list[str]:
    """Paths of all audio files under the root, relative to it, sorted.

    Hidden files and folders (`.DS_Store`, `._take1.wav`) are left out, and so are linked folders,
    which may lead in circles.

    Raises:
        ValueError: If there is no folder, no audio in it, or a name that is not UTF-8.
    """
    return list(require_some(find_files(root, PLAIN_FILES), root, PLAIN_FILES))


def find_files(root: Path, stored_as: Collection[Storage]) -> Iterator[str]:
    """Paths under the root with a suffix of these storages, in the order of the paths as strings.

    Raises:
        ValueError: If there is no folder, or a name is not UTF-8.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: need a folder of recordings, found none. Say at `source` where yours are.")
    for path in _walk(root, "", frozenset().union(*(SUFFIXES[storage] for storage in stored_as))):
        check_utf8(path, str(root))
        yield path


def require_some(found: Iterable[T], root: Path, stored_as: Collection[Storage]) -> Iterator[T]:
    """Pass everything on. Raises ValueError after nothing at all."""
    is_empty = True
    for item in found:
        is_empty = False
        yield item
    if is_empty:
        needed = " or ".join(IN_WORDS[storage] for storage in stored_as)
        raise ValueError(f"{root}: need {needed}, found none")


def storage_of(path: str) -> Storage:
    return next(storage for storage, suffixes in SUFFIXES.items() if _suffix(path) in suffixes)


def check_utf8(path: str, where: str) -> None:
    """Raises ValueError for a name that is no text, since it cannot be written into a table."""
    if path.isascii() or os.fsencode(path) == path.encode(errors="replace"):
        return
    reads = sys.getfilesystemencoding()
    todo = "Rename it." if reads == "utf-8" else f"Python reads names as {reads} here: set PYTHONUTF8=1."
    raise ValueError(f"{where}: need file names in UTF-8, found {path!r}. {todo}")


def _walk(root: Path, folder: str, suffixes: frozenset[str]) -> Iterator[str]:
    """Files below `folder` ("" or with a slash at its end), in the order of their paths as strings.

    Memory holds the names of one folder and of those above it. A folder sorts with its slash, as
    the paths in it do. A folder that cannot be read is passed over.
    """
    names = []
    with suppress(OSError), os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                names += [] if entry.is_symlink() else [f"{entry.name}/"]
            elif _suffix(entry.name) in suffixes:
                names.append(entry.name)
    for name in sorted(names):
        if name.endswith("/"):
            yield from _walk(root, f"{folder}{name}", suffixes)
        else:
            yield f"{folder}{name}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself.
        return False


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower()
