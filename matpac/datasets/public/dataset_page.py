"""What is known of a public dataset before it is downloaded: the fields of its page that code reads."""

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matpac.fetch.http import RemoteFile
from matpac.params import digest


@dataclass(frozen=True)
class Archive:
    """One archive, in one file or in several parts in their order."""

    parts: tuple[RemoteFile, ...]
    unpack: bool = True
    """False: a plain file (a table) that is kept as it is."""


@dataclass(frozen=True)
class Page:
    title: str
    license: str
    citation: str
    """A line that names the paper; the module's docstring has more."""
    home: str
    archives: tuple[Archive, ...]
    """Empty where the audio cannot be downloaded from its makers."""
    download_gb: float
    """About; shown in the table of datasets."""
    num_recordings: int | None
    """Audio files in the complete dataset, checked after unpacking; None where it varies."""
    num_clips: int
    """That take part in the task."""
    num_classes: int
    protocol: str
    """`5 folds`, `train/validation/test`, ..."""
    metric: Literal["accuracy", "mAP"]
    content_digest: str | None = None
    """matpac.datasets.inventory.content_digest of all recordings, where it is known: hosts may pack the
    same files into other bytes tomorrow."""

    @property
    def key(self) -> str:
        """Names the folder of the unpacked recordings: other archives, another folder."""
        return digest([[part.name, *part.urls] for archive in self.archives for part in archive.parts])


def base_of(root: Path, landmark: str) -> Path:
    """The folder that holds `landmark` (a relative path): the root, or one up to two levels below it.

    People point `source` at what they unpacked, at its parent, or at its top folder. Raises ValueError.
    """
    for pattern in ("", "*/", "*/*/"):
        found = sorted(root.glob(f"{pattern}{landmark}"))
        if found:
            return found[0].parents[landmark.count("/")]
    raise ValueError(f"{root}: need {landmark}, as in the official layout, found none")


def rows_of_classes(
    table: Path, columns: Collection[str], classes: Sequence[str], *, number: str, name: str
) -> Iterator[dict[str, str]]:
    """Rows of an official CSV table, whose columns `number` and `name` give each clip's class twice.

    Raises ValueError for a table that lacks columns, or has other classes or another order of them.
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
