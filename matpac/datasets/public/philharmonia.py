"""Philharmonia samples: 9,750 single notes of 15 orchestra instruments, and percussion; 5.6 hours.

Source   https://github.com/skratchdot/philharmonia-samples, commit 717b7de2, a copy of the samples
         that the Philharmonia Orchestra offered at www.philharmonia.co.uk/explore/make_music
License  "You are free to use these samples as you wish, including releasing them as part of a
         commercial work. The only restriction is they must not be sold or made available 'as is'";
         below it, the repository's page says CC BY-SA 3.0.
Cite     Philharmonia Orchestra, London: sound samples.
Layout   audio/{instrument}/{instrument}_{pitch}_{length}_{dynamics}_{articulation}.mp3; MP3,
         44.1 kHz, mono, 0.07 to 78 s, half of them under 1.1 s. `cor anglais` has the names of
         `english-horn`. 148 recordings of percussion have no pitch.
Task     15 instruments, one label each, 74 to 944 clips, accuracy. Percussion has no label here.
Split    Not official. Five folds by pitch, so a note is judged by other notes: its fold is its
         semitone modulo 5, so octaves are in different folds and all folds cover the whole range.
Verified All 9,750 recordings, by name and checksum.
Defects  One file is empty. One holds the note of another instrument, a horn's E2 for an oboe's E6.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from matpac.clip import Clip, Rejection
from matpac.datasets.dataset_page import Archive, Page
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public

REPOSITORY = "https://github.com/skratchdot/philharmonia-samples"
COMMIT = "717b7de2bcae05e44aa8a3dde143c8d093b8f6c8"
NUM_FOLDS = 5
PAGE = Page(
    title="Philharmonia samples",
    license="free to use, not to be sold as is; also CC BY-SA 3.0",
    citation="Philharmonia Orchestra, London: sound samples",
    home=REPOSITORY,
    archives=(
        Archive(
            (RemoteFile("philharmonia-samples.zip", (f"{REPOSITORY}/archive/{COMMIT}.zip",), None),),
        ),
    ),
    download_gb=0.2,
    num_recordings=9_750,
    num_clips=9_600,
    num_classes=15,
    num_folds=NUM_FOLDS,
    metric="accuracy",
    official_split=False,
    content_digest="ece5772eb377ffaf94be65330185f7fd0f17701bd2e2ff7cd0ff3d1dc9309a4d",
)
CLASSES = (
    *("banjo", "bass-clarinet", "bassoon", "cello", "clarinet", "contrabassoon", "double-bass"),
    *("english-horn", "flute", "french-horn", "guitar", "mandolin", "oboe", "saxophone", "trombone"),
)
FILE_NAME = re.compile(
    r"(?P<instrument>[A-Za-z-]+)_((?P<pitch>[A-G]s?)(?P<octave>\d))?_[a-z0-9-]+_[a-z-]+_[a-z-]*\.mp3"
)
SEMITONES = {
    name: semitone
    for semitone, name in enumerate(("C", "Cs", "D", "Ds", "E", "F", "Fs", "G", "Gs", "A", "As", "B"))
}
DEFECTS = {
    "saxophone_Fs3_15_fortissimo_normal.mp3": "an empty file",
    "oboe_E6_15_mezzo-forte_normal.mp3": "holds the E2 of a French horn",
}


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    for recording in recordings:
        name = PurePosixPath(recording.path).name
        match = FILE_NAME.fullmatch(name)
        if match is None:
            need = "need file names like cello_A2_025_forte_arco-normal.mp3"
            yield Rejection(recording.path, f"not listed ({need})")
        elif name in DEFECTS:
            yield Rejection(recording.path, f"known defect ({DEFECTS[name]})")
        elif match["pitch"] is None:
            yield Clip(PurePosixPath(name).stem, recording.path)
        else:
            yield Clip(
                id=PurePosixPath(name).stem,
                path=recording.path,
                labels=(match["instrument"],),
                fold=(12 * int(match["octave"]) + SEMITONES[match["pitch"]]) % NUM_FOLDS + 1,
                group=match["pitch"] + match["octave"],
            )
