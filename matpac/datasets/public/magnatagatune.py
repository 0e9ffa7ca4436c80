"""MagnaTagATune: 25,863 excerpts of 29 seconds with tags from a game; the 50 commonest tags.

Source   https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset
License  CC BY-NC-SA 3.0 for recordings and annotations. So the annotations are read from the
         download and are no part of this code.
Cite     E. Law, K. West, M. Mandel, M. Bay, J. S. Downie, "Evaluation of algorithms using games:
         the case of music tagging", ISMIR 2009.
Layout   Sixteen folders 0-9 a-f of {artist}-{album}-{track}-{title}-{start}-{end}.mp3; MP3, 16 kHz,
         mono, 32 kbit/s, 29.1 s. annotations_final.csv beside them, TAB separated: clip_id, 188
         columns of 0 and 1, mp3_path. clip_info_final.csv names artists, titles and addresses, in
         case you must cite a recording.
Task     The 50 tags with most clips, mean average precision. They are counted over all annotated
         clips; ties are ordered by name. Synonyms (no vocal, no vocals, no voice) stay separate.
Split    By the folder, as in the literature ("12:1:3"): 0-b train (18,706), c validation (1,825),
         d-f test (5,329). It is not filtered by artist: 56 of 230 artists are in more than one
         split. 4,752 of these clips have none of the 50 tags (3,459, 296 and 997). `untagged: keep`
         takes them as clips to which no tag applies, as the paper's 25,863 implies. `untagged:
         drop` leaves them to pre-training (15,247, 1,529 and 4,332 clips stay; a list that others
         use has 15,244 in train). Scores differ.
Defects  Three MP3s of the train split have no bytes (BROKEN). Some unzip programs need the joined
         archive repaired first (`zip -FF`); ours reads it unrepaired.
"""

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from matpac.clip import Clip, Rejection, SplitName, Task
from matpac.datasets.dataset_page import Archive, Page, base_of
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import MagnaTagATune

HOSTS = ("https://mirg.city.ac.uk/datasets/magnatagatune", "http://mi.soi.city.ac.uk/datasets/magnatagatune")


def _remote(name: str, sha256: str) -> RemoteFile:
    return RemoteFile(name, tuple(f"{host}/{name}" for host in HOSTS), f"sha256:{sha256}")


ANNOTATIONS = "annotations_final.csv"
PAGE = Page(
    title="MagnaTagATune",
    license="CC BY-NC-SA 3.0",
    citation="Law, West, Mandel, Bay, Downie: Evaluation of algorithms using games, ISMIR 2009",
    home="https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
    archives=(
        Archive(
            (
                _remote("mp3.zip.001", "f857fe185968773058cc71662c2ef5d8f2d4b7338e3c122cfd52f82dcb9760b9"),
                _remote("mp3.zip.002", "fc2e1ec441755556ed1398b1808f1b08b6034372f8bc27394510c0c58cdb52ce"),
                _remote("mp3.zip.003", "83a689824c17e82f6eb81cdbc4e4ca239a4cfc1fb41f1a5c80b861caec90450f"),
            )
        ),
        Archive(
            (_remote(ANNOTATIONS, "99b94e95825d4fa576386a5367b9c96e0ec636e9f9c240aceb492f4728f68c3c"),),
            unpack=False,
        ),
        Archive(
            (
                _remote(
                    "clip_info_final.csv", "cb6108a10d3a91f0bfd7d2fbec2382559d15f20c8d28093f14e12162a47a3e78"
                ),
            ),
            unpack=False,
        ),
    ),
    download_gb=2.8,
    num_recordings=25_863,
    num_clips=25_860,
    num_classes=50,
    num_folds=None,
    metric="mAP",
)
BROKEN = frozenset(
    {
        "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
        "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
        "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-"
        "le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
    }
)


def tables(params: MagnaTagATune, root: Path) -> list[Path]:
    return [base_of(root, ANNOTATIONS) / ANNOTATIONS]


def clips(params: MagnaTagATune, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    [table] = tables(params, root)
    top_tags = _top_tags(table)
    annotated = {mp3_path: (clip_id, tags) for clip_id, mp3_path, tags in _annotations(table, set(top_tags))}
    for recording in recordings:
        path = PurePosixPath(recording.path)
        mp3_path = "/".join(path.parts[-2:])
        annotation = annotated.pop(mp3_path, None)
        if annotation is None:
            yield Rejection(recording.path, f"not listed (not in {ANNOTATIONS}, or there twice)")
        elif mp3_path in BROKEN and recording.bytes == 0:
            yield Rejection(recording.path, "known defect (distributed without a single byte)")
        else:
            clip_id, tags = annotation
            yield Clip(
                clip_id,
                recording.path,
                labels=tuple(tag for tag in top_tags if tag in tags),
                split=_split(mp3_path) if tags or params.untagged == "keep" else None,
                group=path.name.partition("-")[0],
            )


def task(params: MagnaTagATune, root: Path, labels: Collection[str], num_folds: int | None) -> Task | None:
    [table] = tables(params, root)
    return PAGE.task(_top_tags(table))


def _split(mp3_path: str) -> SplitName:
    match mp3_path[0]:
        case "c":
            return "validation"
        case "d" | "e" | "f":
            return "test"
        case _:
            return "train"


def _top_tags(table: Path) -> tuple[str, ...]:
    counts = Counter[str]()
    for _, _, tags in _annotations(table):
        counts.update(tags)
    return tuple(sorted(counts, key=lambda tag: (-counts[tag], tag))[: PAGE.num_classes])


def _annotations(table: Path, wanted: Collection[str] | None = None) -> Iterator[tuple[str, str, set[str]]]:
    """clip_id, mp3_path and wanted tags of every annotated clip."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, delimiter="\t")
        columns = next(rows, [])
        if columns[:1] != ["clip_id"] or columns[-1:] != ["mp3_path"]:
            raise ValueError(
                f"{table}: need columns clip_id, tags, mp3_path, separated by TAB, "
                f"found {' '.join(columns)[:80]!r}"
            )
        tags = [tag if wanted is None or tag in wanted else None for tag in columns]
        for row in rows:
            yield row[0], row[-1], {tag for tag, given in zip(tags, row, strict=True) if given == "1" and tag}
