"""The page of a public dataset: the facts that code needs before anything is downloaded."""

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matpac.clip import Task
from matpac.datasets.inventory import AUDIO
from matpac.fetch.http import RemoteFile
from matpac.params import digest


@dataclass(frozen=True)
class Archive:
    """One archive, in one file or in several parts in their order."""

    parts: tuple[RemoteFile, ...]
    unpack: bool = True
    """False for a plain file (a table), which is kept as it is."""


@dataclass(frozen=True)
class Page:
    title: str
    license: str
    citation: str
    """A line that names the paper; the module's docstring has more."""
    home: str
    archives: tuple[Archive, ...]
    download_gb: float
    """Approximate size of the download, for the table of datasets."""
    num_recordings: int | None
    """Audio files in the complete dataset, checked after unpacking; None if copies differ."""
    num_clips: int
    """Clips that take part in the task."""
    num_classes: int
    num_folds: int | None
    """Folds; None for a dataset with train, validation and test."""
    metric: Literal["accuracy", "mAP"]
    """`accuracy` for one label per clip, `mAP` for several."""
    official_split: bool = True
    """False for a dataset whose makers give no split: its folds are ours, and its page says how."""
    content_digest: str | None = None
    """matpac.datasets.inventory.content_digest of all recordings, if known: hosts may pack the
    same files into other bytes tomorrow."""

    @property
    def protocol(self) -> str:
        """How the probe trains and tests, in words."""
        return f"{self.num_folds} folds" if self.num_folds else "train/validation/test"

    @property
    def has_audio(self) -> bool:
        """Whether the archives hold the recordings, not only lists of them."""
        return any(archive.unpack for archive in self.archives)

    def root(self, kind: str) -> Path:
        """Folder of what is downloaded; other archives go to another folder."""
        archives = [[part.name, *part.urls] for archive in self.archives for part in archive.parts]
        return AUDIO / f"{kind}-{digest(archives)}"

    def task(self, classes: Sequence[str]) -> Task:
        """The task, with these classes in the order of their indices."""
        return Task(
            tuple(classes),
            multi_label=self.metric == "mAP",
            metric=self.metric,
            num_folds=self.num_folds,
            official_split=self.official_split,
        )


def base_of(root: Path, landmark: str) -> Path:
    """The folder that holds `landmark` (a relative path): the root, or one up to two levels below
    it.

    People point `source` at what they unpacked, at its parent, or at its top folder.

    Raises:
        ValueError: If no such folder holds it.
    """
    for pattern in ("", "*/", "*/*/"):
        found = sorted(root.glob(f"{pattern}{landmark}"))
        if found:
            return found[0].parents[landmark.count("/")]
    raise ValueError(f"{root}: need {landmark}, as in the official layout, found none")


def rows_of_classes(
    table: Path, columns: Collection[str], classes: Sequence[str], *, number: str, name: str
) -> Iterator[dict[str, str]]:
    """Rows of an official CSV table whose columns `number` and `name` both give a clip's class.

    Raises:
        ValueError: If columns are missing, or the classes or their order are not the official ones.
    """
    known = {str(index): title for index, title in enumerate(classes)}
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not set(columns) <= set(rows.fieldnames or ()):
            found = ", ".join(rows.fieldnames or ["nothing"])
            raise ValueError(f"{table}: need columns {', '.join(columns)}, found {found}")
        for row in rows:
            if (row[number], row[name]) not in known.items():
                raise ValueError(
                    f"{table}: need the official classes, found {number} {row[number]} named {row[name]!r}"
                )
            yield row
