"""OpenMIC-2018: 20,000 excerpts of ten seconds, 20 instruments, most of them unobserved in a clip.

Source   https://zenodo.org/record/1432913
License  Dataset CC BY 4.0. Each clip keeps the license its artist gave it on the Free Music
         Archive, many of them CC BY-NC-ND or BY-NC-SA: column license_title of
         openmic-2018-metadata.csv.
Cite     E. J. Humphrey, S. Durand, B. McFee, "OpenMIC-2018: An open dataset for multiple instrument
         recognition", ISMIR 2018, doi:10.5281/zenodo.1432913.
Layout   audio/000/000046_3840.ogg (track of the FMA, start in the track); Ogg Vorbis, 44.1 kHz,
         stereo or mono. openmic-2018-aggregated-labels.csv:
         sample_key,instrument,relevance,num_responses.
Task     20 instruments, mean average precision. Relevance >= 0.5 is a positive, as in the official
         notebook (one published baseline takes > 0.5; they differ at exactly 0.5). A pair without a
         row was not observed, and counts neither in the loss nor in the average precision. The npz
         beside the table has 0.5 for such pairs; it is not read.
Split    Official: partitions/split01_train.csv (14,915) and split01_test.csv (5,085), disjoint by
         artist. There is no official validation set: here whole artists of the train split, in the
         order of a hash of their artist_id, validate until they make 15 % of it (2,238 clips, and
         at most the rest of one artist).
Defects  Ten tracks of the FMA were corrupt at collection and are not in the dataset. Three labels
         were corrected by hand, in the tables as distributed: 095253_134400 piano, 095263_96000
         mallet percussion, 113025_99840 trumpet. The archive's README calls the partitions
         train01.txt and test01.txt.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from matpac.clip import Clip, Rejection, SplitName
from matpac.datasets.dataset_page import Archive, Page, base_of
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public

PAGE = Page(
    title="OpenMIC-2018",
    license="CC BY 4.0; each clip its own, many CC BY-NC-ND or BY-NC-SA",
    citation="Humphrey, Durand, McFee: OpenMIC-2018, ISMIR 2018",
    home="https://zenodo.org/record/1432913",
    archives=(
        Archive(
            (
                RemoteFile(
                    "openmic-2018-v1.0.0.tgz",
                    (
                        "https://zenodo.org/record/1432913/files/openmic-2018-v1.0.0.tgz?download=1",
                        "https://zenodo.org/api/records/1432913/files/openmic-2018-v1.0.0.tgz/content",
                    ),
                    "md5:e4ccf187e2bb5ab2e115416e8aafe7f4",
                ),
            )
        ),
    ),
    download_gb=2.6,
    num_recordings=20_000,
    num_clips=20_000,
    num_classes=20,
    num_folds=None,
    metric="mAP",
)
# fmt: off
CLASSES = (
    "accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar",
    "mallet_percussion", "mandolin", "organ", "piano", "saxophone", "synthesizer", "trombone", "trumpet",
    "ukulele", "violin", "voice",
)
# fmt: on
LABELS = "openmic-2018-aggregated-labels.csv"
METADATA = "openmic-2018-metadata.csv"
TRAIN, TEST = "partitions/split01_train.csv", "partitions/split01_test.csv"
POSITIVE_FROM = 0.5
VALIDATION_SHARE = 0.15


def tables(params: Public, root: Path) -> list[Path]:
    base = base_of(root, LABELS)
    return [base / name for name in (LABELS, METADATA, TRAIN, TEST)]


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    labels, metadata, train, test = tables(params, root)
    artists = _artists(metadata)
    splits = _splits(_keys(train), _keys(test), artists)
    heard, not_heard = _judgements(labels)
    for recording in recordings:
        path = PurePosixPath(recording.path)
        split = splits.pop(path.stem, None) if path.parent.name == path.stem[:3] else None
        if split is None:
            yield Rejection(recording.path, "not listed (in neither partition, or there twice)")
            continue
        yield Clip(
            path.stem,
            recording.path,
            labels=_in_order(heard[path.stem]),
            split=split,
            group=artists[path.stem],
            absent=_in_order(not_heard[path.stem]),
        )


def _keys(partition: Path) -> list[str]:
    return partition.read_text(encoding="utf-8").split()


def _artists(metadata: Path) -> dict[str, str]:
    with metadata.open(newline="", encoding="utf-8-sig") as file:
        return {row["sample_key"]: row["artist_id"] for row in csv.DictReader(file)}


def _judgements(table: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Instruments by clip: those that listeners heard, and those that they did not."""
    heard, not_heard = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    with table.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            if row["instrument"] not in CLASSES:
                raise ValueError(f"{table}: need the 20 instruments of OpenMIC, found {row['instrument']!r}")
            judged = heard if float(row["relevance"]) >= POSITIVE_FROM else not_heard
            judged[row["sample_key"]].add(row["instrument"])
    return heard, not_heard


def _in_order(instruments: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in CLASSES if name in instruments)


def _splits(train: list[str], test: list[str], artists: Mapping[str, str]) -> dict[str, SplitName]:
    if unknown := [key for key in (*train, *test) if key not in artists]:
        raise ValueError(f"{METADATA}: need a row for every clip, found none for {unknown[0]}")
    splits: dict[str, SplitName] = dict.fromkeys(train, "train")
    splits |= dict.fromkeys(test, "test")
    by_artist = defaultdict[str, list[str]](list)
    for key in train:
        by_artist[artists[key]].append(key)
    num_validating = 0
    for artist in sorted(by_artist, key=lambda artist: hashlib.sha256(artist.encode()).hexdigest()):
        if num_validating >= VALIDATION_SHARE * len(train):
            break
        splits |= dict.fromkeys(by_artist[artist], "validation")
        num_validating += len(by_artist[artist])
    return splits
