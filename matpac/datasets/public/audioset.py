"""AudioSet: two million ten-second segments of YouTube videos, 527 classes, several labels each.

Source   https://research.google.com/audioset: lists of segments. Their makers offer no audio, and
         videos disappear, so every copy of AudioSet is a part of it.
License  Lists CC BY 4.0, ontology CC BY-SA 4.0. The videos belong to those who uploaded them.
Cite     J. F. Gemmeke, D. P. W. Ellis, D. Freedman, A. Jansen, W. Lawrence, R. C. Moore, M. Plakal,
         M. Ritter, "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP
         2017.
Layout   `source` is a folder of audio files, tar shards or parquet files, in folders of any name.
         The YouTube id of the segment identifies a recording. It is the column or key `video_id` if
         there is one, else the file name: {id}, Y{id}, {id}_{start} or {id}_{start}_{end}. Mirrors
         in such forms: https://huggingface.co/datasets/agkphysics/AudioSet (parquet; FLAC, mostly
         24 bits and 48 kHz) and https://huggingface.co/datasets/confit/audioset-16khz-wds (tar
         shards, 16 kHz). The official lists are taken from `source` or the folders directly in it,
         else downloaded (100 MB).
Task     527 classes, mean average precision. Labels are display names, in the order of
         class_labels_indices.csv. `labels` of the recording itself (mids, in a column or its JSON)
         win over the lists.
Split    eval_segments (20,371) is the test split. balanced_train_segments (22,160) is the train
         split, except for a tenth, by a hash of the id, which validates. unbalanced_train_segments
         (2,041,789) and recordings in no list serve pre-training only. An id in two lists belongs
         to the first of them.
Defects  Copies have empty, silent and very short files, 16 and 24 bits, one and two channels,
         several rates. Ids may contain `-` or `_` and begin with them. Two copies of one segment
         stay two clips of one group.
"""

import csv
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

from matpac.clip import Clip, Rejection, SplitName, Task, path_safe_id
from matpac.datasets.dataset_page import Archive, Page
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile, download
from matpac.files import whole_file
from matpac.params import AudioSet, digest
from matpac.walk import Storage

CLASSES = "class_labels_indices.csv"
EVAL, BALANCED, UNBALANCED = (
    f"{name}_segments.csv" for name in ("eval", "balanced_train", "unbalanced_train")
)
SEGMENTS = (EVAL, BALANCED, UNBALANCED)
PLACE = "http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv"


def _table(name: str, checksum: str | None) -> Archive:
    return Archive((RemoteFile(name, (f"{PLACE}/{name}",), checksum),), unpack=False)


PAGE = Page(
    title="AudioSet",
    license="lists CC BY 4.0; the recordings belong to their makers",
    citation="Gemmeke et al.: Audio Set: An ontology and human-labeled dataset for audio events, ICASSP 2017",
    home="https://research.google.com/audioset",
    archives=(
        _table(CLASSES, "sha256:cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429"),
        # No checksum is published: each is checked against the number of segments in its header.
        *(_table(name, None) for name in SEGMENTS),
    ),
    download_gb=0.1,
    num_recordings=None,
    num_clips=2_084_320,
    num_classes=527,
    num_folds=None,
    metric="mAP",
)
STORED_AS: tuple[Storage, ...] = ("files", "tars", "parquet")
ID = re.compile(r"[A-Za-z0-9_-]{11}")
NAME = re.compile(rf"(?P<plain>{ID.pattern})|Y?(?P<id>{ID.pattern})(_\d+(\.\d+)?){{0,2}}")
VALIDATES_ONE_IN = 10


def lists_folder() -> Path:
    """Folder of downloaded lists, since the root of the recordings is the user's own."""
    return PAGE.root("audioset")


def fetch(params: AudioSet, root: Path, report: Callable[[int, int], None] | None) -> None:
    """Download the lists that are not in the source."""
    there = _lists(root)
    missing = [part for archive in PAGE.archives for part in archive.parts if part.name not in there]
    if missing:
        download(missing, lists_folder(), report)


def tables(params: AudioSet, root: Path) -> list[Path]:
    lists = _lists(root)
    if missing := [name for name in (CLASSES, *SEGMENTS) if name not in lists]:
        raise ValueError(
            f"{root}: need the official lists, found no {', '.join(missing)}. "
            f"Put them there, or run the download stage with a network."
        )
    return [lists[name] for name in (CLASSES, *SEGMENTS)]


def clips(params: AudioSet, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    paths = tables(params, root)
    classes = _classes(paths[0])
    names, index_of = list(classes.values()), _index_of(classes)
    with closing(_lookup(paths)) as lookup:
        for recording in recordings:
            youtube_id = youtube_id_of(recording)
            row = lookup.execute("SELECT list, labels FROM segments WHERE youtube_id = ?", [youtube_id])
            found_in, listed = row.fetchone() or ("", "")
            indices = _own_labels(recording, index_of) or map(int, listed.split())
            yield Clip(
                path_safe_id(recording.path),
                recording.path,
                labels=tuple(names[index] for index in sorted(set(indices))),
                split=_split(youtube_id, found_in),
                group=youtube_id or None,
            )


def task(params: AudioSet, root: Path, labels: Collection[str], num_folds: int | None) -> Task | None:
    if not labels:
        return None
    return PAGE.task([*_classes(tables(params, root)[0]).values()])


def missing(params: AudioSet, root: Path, recordings: Iterable[Recording]) -> dict[str, int]:
    """Number of segments of each list that are not among the recordings, by the list's name."""
    there = present(params, root, recordings)
    return {name: number - there[name] for name, number in listed(params, root).items()}


def listed(params: AudioSet, root: Path) -> dict[str, int]:
    """Number of segments of each list, by the list's name."""
    with closing(_lookup(tables(params, root))) as lookup:
        counts = dict(lookup.execute("SELECT list, count(*) FROM segments GROUP BY list"))
    return {name: counts.get(name, 0) for name in SEGMENTS}


def present(params: AudioSet, root: Path, recordings: Iterable[Recording]) -> dict[str, int]:
    """Number of segments of each list among the recordings; copies count once."""
    with closing(_lookup(tables(params, root))) as lookup:
        lookup.execute("CREATE TEMP TABLE present (youtube_id TEXT PRIMARY KEY) WITHOUT ROWID")
        lookup.executemany(
            "INSERT OR IGNORE INTO present VALUES (?)",
            ([youtube_id_of(recording)] for recording in recordings),
        )
        counts = dict(
            lookup.execute(
                "SELECT list, count(*) FROM present JOIN segments USING (youtube_id) GROUP BY list"
            )
        )
    return {name: counts.get(name, 0) for name in SEGMENTS}


def youtube_id_of(recording: Recording) -> str:
    """Id of the video of a recording; empty if neither its name nor its container tells it."""
    about = _about(recording)
    told = about.get("video_id")
    if isinstance(told, str) and ID.fullmatch(told):
        return told
    # A row of a parquet file may name the file that it was made from.
    for path in (about.get("path"), recording.path):
        match = NAME.fullmatch(PurePosixPath(path).stem) if isinstance(path, str) else None
        if match:
            return match["plain"] or match["id"]
    return ""


def _about(recording: Recording) -> Mapping[str, object]:
    try:
        about = json.loads(recording.about)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _own_labels(recording: Recording, index_of: Mapping[str, int]) -> list[int]:
    """Classes of the mids that came with the recording; none if it has other labels too."""
    mids = _about(recording).get("labels")
    if isinstance(mids, list) and all(isinstance(mid, str) and mid in index_of for mid in mids):
        return [index_of[mid] for mid in mids]
    return []


def _split(youtube_id: str, found_in: str) -> SplitName | None:
    if found_in == EVAL:
        return "test"
    if found_in == BALANCED:
        number = int(hashlib.sha256(youtube_id.encode()).hexdigest(), 16)
        return "train" if number % VALIDATES_ONE_IN else "validation"
    return None


def _lists(root: Path) -> dict[str, Path]:
    """Paths of the official lists that are here, by name."""
    folders = [root, *sorted(root.glob("*/")), lists_folder()]
    paths = {name: [folder / name for folder in folders] for name in (CLASSES, *SEGMENTS)}
    there = {name: next((path for path in places if path.is_file()), None) for name, places in paths.items()}
    return {name: path for name, path in there.items() if path is not None}


def _classes(table: Path) -> dict[str, str]:
    """mid -> display name, in the order of the index."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
    return {row["mid"]: row["display_name"] for row in rows}


def _index_of(classes: Iterable[str]) -> dict[str, int]:
    return {mid: index for index, mid in enumerate(classes)}


def _lookup(paths: Sequence[Path]) -> sqlite3.Connection:
    """The lists as one table (youtube_id, list, labels: indices of classes) on disk, made once.

    Two million rows as Python objects would fill a gigabyte.
    """
    path = lists_folder() / f"segments-{digest([_sha256(path) for path in paths])}.sqlite"
    if not path.is_file():
        with whole_file(path) as partial:
            # A killed process of another container may have had our process number.
            partial.unlink(missing_ok=True)
            _make_lookup(partial, paths)
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _make_lookup(path: Path, tables: Sequence[Path]) -> None:
    classes, *lists = tables
    index_of = _index_of(_classes(classes))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE segments (youtube_id TEXT PRIMARY KEY, list TEXT, labels TEXT) WITHOUT ROWID"
        )
        for table in lists:
            rows = ((youtube_id, table.name, labels) for youtube_id, labels in _segments(table, index_of))
            database.executemany("INSERT OR IGNORE INTO segments VALUES (?, ?, ?)", rows)


def _segments(table: Path, index_of: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """YouTube ids and indices of classes. Raises ValueError if the list is cut short or damaged."""
    num_segments, num_promised = 0, None
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for row in reader:
            if row and row[0].startswith("#"):
                promised = [int(cell.partition("=")[2]) for cell in row if cell.startswith("num_segs=")]
                num_promised = promised[0] if promised else num_promised
                continue
            try:
                youtube_id, _, _, mids = row
                labels = " ".join(str(index_of[mid]) for mid in mids.split(","))
            except (ValueError, KeyError) as error:
                raise ValueError(
                    f"{table}, line {reader.line_num}: need an id, start, end and "
                    f"mids of {CLASSES}, found {row}"
                ) from error
            num_segments += 1
            yield youtube_id, labels
    if num_promised is not None and num_segments != num_promised:
        raise ValueError(
            f"{table}: need {num_promised} segments, as its header says, found {num_segments}. "
            f"Delete it and run the download stage again."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
