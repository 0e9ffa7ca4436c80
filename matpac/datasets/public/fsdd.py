"""Free Spoken Digit Dataset: 3,000 English digits by 6 speakers, 0.4 s each, 22 minutes in all.

Source   https://github.com/Jakobovski/free-spoken-digit-dataset, commit 26eb9aaf
License  CC BY-SA 4.0
Cite     Z. Jackson et al., Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401
Layout   recordings/{digit}_{speaker}_{index}.wav; WAV, 16 bits, 8 kHz, mono, 0.14 to 2.28 s.
Task     10 digits, one label each, accuracy.
Split    Official: index 0-4 test (300), 5-49 train (2,700). There is no official validation set:
         here index 5-9 validates (300) and 2,400 train. All speakers are in all splits.
Verified All 3,000 recordings, by name and checksum. The release v1.0.9 has 2,500 of them.
Defects  A recording of 0.14 s has 12 frames: most clips are much shorter than a pre-training crop.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from matpac.clip import Clip, Rejection, SplitName
from matpac.datasets.dataset_page import Archive, Page
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public

REPOSITORY = "https://github.com/Jakobovski/free-spoken-digit-dataset"
COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
PAGE = Page(
    title="Free Spoken Digit Dataset",
    license="CC BY-SA 4.0",
    citation="Jackson et al.: Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401",
    home=REPOSITORY,
    archives=(
        Archive((RemoteFile("free-spoken-digits.zip", (f"{REPOSITORY}/archive/{COMMIT}.zip",), None),)),
    ),
    download_gb=0.02,
    num_recordings=3_000,
    num_clips=3_000,
    num_classes=10,
    num_folds=None,
    metric="accuracy",
    content_digest="baa3a6dcf4da47fb3075bec71a8cefb512022cb9ae030a79a31b315f37bc67af",
)
CLASSES = tuple("0123456789")
FILE_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav")


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    for recording in recordings:
        name = PurePosixPath(recording.path).name
        match = FILE_NAME.fullmatch(name)
        if match is None:
            yield Rejection(recording.path, "not listed (need file names like 7_jackson_32.wav)")
            continue
        yield Clip(
            id=PurePosixPath(name).stem,
            path=recording.path,
            labels=(match["digit"],),
            split=_split(int(match["index"])),
            group=match["speaker"],
        )


def _split(index: int) -> SplitName:
    if index < 5:
        return "test"
    return "validation" if index < 10 else "train"
