"""GTZAN, fault-filtered: 930 of 1,000 excerpts of music, 30 seconds, 10 genres, one label each.

Source   http://marsyas.info/downloads/datasets.html; its download has been dead since October 2022.
         Copies at https://huggingface.co/datasets/marsyas/gtzan and in the Internet Archive.
License  None stated for the recordings. The lists of the split: MIT (gtzan_filtered.csv).
Cite     G. Tzanetakis, P. Cook, "Musical genre classification of audio signals", IEEE TSAP 10(5),
         2002. Filter: C. Kereliuk, B. L. Sturm, J. Larsen, "Deep Learning and Music Adversaries",
         IEEE TMM 17(11), 2015, after B. L. Sturm, "The GTZAN dataset: Its contents, its faults,
         ...", arXiv:1306.1461.
Layout   {genre}/{genre}.{00000..00099}.wav; WAV, 16 bits, 22.05 kHz, mono, 30 s. Very old copies
         end in .au.
Task     10 genres, accuracy.
Split    The fault-filtered lists of the literature: train 443, valid 197, test 290. 70 of the 1,000
         recordings are in no list (repetitions, wrong genres, distortions). The filter changes no
         label. gtzan_filtered.csv has the lists in their order.
Checksum The original archive has md5 5b3d6dddb579ab49814ab86dba69e7c7 (sha256 24347e02...). Copies
         may be packed again into other bytes, so the number of recordings is checked instead.
Defects  jazz.00054.wav, of the train list, is unreadable in current copies: empty, cut off, or
         without the first bytes of a WAV file. Without these bytes it is left out as a known
         defect, and 442 clips train (929 in all). Otherwise it is treated like every other
         recording: used, or rejected as unreadable. Some copies have a hidden ._{name} beside every
         recording, which is never read.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from matpac.clip import Clip, Rejection, SplitName
from matpac.datasets.dataset_page import Archive, Page
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public

PAGE = Page(
    title="GTZAN (fault-filtered)",
    license="none stated",
    citation="Tzanetakis, Cook: Musical genre classification of audio signals, IEEE TSAP 10(5), 2002",
    home="http://marsyas.info/downloads/datasets.html",
    archives=(
        Archive(
            (
                RemoteFile(
                    "genres.tar.gz",
                    (
                        "https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data/genres.tar.gz",
                        "https://web.archive.org/web/20211207012050/http://opihi.cs.uvic.ca/sound/genres.tar.gz",
                    ),
                    checksum=None,
                ),
            )
        ),
    ),
    download_gb=1.2,
    num_recordings=1_000,
    num_clips=930,
    num_classes=10,
    num_folds=None,
    metric="accuracy",
)
CLASSES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
LISTS = Path(__file__).with_name("gtzan_filtered.csv")
SPLITS: dict[str, SplitName] = {"train": "train", "valid": "validation", "test": "test"}
SUFFIXES = (".wav", ".au")
BROKEN = "jazz/jazz.00054"
FIRST_BYTES = (b"RIFF", b".snd")
"""First bytes of WAV and of .au files."""


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    splits = {
        PurePosixPath(path).with_suffix("").as_posix(): split for path, split in fault_filtered().items()
    }
    for recording in recordings:
        path = PurePosixPath(recording.path)
        genre, name = path.parent.name, f"{path.parent.name}/{path.stem}"
        split = splits.pop(name, None) if path.suffix in SUFFIXES else None
        if split is None:
            yield Rejection(
                recording.path, "not listed (in none of the fault-filtered lists, or there twice)"
            )
        elif name == BROKEN and not _begins_as_audio(root / recording.path):
            yield Rejection(recording.path, "known defect (empty, or not a WAV file, in current copies)")
        else:
            yield Clip(path.stem.replace(".", "_"), recording.path, (genre,), split)


def fault_filtered() -> dict[str, SplitName]:
    """Split of each listed recording (`blues/blues.00029.wav`), in the order of the lists."""
    with LISTS.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["path"]: SPLITS[row["split"]] for row in rows}


def _begins_as_audio(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in FIRST_BYTES
    except OSError:
        return True  # Not the known defect: reading it later finds and counts the error.
