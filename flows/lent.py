"""A file with other content for a while. What it was comes back, even after a `kill -9`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matpac.files import whole_file


@contextmanager
def lent(file: Path, content: bytes, folder: Path) -> Iterator[None]:
    """`file` has `content` inside; what it was before lies in `folder` meanwhile.

    Raises RuntimeError where somebody else has written to it by the end.
    """
    keep(folder / f"written-{file.name}", content)
    keep(folder / file.name, file.read_bytes())
    try:
        keep(file, content)
        yield
    finally:
        put_back(file, folder)


def put_back(file: Path, folder: Path) -> bool:
    """Whether a process that is gone had left its own content in `file`: it is as it was before.

    Raises RuntimeError where somebody else has written to it since.
    """
    before = folder / file.name
    if not before.exists():
        return False
    found, original = file.read_bytes() if file.exists() else None, before.read_bytes()
    if found not in (original, (folder / f"written-{file.name}").read_bytes()):
        raise RuntimeError(
            f"{file} was edited while a grid had its own values in it; what it was before lies in {before}. "
            f"Take that (`mv {before} {file}`), or keep {file} as it is (`rm {before}`), and run again."
        )
    if found != original:
        keep(file, original)
    before.unlink()
    return found != original


def keep(path: Path, content: bytes) -> None:
    # Where the file is a link, it stays one.
    with whole_file(path.resolve()) as partial:
        partial.write_bytes(content)
