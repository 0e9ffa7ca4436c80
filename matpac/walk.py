"""folder -> the audio files in it, and the tars and parquet files that hold audio."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

Held = Literal["files", "tars", "parquet"]
# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a",
    ".m4b", ".mka", ".mp2", ".mp3", ".mp4", ".mpga", ".oga", ".ogg", ".opus", ".rf64", ".snd",
    ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wv",
})
# fmt: on
"""What people keep recordings in, readable or not: unreadable ones must show up as rejected."""
SUFFIXES: dict[Held, frozenset[str]] = {
    "files": AUDIO_SUFFIXES,
    "tars": frozenset({".tar"}),
    "parquet": frozenset({".parquet"}),
}
KINDS: dict[Held, str] = {
    "files": f"audio files ({', '.join(sorted(AUDIO_SUFFIXES))})",
    "tars": "tars with audio files in them (.tar, not compressed)",
    "parquet": "parquet files with a column of audio (a struct with a field `bytes`, or a binary `audio`)",
}
PLAIN_FILES: tuple[Held, ...] = ("files",)
T = TypeVar("T")


def audio_files(root: Path) -> list[str]:
    """Paths of all audio files under the root, relative to it, sorted.

    Hidden files and folders (`.DS_Store`, `._take1.wav`) are left out, and so are linked folders,
    which may lead in circles. Raises ValueError where there is no folder, no audio in it, or a name that
    is not UTF-8.
    """
    return list(require_some(files_of(root, PLAIN_FILES), root, PLAIN_FILES))


def require_some(found: Iterable[T], root: Path, holds: Collection[Held]) -> Iterator[T]:
    is_empty = True
    for item in found:
        is_empty = False
        yield item
    if is_empty:
        raise ValueError(f"{root}: need {' or '.join(KINDS[kind] for kind in holds)}, found none")


def files_of(root: Path, holds: Collection[Held]) -> Iterator[str]:
    if not root.is_dir():
        raise ValueError(f"{root}: need a folder of recordings, found none. Say at `source` where yours are.")
    for path in _walk(root, "", frozenset().union(*(SUFFIXES[kind] for kind in holds))):
        if not is_utf8(path):
            raise ValueError(f"{root}: need file names in UTF-8, found {path!r}. Rename it.")
        yield path


def is_utf8(path: str) -> bool:
    """Whether a name is text: others cannot be written into a table."""
    return path.isascii() or os.fsencode(path) == path.encode(errors="replace")


def _walk(root: Path, folder: str, suffixes: frozenset[str]) -> Iterator[str]:
    """Files below `folder` ("" or with a slash at its end), in the order of their paths as strings.

    Names of one folder and those above it are held at a time. With their slash, folders sort as the paths
    in them do. A folder that cannot be read is passed over.
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


def kind_of(path: str) -> Held:
    return next(kind for kind, suffixes in SUFFIXES.items() if _suffix(path) in suffixes)
