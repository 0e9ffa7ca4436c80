"""Files and folders that appear whole or not at all, and locks for those who write them."""

import errno
import hashlib
import json
import os
import platform
import shlex
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

WORK = Path("data/.work")
"""Unfinished work: partial stores and downloads, states for resuming. Never an out of a stage."""
SUMS = "SHA256SUMS"
"""File of a sealed folder with the checksums of all others; `sha256sum --check` reads it, too."""
DIGESTS = "digests.parquet"
"""File of a folder with the recordings behind it; matpac/digests.py reads and writes it."""


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


def line_of(error: Exception) -> str:
    """The error's own message; of system errors, the file and the reason without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def not_a_file(path: Path) -> str:
    """What is there in place of a file, in words; empty if it is one. Raises OSError without permission."""
    if path.is_file():
        return ""
    if path.is_symlink():
        # A link to itself resolves to itself.
        return (
            "a link to nothing, or to itself"
            if not path.exists()
            else "a link to a folder, pipe, socket or device"
        )
    if path.is_dir():
        return "a folder, not a file"
    return "a pipe, socket or device, not a file" if path.exists() else "no such file"


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
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: need JSON, found none ({error}). Make it again or get a whole copy of it."
        ) from None


def checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Flush the files of a finished folder to disk, and write their checksums to `SUMS`.

    Args:
        folder: Folder that will not change any more.
        known: Checksums of files that need not be read for it, by their names in the folder.
    """
    for path in _contents(folder):
        flush_to_disk(path)
    known = known or {}
    found = _checksums(folder, [name for name in _names(folder) if name not in known])
    lines = [f"{digest}  {name}\n" for name, digest in sorted({**found, **known}.items())]
    write_text(folder / SUMS, "".join(lines))


def damage(
    folder: Path, names: Collection[str] | None = None, show: Callable[[int], object] = lambda num_bytes: None
) -> str | None:
    """Compare a sealed folder with its checksums.

    Args:
        folder: A folder that `seal` has sealed.
        names: Files to compare; by default all, so that those missing or new are found, too.
        show: Receives the size of each file once it is read, in bytes.

    Returns:
        The first file that is missing, differs or is not listed, in words; None if all is well.
    """
    needed = sums_of(folder)
    if needed is None:
        return f"no {SUMS}"
    present = set(_names(folder))
    chosen = needed.keys() | present if names is None else set(names)
    for name in sorted(chosen):
        if name not in present:
            return f"no {name}"
        if name not in needed:
            return f"{name}, which {SUMS} does not list"
    found = _checksums(folder, sorted(chosen), show)
    return next((f"other bytes in {name}" for name in found if found[name] != needed[name]), None)


def sums_of(folder: Path) -> dict[str, str] | None:
    """Checksums in a sealed folder, by the names of its files; None if the folder is not sealed."""
    if not (folder / SUMS).is_file():
        return None
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    return {name or line: digest for line in lines for digest, _, name in [line.partition("  ")]}


def check_seal(folder: Path, stage: str, names: Collection[str] | None = None) -> None:
    """Raise ValueError if files of a sealed folder (by default all) are not as they were written.

    Args:
        folder: What a stage of the pipeline wrote.
        stage: Name of that stage for DVC.
        names: As in `damage`.
    """
    if found := damage(folder, names):
        raise ValueError(
            f"{folder}: need its files as they were written, found {found}. {remedy(folder, stage)}"
        )


def remedy(folder: Path, stage: str) -> str:
    """What to type to get a stage's folder whose bytes are right, in one line.

    DVC links the folder to its cache, believes files there that are read-only or have not changed
    since it looked, and would bring them back. `touch` and `chmod` make it look again. Without
    `--single-item`, `--force` would do all stages before it again.
    """
    found = f"find -L {shlex.quote(str(folder))} -type f"
    return (
        f"Make it again: `{found} -exec touch {{}} + -exec chmod u+w {{}} +`, "
        f"`dvc repro --force --single-item {shlex.quote(stage)}`, then `dvc repro`."
    )


def _contents(folder: Path) -> list[Path]:
    """Files below a folder, except `SUMS` and those that file browsers and file systems hide there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if path != folder / SUMS and not path.name.startswith(".")]


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in _contents(folder)]


def _checksums(
    folder: Path, names: Sequence[str], show: Callable[[int], object] = lambda num_bytes: None
) -> dict[str, str]:
    found = {}
    with ThreadPoolExecutor() as threads:
        for name, digest in zip(names, threads.map(lambda name: checksum(folder / name), names), strict=True):
            found[name] = digest
            show((folder / name).stat().st_size)
    return found


def flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_into_place(finished: Path, target: Path) -> None:
    """Replace the folder `target` by the folder `finished` of the same file system.

    A kill in between leaves the old folder, the new one or none at `target`, never a part.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    old = partial_path(finished.with_name(f"old-{target.name}"))
    if old.exists():  # of a move that was interrupted
        shutil.rmtree(old)
    if target.exists():
        target.rename(old)
    finished.rename(target)
    if old.exists():
        shutil.rmtree(old)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            if not lock(file, shared=shared, wait=wait):
                yield None
                return
            # The holder before may have removed the file: the next process would lock a new one.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                yield file
                return


@contextmanager
def exclusive(folder: Path, *outs: Path) -> Iterator[None]:
    """Hold the lock of a working folder, so that two processes never write one store.

    Partial files and folders that killed processes left in or beside `outs` are removed.
    If the working folder ends up empty, it is removed, too.

    Args:
        folder: Working folder; it is made. The lock is `<folder>.lock`.
        outs: Files and folders that only the holder of this lock writes.

    Raises:
        RuntimeError: Another process holds the lock; raised at once.
    """
    with locked(folder.with_name(f"{folder.name}.lock")) as held:
        if held is None:
            raise RuntimeError(
                f"{folder} is in use by another process, perhaps one that outlived its `dvc repro`. "
                f"Wait for it, or stop it (`fuser {shlex.quote(f'{folder}.lock')}` names it), and run again."
            )
        folder.mkdir(exist_ok=True)
        for out in outs:
            for left in (*out.glob(".*.partial"), *out.parent.glob(f".{out.name}.*.partial")):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()
