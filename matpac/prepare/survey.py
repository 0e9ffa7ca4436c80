"""folder of somebody's recordings -> what it holds: how they are stored, how long they are, labels, splits.

Names of all files are read, and the headers of a sample. Nothing is decoded or hashed.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from matpac.clip import UnusableAudio
from matpac.datasets.containers import list_tar, num_rows, parquet_rows
from matpac.datasets.inventory import Recording
from matpac.datasets.own.label_table import PATHS
from matpac.datasets.own.places import Places, names_above, places_of
from matpac.params import LogMel
from matpac.prepare.header_check import check_header
from matpac.progress import Progress
from matpac.walk import AUDIO_SUFFIXES, PassedOver, Storage, find_files, require_some, storage_of

KINDS: dict[Storage, Literal["folder", "tar", "parquet"]] = {
    "files": "folder",
    "tars": "tar",
    "parquet": "parquet",
}
MOST_HEADERS = 1000
"""Recordings whose headers are read."""
MOST_CONTAINERS = 10
"""Tars and parquet files that are opened to read some of their recordings."""
MOST_ROWS = 1000
"""Rows of a table that are read to find the column of labels."""
FEWEST_OF_CLASS, FEWEST_LABELLED = 5, 10
"""Recordings of a class, one for each of five folds, and of all classes."""
IN_CLASSES = 0.8
"""Share of the recordings that lie in folders with enough of them, if folders are to be classes."""
USUAL = ("label", "labels", "class", "category", "species", "target", "cls")
"""Names of columns and keys that hold labels more often than others do."""
UNREAD = "unread"
"""Stands for a checksum that was not taken."""


@dataclass(frozen=True)
class Labels:
    """Labels that the recordings seem to have, as keys of the dataset's section in params.yaml."""

    keys: dict[str, Any]
    why: str
    """What speaks for them, a sentence."""

    @property
    def number(self) -> Literal["none", "one", "several"]:
        """How many labels a clip has."""
        if self.keys["labels"] == "none":
            return "none"
        return "several" if self.keys.get("multi_label") else "one"


@dataclass(frozen=True)
class Survey:
    """What a folder holds, as far as names and a sample of headers tell."""

    kind: Literal["folder", "tar", "parquet"]
    num_recordings: int
    """Estimated from a few, if there are many tars."""
    others: dict[Storage, int]
    """Files that recordings may be stored in, and that this kind does not read."""
    passed_over: str
    """Other files and folders, in words; empty if there are none."""
    lengths_s: tuple[float, ...]
    """Lengths of the sampled recordings that can be used, the shortest first."""
    rates_hz: Counter[int]
    num_sampled: int
    unusable: dict[str, str]
    """Reason by path, for sampled recordings that cannot be used."""
    labels: Labels
    places: Places | None
    """Names of folders or files that tell splits."""
    doubt: str
    """Why the names of folders that look like splits are none; empty if there is no doubt."""
    groups: str
    """A part of the file names that may tell groups, in a sentence; empty if there is none."""

    @property
    def hours(self) -> float:
        """About, from the mean length of the sample."""
        return self.num_recordings * sum(self.lengths_s) / max(len(self.lengths_s), 1) / 3600

    def length_s(self, share: float) -> float:
        """The length that this share of the sample does not reach."""
        return self.lengths_s[min(int(share * len(self.lengths_s)), len(self.lengths_s) - 1)]


def survey(root: Path, logmel: LogMel) -> Survey:
    """Look at a folder.

    Args:
        root: The folder, which is never changed.
        logmel: The front end, which decides what is too short.

    Raises:
        ValueError: There is no such folder, no recording in it, or none of the sample can be used.
    """
    if not root.is_dir():
        raise ValueError(
            f"{root}: need a folder of recordings, found {'a file' if root.exists() else 'none'}."
        )
    progress = Progress(f"{root}: names", 0, "files")
    paths: dict[Storage, list[str]] = {storage: [] for storage in KINDS}
    storages: tuple[Storage, ...] = tuple(KINDS)
    passed_over = PassedOver()
    for path in find_files(root, storages, passed_over):
        paths[storage_of(path)].append(path)
        progress.advance()
    counts = {
        "files": len(paths["files"]),
        "tars": len(paths["tars"]),
        "parquet": sum(_in_file(root, path) for path in paths["parquet"]),
    }
    # A tar holds more recordings than a file does. Rows are counted, so stray tables do not count.
    storage = max(storages, key=lambda one: (bool(counts[one]), counts[one] * (100 if one == "tars" else 1)))
    if not counts[storage]:
        paths = {one: [] for one in storages}
    sample, num_recordings = _sampled(root, storage, paths[storage])
    list(require_some(iter(sample), root, storages, passed_over))
    headers, unusable = _headers(root, sample, logmel)
    if not headers:
        path, reason = next(iter(unusable.items()))
        raise ValueError(
            f"{root}: need recordings that can be used, found none in {len(sample)}. {path}: {reason}."
        )
    recordings = (
        [Recording(path, 0, UNREAD, path) for path in paths["files"]] if storage == "files" else sample
    )
    places, doubt = None, ""
    try:
        places = places_of(str(root), recordings)
    except ValueError as error:
        doubt = str(error)
    labels = _labels_of_files(root, recordings, places) if storage == "files" else _labels_inside(sample)
    if num_recordings < FEWEST_LABELLED:
        labels = Labels({"labels": "none"}, "These are too few recordings to probe.")
    return Survey(
        kind=KINDS[storage],
        num_recordings=num_recordings,
        others={one: counts[one] for one in storages if one != storage and counts[one]},
        passed_over=passed_over.in_words(),
        lengths_s=tuple(sorted(length for length, _ in headers)),
        rates_hz=Counter(rate for _, rate in headers),
        num_sampled=len(sample),
        unusable=unusable,
        labels=labels,
        places=places,
        doubt=doubt,
        groups=_groups(recordings) if labels.keys["labels"] == "folders" else "",
    )


def _in_file(root: Path, path: str) -> int:
    try:
        return num_rows(root / path)
    except OSError:
        return 0


def _sampled(root: Path, storage: Storage, paths: Sequence[str]) -> tuple[list[Recording], int]:
    """Recordings from all over the folder, and the number of all of them."""
    if storage == "files":
        return [Recording(path, 0, UNREAD, path) for path in spread(paths, MOST_HEADERS)], len(paths)
    files = spread(paths, MOST_CONTAINERS)
    sample: list[Recording] = []
    num_in_files = 0
    for file in files:
        read = _members if storage == "tars" else _rows
        found, number = read(root, file, MOST_HEADERS // max(len(files), 1))
        sample += found
        num_in_files += number
    if storage == "parquet":
        return sample, sum(_in_file(root, path) for path in paths)
    return sample, round(num_in_files * len(paths) / max(len(files), 1))


def _members(root: Path, file: str, most: int) -> tuple[list[Recording], int]:
    listing = list_tar(root / file, AUDIO_SUFFIXES)
    found = []
    for member in spread(listing.members, most):
        if member.place is not None:
            about = listing.about(root / file, member)
            found.append(
                Recording(
                    f"{file}/{member.name}",
                    member.place.num_bytes,
                    UNREAD,
                    file,
                    member.place.position,
                    about,
                )
            )
    return found, len(listing.members)


def _rows(root: Path, file: str, most: int) -> tuple[list[Recording], int]:
    found = []
    try:
        for row in islice(parquet_rows(root / file), most):
            found.append(
                Recording(
                    f"{file}/{row.number}", len(row.content or b""), UNREAD, file, row.number, row.about
                )
            )
    except OSError:
        pass
    return found, len(found)


def _headers(
    root: Path, sample: Sequence[Recording], logmel: LogMel
) -> tuple[list[tuple[float, int]], dict[str, str]]:
    """Length and rate of each recording that can be used, and the reasons of the others."""
    headers, unusable = [], {}
    progress = Progress(f"{root}: headers", len(sample), "recordings")
    for recording in sample:
        try:
            header = check_header(root, recording, logmel, ())
            if header.num_samples is not None:
                headers.append((header.duration_s, header.rate_hz))
        except UnusableAudio as error:
            unusable[recording.path] = error.reason
        progress.advance()
    return headers, unusable


def _labels_of_files(root: Path, recordings: Sequence[Recording], places: Places | None) -> Labels:
    """From a table beside the recordings, or from folders that look like classes."""
    for name in _tables(root):
        table = min(root.rglob(name))
        rows = list(islice(_rows_of(table), MOST_ROWS))
        if not (column := _label_key(rows, PATHS)):
            continue
        if _names_recordings(root, table, rows):
            keys = {"labels": name} | ({} if column == "label" else {"label_column": column})
            return Labels(keys | _several(rows, column), f"{name} has a column {column}.")
    above = places.others if places else names_above
    sizes = Counter(above(recording)[-1] for recording in recordings if above(recording))
    if len(sizes) < 2:
        return Labels({"labels": "none"}, "There is neither a table of labels nor a folder for each class.")
    names = ", ".join(name for name, _ in sizes.most_common(4))
    shown = f"{len(sizes):,} folders hold recordings: {names}{' and others' if len(sizes) > 4 else ''}."
    if sum(size for size in sizes.values() if size >= FEWEST_OF_CLASS) < IN_CLASSES * len(recordings):
        return Labels(
            {"labels": "none"}, f"{shown} Most hold too few for classes. If they are, write folders."
        )
    return Labels({"labels": "folders"}, f"{shown} If they are days or places and no classes, write none.")


def _names_recordings(root: Path, table: Path, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the rows of a table name files that are there."""
    folder, column = (root, PATHS[0]) if PATHS[0] in rows[0] else (table.parent, PATHS[1])
    return all((folder / str(row.get(column) or "missing")).is_file() for row in rows)


def _tables(root: Path) -> list[str]:
    """Names of files that may be tables of labels, the likeliest first."""
    metadata = [name for name in ("metadata.csv", "metadata.jsonl") if next(root.rglob(name), None)]
    beside = sorted(path.name for path in root.iterdir() if path.suffix.lower() in (".csv", ".jsonl"))
    return list(dict.fromkeys([*metadata, *(name for name in beside if name == "labels.csv"), *beside]))


def _rows_of(table: Path) -> Iterator[dict[str, Any]]:
    """Rows of a table up to the first that is none."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            if table.suffix.lower() == ".csv":
                yield from csv.DictReader(file)
            else:
                yield from (row for row in map(json.loads, file) if isinstance(row, dict))
    except (OSError, ValueError, csv.Error):
        return


def _labels_inside(sample: Sequence[Recording]) -> Labels:
    """From what tars and parquet files tell of their recordings."""
    rows = []
    for recording in sample:
        try:
            rows.append(json.loads(recording.about or "{}"))
        except (ValueError, RecursionError):
            continue
    rows = [row for row in rows if isinstance(row, dict)]
    key = _label_key(rows, ("path", "split", "fold", "group"))
    if key is None:
        there = ", ".join(rows[0]) if rows and rows[0] else "nothing"
        return Labels({"labels": "none"}, f"Nothing looks like labels. Told of the first recording: {there}.")
    return Labels({"labels": key} | _several(rows, key), f"{key} looks like the label.")


def _label_key(rows: Sequence[dict[str, Any]], others: Iterable[str]) -> str | None:
    """The column whose values look like labels: some, each of them more than once."""
    keys = [key for key in (rows[0] if rows else {}) if key not in set(others)]
    usual: Callable[[str], int] = lambda key: USUAL.index(key) if key in USUAL else len(USUAL)  # noqa: E731
    for key in sorted(keys, key=usual):
        values = [row.get(key) for row in rows]
        known = Counter(json.dumps(value) for value in values if value not in (None, "", []))
        is_text = all(isinstance(value, (str, list)) for value in values if value is not None)
        is_whole = all(str(value).strip() for value in values)
        if len(known) > 1 and is_whole and (key in USUAL or (is_text and len(known) <= known.total() / 3)):
            return key
    return None


def _several(rows: Sequence[dict[str, Any]], key: str) -> dict[str, bool]:
    return {"multi_label": True} if any(isinstance(row.get(key), list) for row in rows) else {}


def _groups(recordings: Sequence[Recording]) -> str:
    """A first word of the file names that recordings of several folders share."""
    files = [PurePosixPath(recording.path) for recording in recordings]
    words = [path.stem.replace("-", "_").partition("_")[0] for path in files]
    if words == [path.stem for path in files]:
        return ""
    folders_of = Counter(word for word, _ in {*zip(words, (path.parent for path in files), strict=True)})
    shared = [word for word, number in folders_of.most_common() if number > 1]
    if not 2 <= len(folders_of) <= len(files) / 3 or len(shared) < len(folders_of) / 2:
        return ""
    return (
        f"File names begin with one of {len(folders_of):,} words ({', '.join(shared[:3])} ...). If those are "
        "speakers, places or devices, scores are fair only with a table that names them in a column `group`."
    )


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many items, from all over the sequence."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]
