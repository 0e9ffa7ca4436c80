"""Files and folders that appear whole or not at all."""

import errno
import hashlib
import json
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

WORK = Path("data/.work")
"""Unfinished work: partial stores, partial downloads, states for resuming. Never an out of a stage."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, what a user may fill of it, or the largest file that may be."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside the target; on success flush it to disk and rename it over the target.

    Whatever writes there, those may read the file who may read any new one in that folder (umask).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        with room_for(path):
            partial.touch()
            mode = partial.stat().st_mode
            yield partial
            partial.chmod(stat.S_IMODE(mode))
            flush_to_disk(partial)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Raise OSError, one line that names `path`, where the disk is full: what writes there names nothing.

    Within one another, the outermost says what it is called.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        why = os.strerror(error.errno)
        named = OSError(f"{path}: cannot be written ({why}). Make room there, or write elsewhere.")
        named.errno = error.errno
        raise named from error


def check_place(path: Path) -> None:
    """Raise ValueError where no file can be made at `path`: before the work, not after it."""
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise ValueError(f"{path}: need a name in a folder, found something else at {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: need a folder that you may write to, got {folder}")


def partial_path(path: Path) -> Path:
    """Beside the file, and nobody else's: several machines may write to one file system."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.partial")


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Raises ValueError, which names the file, where it is cut short or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: need JSON, found none ({error}). Make it anew or get a whole copy of it."
        ) from None


def checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_into_place(finished: Path, target: Path) -> None:
    """Replace the folder `target` by the folder `finished` of the same file system."""
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    finished.rename(target)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a working folder, so that two processes never write one store.

    Raises RuntimeError at once where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(
            f"{folder} is in use by another process, perhaps one that outlived its `dvc repro`. "
            f"Wait for it, or stop it (`fuser {folder}.lock` names it), and run again."
        ) from None
    try:
        yield
    finally:
        lock.release()
