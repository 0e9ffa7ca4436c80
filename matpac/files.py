"""Files and folders that appear whole or not at all, and locks for those who write them."""

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
from typing import IO, Any

WORK = Path("data/.work")
"""Unfinished work: partial stores and downloads, states for resuming. Never an out of a stage."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside the target; on success flush it to disk and rename it over the target.

    The file gets default permissions (umask), whatever the writer sets.
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
    """Turn the error of a full disk into one line that names `path`; libraries name nothing.

    When nested, the outermost path is reported.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error) or error.errno is None:
            raise
        why = os.strerror(error.errno)
        named = OSError(f"{path}: cannot be written ({why}). Make room there, or write elsewhere.")
        named.errno = error.errno
        raise named from error


def is_full(error: BaseException | None) -> bool:
    """Whether a write failed for lack of room: the disk, a quota or the largest file size."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_place(path: Path) -> None:
    """Raise ValueError if no file can be made at `path`: before the work, not after it."""
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise ValueError(f"{path}: need a name in a folder, found something else at {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: need a folder that you may write to, found {folder}")


def partial_path(path: Path) -> Path:
    """A name beside the file that no other process uses, even one on another machine."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.partial")


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Raises ValueError that names the file if it is cut short or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: need JSON, found none ({error}). Make it again or get a whole copy of it."
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


def lock(file: IO[str], *, shared: bool = False, wait: bool = False) -> bool:
    """Take the lock of an open file, or exchange it; False if another process is in the way.

    It is the kernel's. It ends when the file is closed here and in every child that inherited it,
    however those processes end. It holds between machines if their shared file system supports that
    (NFS 4, Lustre). A lock that cannot be exchanged is lost.
    """
    import fcntl  # Here because Windows has none; the rest of this module works there.

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[IO[str] | None]:
    """Hold the lock of the file `path`, made if need be; yield None if another process has it."""
    with path.open("a") as file:
        yield file if lock(file, shared=shared, wait=wait) else None


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a working folder, so that two processes never write one store.

    Raises RuntimeError at once if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock")) as held:
        if held is None:
            raise RuntimeError(
                f"{folder} is in use by another process, perhaps one that outlived its `dvc repro`. "
                f"Wait for it, or stop it (`fuser {folder}.lock` names it), and run again."
            )
        yield
