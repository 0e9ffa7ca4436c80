"""dataset -> the audio files it consists of: where they lie, and an inventory of their contents."""

import csv
import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from itertools import chain
from pathlib import Path

from matpac.files import whole_file
from matpac.params import Dataset, Demo, digest

AUDIO = Path("data/audio")
TABLE = "recordings.csv"
FILES_AT_ONCE = 64
# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a",
    ".m4b", ".mka", ".mp2", ".mp3", ".mp4", ".mpga", ".oga", ".ogg", ".opus", ".rf64", ".snd",
    ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wv",
})
# fmt: on
"""What people keep recordings in, readable or not: unreadable ones must show up as rejected."""


@dataclass(frozen=True)
class Recording:
    path: str
    """Relative to the root of the dataset's recordings, with forward slashes."""
    bytes: int
    sha256: str
    """Empty where the file cannot be read (no permission, a dead link): it will be rejected."""


def recordings_root(name: str, params: Dataset) -> Path:
    """The folder the recordings lie in: the user's own where there is one, else ours."""
    if not isinstance(params, Demo) and params.source is not None:
        return Path(params.source).expanduser()
    return AUDIO / f"{name}-{digest(params)}"


def audio_files(root: Path) -> list[str]:
    """Paths of all audio files under the root, relative to it, sorted.

    Hidden files and folders (`.DS_Store`, `._take1.wav`) are left out, and so are linked folders,
    which may lead in circles. Raises ValueError where there is no folder, no audio in it, or a name that
    is not UTF-8.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: need a folder of recordings, found none")
    paths = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = Path(folder).relative_to(root)
        paths += [
            (relative / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES
        ]
    if not paths:
        known = ", ".join(sorted(AUDIO_SUFFIXES))
        raise ValueError(f"{root}: need audio files ({known}), found none")
    for path in paths:
        if os.fsencode(path) != path.encode(errors="replace"):
            raise ValueError(f"{root}: need file names in UTF-8, found {path!r}. Rename it.")
    return sorted(paths)


def take_inventory(root: Path) -> list[Recording]:
    """Every audio file with its size and checksum, in the order of the paths."""
    paths = audio_files(root)
    # Parts: a pool keeps a lot of memory for everything that waits.
    parts = [paths[first : first + FILES_AT_ONCE] for first in range(0, len(paths), FILES_AT_ONCE)]
    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda part: [_recording(root, path) for path in part], parts)
        return list(chain.from_iterable(found))


def _recording(root: Path, path: str) -> Recording:
    try:
        with (root / path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return Recording(path, file.tell(), sha256)
    except OSError:
        return Recording(path, 0, "")


def content_digest(recordings: Iterable[Recording]) -> str:
    """One checksum of the names and contents of all files, however they were packed."""
    lines = sorted(f"{recording.path} {recording.sha256}\n" for recording in recordings)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_recordings(folder: Path, recordings: Iterable[Recording]) -> None:
    with (
        whole_file(folder / TABLE) as partial,
        partial.open("w", newline="", encoding="utf-8") as table,
    ):
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(Recording.__dataclass_fields__)
        writer.writerows(astuple(recording) for recording in recordings)


def read_recordings(folder: Path) -> list[Recording]:
    with (folder / TABLE).open(newline="", encoding="utf-8") as table:
        return [Recording(row["path"], int(row["bytes"]), row["sha256"]) for row in csv.DictReader(table)]
