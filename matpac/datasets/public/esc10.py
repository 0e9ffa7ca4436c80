"""ESC-10: 400 environmental sounds of five seconds, 10 classes, one label each, five folds.

Source   https://github.com/karoldvl/ESC-10, commit 553c8f17, the last one with the recordings
License  CC BY 3.0 as a whole; single clips CC0, CC BY or CC Sampling+ (its README lists them)
Cite     K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM MM 2015.
Layout   NNN - Class/{fold}-{freesound id}-{take}.ogg; Ogg Vorbis, 44.1 kHz, mono, 3.6 to 7.2 s.
Task     10 classes, 40 clips each, accuracy.
Split    Official: 5 folds of 80 clips; all takes of one Freesound recording are in one fold.
Verified All 400 recordings, by name and checksum.
Defects  Short sounds are padded to five seconds with digital silence.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from matpac.clip import Clip, Rejection
from matpac.datasets.dataset_page import Archive, Page
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public

COMMIT = "553c8f1743b9dba6b282e1323c3ca8fa76923448"
PAGE = Page(
    title="ESC-10",
    license="CC BY 3.0; single clips CC0, CC BY or CC Sampling+",
    citation="Piczak: ESC: Dataset for Environmental Sound Classification, ACM MM 2015",
    home="https://github.com/karoldvl/ESC-10",
    archives=(
        Archive(
            (RemoteFile("ESC-10.zip", (f"https://github.com/karoldvl/ESC-10/archive/{COMMIT}.zip",), None),)
        ),
    ),
    download_gb=0.04,
    num_recordings=400,
    num_clips=400,
    num_classes=10,
    num_folds=5,
    metric="accuracy",
    content_digest="90f86c372a5566235f4a724cc3bd6163390aae3eebb52b3fd167001f2014db91",
)
CLASSES = (
    *("Dog bark", "Rain", "Sea waves", "Baby cry", "Clock tick"),
    *("Person sneeze", "Helicopter", "Chainsaw", "Rooster", "Fire crackling"),
)
PATH = re.compile(r"(.*/)?\d{3} - (?P<name>[^/]+)/(?P<stem>(?P<fold>[1-5])-(?P<freesound>\d+)-[A-Z]+)\.ogg")


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    for recording in recordings:
        match = PATH.fullmatch(recording.path)
        if match is None or match["name"] not in CLASSES:
            yield Rejection(recording.path, "not listed (need paths like 001 - Dog bark/1-100032-A.ogg)")
            continue
        yield Clip(
            id=match["stem"],
            path=recording.path,
            labels=(match["name"],),
            fold=int(match["fold"]),
            group=match["freesound"],
        )
