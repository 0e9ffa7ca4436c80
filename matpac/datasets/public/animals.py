"""Animal sounds: 875 recordings of 10 animals, one hour in all, collected from the internet.

Source   https://github.com/YashNita/Animal-Sound-Dataset, commit 574b5e2d
License  Not stated by its makers.
Cite     E. Sasmaz and F. B. Tek, "Animal Sound Classification Using A Convolutional Neural
         Network", UBMK 2018, doi:10.1109/UBMK.2018.8566449.
Layout   {animal in Turkish}[-Part1, -Part2]/{name}_{number}.wav; WAV with samples of 8 or 16 bits,
         A-law or MP3, 8 to 48 kHz, mono or stereo, 0.2 to 40 s.
Task     10 animals, one label each, 25 to 200 clips, accuracy.
Split    Not official. Five folds by checksum: copies are in one fold.
Verified All 875 recordings, by name and checksum.
Defects  45 recordings are copies of others, also under other numbers.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from matpac.clip import Clip, Rejection
from matpac.datasets.dataset_page import Archive, Page
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public

REPOSITORY = "https://github.com/YashNita/Animal-Sound-Dataset"
COMMIT = "574b5e2d9b071f142b464bb7b43d6a736ebb0dac"
NUM_FOLDS = 5
PAGE = Page(
    title="Animal sounds",
    license="not stated by its makers",
    citation="Sasmaz and Tek: Animal Sound Classification Using A Convolutional Neural Network, UBMK 2018",
    home=REPOSITORY,
    archives=(Archive((RemoteFile("animal-sounds.zip", (f"{REPOSITORY}/archive/{COMMIT}.zip",), None),)),),
    download_gb=0.1,
    num_recordings=875,
    num_clips=875,
    num_classes=10,
    num_folds=NUM_FOLDS,
    metric="accuracy",
    official_split=False,
    content_digest="b6f7326af23b98b36cc259a7ff41d33265d0f6aa30d5b8286832105531bd1175",
)
ANIMALS = {
    "Aslan": "lion",
    "Esek": "donkey",
    "Inek": "cow",
    "Kedi": "cat",
    "Kopek": "dog",
    "Koyun": "sheep",
    "Kurbaga": "frog",
    "Kus": "bird",
    "Maymun": "monkey",
    "Tavuk": "chicken",
}
CLASSES = tuple(sorted(ANIMALS.values()))
PATH = re.compile(r"(.*/)?(?P<animal>[A-Z][a-z]+)(-Part[12])?/(?P<stem>[A-Za-z]+_\d+)\.(wav|WAV)")


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    for recording in recordings:
        match = PATH.fullmatch(recording.path)
        if match is None or match["animal"] not in ANIMALS:
            yield Rejection(recording.path, "not listed (need paths like Kedi-Part1/cat_32.wav)")
            continue
        # Without a checksum the recording is unreadable and gets into no shard.
        fold = int(recording.sha256 or "0", 16) % NUM_FOLDS + 1
        yield Clip(match["stem"], recording.path, (ANIMALS[match["animal"]],), fold=fold)
