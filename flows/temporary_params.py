"""A file with other content for a while. Its original content comes back, even after `kill -9`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matpac.files import whole_file


@contextmanager
def temporary_params(file: Path, content: bytes, folder: Path) -> Iterator[None]:
    """Inside, `file` has `content`; its original content is kept in `folder` meanwhile.

    Raises RuntimeError if another process has written to the file by the end.
    """
    write_atomically(folder / f"written-{file.name}", content)
    write_atomically(folder / file.name, file.read_bytes())
    try:
        write_atomically(file, content)
        yield
    finally:
        restore(file, folder)


def restore(file: Path, folder: Path) -> bool:
    """Undo what a killed process left in `file`; False if there was nothing to undo.

    Raises RuntimeError if another process has written to the file since.
    """
    before = folder / file.name
    if not before.exists():
        return False
    found, original = file.read_bytes() if file.exists() else None, before.read_bytes()
    if found not in (original, (folder / f"written-{file.name}").read_bytes()):
        raise RuntimeError(
            f"{file} was edited while a grid had its own values in it. Its original lies in {before}. "
            f"Take that (`mv {before} {file}`), or keep {file} as it is (`rm {before}`), and run again."
        )
    if found != original:
        write_atomically(file, original)
    before.unlink()
    return found != original


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of a file, whole or not at all. If `path` is a link, it stays one."""
    with whole_file(path.resolve()) as partial:
        partial.write_bytes(content)
