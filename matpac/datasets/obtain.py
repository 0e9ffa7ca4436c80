"""page -> folder of recordings, from archives that are downloaded or local."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

from matpac.datasets.dataset_page import Page
from matpac.datasets.inventory import content_digest, take_inventory
from matpac.fetch.archive import UnusableArchive, unpack
from matpac.fetch.http import PATIENT, Patience, RemoteFile, Report, download
from matpac.files import WORK, exclusive, move_into_place, whole_file
from matpac.walk import audio_files

WAIT_S = 1.0
logger = logging.getLogger(__name__)


def fetch_page(
    page: Page,
    source: str | None,
    root: Path,
    report: Report | None = None,
    *,
    patience: Patience = PATIENT,
) -> None:
    """Make the recordings of a page appear at `root`, complete, or not at all.

    With `source` None they are downloaded. If it is an archive or a folder of the page's archives
    (see is_packed), they are unpacked from there. Any other folder counts as the official layout
    and is used in place. If the root is there, nothing is done. The call uses what an interrupted
    one left, and waits while another process works on the same root. `report` receives bytes
    downloaded, then bytes unpacked, archive by archive.

    Raises:
        ValueError: In one line, if archives cannot be downloaded, are not the official ones, cannot
        be
            unpacked or hold something else, or if the disk is too small.
    """
    local = None if source is None else Path(source).expanduser()
    if local is not None and not is_packed(local, page):
        if not local.is_dir():
            raise ValueError(
                f"{local}: need {page.title} as a folder in the official layout, as an archive or as a "
                f"folder of its archives, found nothing. Correct `source` in params.yaml, or set it to null."
            )
        return
    work = WORK / "download" / root.name
    if root.is_dir() and not work.is_dir():
        return
    with _alone(work, page):
        if not root.is_dir():
            if local is None:
                # The unpacked files take at least as much room again.
                download(_files(page), work, report, patience=patience, room_factor=2.0)
                packed = _packed(page, work)
            else:
                packed = _local(page, local)
            try:
                _unpack_all(page, packed, root, report)
            except UnusableArchive as error:
                if local is not None:
                    raise
                thrown_away = ", ".join(_throw_away(page, work))
                hint = f"; thrown away: {thrown_away}. Run again to download it anew" if thrown_away else ""
                raise UnusableArchive(f"{error}{hint}") from error
        shutil.rmtree(work, ignore_errors=True)


def is_packed(source: Path, page: Page) -> bool:
    """Whether to unpack a local source: a file, or a folder of archives without audio."""
    if source.is_file():
        return True
    names = [part.name for archive in page.archives if archive.unpack for part in archive.parts]
    if not any((source / name).is_file() for name in names):
        return False
    try:
        return not audio_files(source)
    except ValueError:
        return True


class Packed(NamedTuple):
    """An archive on this disk."""

    parts: list[Path]
    unpack: bool


def _files(page: Page) -> list[RemoteFile]:
    return [part for archive in page.archives for part in archive.parts]


def _packed(page: Page, folder: Path) -> list[Packed]:
    return [
        Packed([folder / part.name for part in archive.parts], archive.unpack) for archive in page.archives
    ]


def _local(page: Page, source: Path) -> list[Packed]:
    """Raises ValueError if an official archive is missing or has other bytes."""
    files = _files(page)
    if source.is_file() and source.name not in [file.name for file in files]:
        return [Packed([source], unpack=True)]
    folder = source.parent if source.is_file() else source
    missing = [file.name for file in files if not (folder / file.name).is_file()]
    if missing:
        raise ValueError(
            f"{folder}: need all archives of {page.title}, found no {', '.join(missing)}. "
            f"Add what is missing, or set `source` in params.yaml to null to download it."
        )
    for file in files:
        mismatch = file.mismatch(folder / file.name)
        if mismatch is not None:
            raise ValueError(
                f"{folder / file.name}: not the official archive ({mismatch}). Get it again, or set "
                f"`source` in params.yaml to null to download it."
            )
    return _packed(page, folder)


def _unpack_all(page: Page, packed: list[Packed], root: Path, report: Report | None) -> None:
    # Kept if the disk is full, like the beginnings of downloads: the next run goes on from there.
    unpacked = root.with_name(f".{root.name}.partial")
    unpacked.mkdir(parents=True, exist_ok=True)
    try:
        for archive in packed:
            if archive.unpack:
                unpack(archive.parts, unpacked, report)
            else:
                for part in archive.parts:
                    with whole_file(unpacked / part.name) as copy:
                        shutil.copyfile(part, copy)
        _check(page, unpacked)
    except UnusableArchive:
        shutil.rmtree(unpacked)
        raise
    os.sync()  # One call is faster than flushing each of 300,000 files.
    move_into_place(unpacked, root)


def _check(page: Page, unpacked: Path) -> None:
    """Raises UnusableArchive if the recordings are not those of the page."""
    try:
        num_found = len(audio_files(unpacked))
    except ValueError as error:
        raise UnusableArchive(f"{page.title}: {error}") from error
    if page.num_recordings not in (None, num_found):
        raise UnusableArchive(f"{page.title}: need {page.num_recordings:,} recordings, found {num_found:,}")
    if page.content_digest is not None:
        tops = list(unpacked.iterdir())
        # Code hosts pack into a top folder, and its name is no part of the contents.
        found = content_digest(take_inventory(tops[0] if len(tops) == 1 else unpacked))
        if found != page.content_digest:
            raise UnusableArchive(
                f"{page.title}: need recordings with content digest {page.content_digest}, found {found}"
            )


def _throw_away(page: Page, work: Path) -> Iterator[str]:
    """Remove archives without a matching checksum, so that the next run downloads them again."""
    for file in _files(page):
        path = work / file.name
        if file.checksum is None or file.mismatch(path) is not None:
            path.unlink()
            yield file.name


@contextmanager
def _alone(work: Path, page: Page) -> Iterator[None]:
    with ExitStack() as stack:
        for attempt in count():
            try:
                stack.enter_context(exclusive(work))
                break
            except RuntimeError:
                if attempt == 0:
                    logger.warning("%s: another process fetches it; waiting for that to end", page.title)
                time.sleep(WAIT_S)
        yield
