"""url -> folder of recordings: one archive, downloaded, unpacked and verified."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
import requests

from matpac.datasets.recordings import content_digest, take_inventory
from matpac.files import WORK, exclusive, move_into_place

CHUNK_BYTES = 2**16
Report = Callable[[int, int], None]
"""Hears of (bytes or clips done, bytes or clips in all; 0 where nobody knows)."""


@dataclass(frozen=True)
class Archive:
    """A zip or tar file with a single top folder, as code hosts make them.

    Hosts may pack the same files into other bytes tomorrow, so what is verified is the contents:
    the number of recordings and one digest over their names and checksums.
    """

    url: str
    num_recordings: int
    content_digest: str
    """See matpac.datasets.recordings.content_digest."""


def fetch_archive(archive: Archive, root: Path, report: Report | None = None, *, retries: int = 4) -> None:
    """Make the archive's recordings appear at `root`, whole and verified, or not at all.

    Nothing is done where the root is there. Raises ValueError, in one line, where the archive
    cannot be had, opened, or holds something else.
    """
    if root.is_dir():
        return
    work = WORK / "download" / root.name
    with exclusive(work):
        packed = _download(archive.url, work, report, retries)
        unpacked = root.with_name(f".{root.name}.partial")
        shutil.rmtree(unpacked, ignore_errors=True)
        try:
            unpack(packed, unpacked)
            top = _verified(archive, unpacked)
            move_into_place(top, root)
        except ValueError:
            packed.unlink()
            raise
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
        shutil.rmtree(work)


def _download(url: str, folder: Path, report: Report | None, retries: int) -> Path:
    name = PurePosixPath(url).name
    source = pooch.create(
        folder, base_url="", registry={name: None}, urls={name: url}, retry_if_failed=retries
    )
    downloader = pooch.HTTPDownloader(
        progressbar=_Meter(report) if report is not None else False, chunk_size=CHUNK_BYTES, timeout=60
    )
    try:
        return Path(source.fetch(name, downloader=downloader))
    except requests.RequestException as error:
        raise ValueError(
            f"{url}: cannot be downloaded ({error}). Check the network and run again, "
            f"or set `source` in params.yaml to a local copy."
        ) from error


class _Meter:
    """What pooch needs for showing progress."""

    def __init__(self, report: Report) -> None:
        self.report, self.total, self.done = report, 0, 0

    def update(self, num_bytes: int) -> None:
        self.done += num_bytes
        if self.total:
            self.report(min(self.done, self.total), self.total)
        elif num_bytes:  # A host that packs as it sends does not know the size; pooch ends with 0 of 0.
            self.report(self.done, 0)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


def unpack(packed: Path, folder: Path) -> None:
    """Raises ValueError for what is no archive, is cut short, or reaches outside the folder."""
    try:
        if zipfile.is_zipfile(packed):
            with zipfile.ZipFile(packed) as archive:
                for name in archive.namelist():
                    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name).parts:
                        raise ValueError(f"{packed.name}: member {name!r} reaches outside")
                archive.extractall(folder)
        else:
            with tarfile.open(packed) as archive:
                archive.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{packed.name}: cannot be unpacked ({error})") from error


def _verified(archive: Archive, unpacked: Path) -> Path:
    """The top folder. Raises ValueError where it does not hold what it should."""
    tops = list(unpacked.iterdir())
    if len(tops) != 1:
        raise ValueError(f"{archive.url}: need one top folder, found {len(tops)} entries")
    inventory = take_inventory(tops[0])
    found = content_digest(inventory)
    if found != archive.content_digest:
        raise ValueError(
            f"{archive.url}: need {archive.num_recordings} recordings with content digest "
            f"{archive.content_digest}, found {len(inventory)} with {found}"
        )
    return tops[0]
