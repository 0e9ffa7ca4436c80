"""NSynth: 305,979 notes of four seconds by 1,006 instruments; here classified by 11 families.

Source   https://magenta.tensorflow.org/datasets/nsynth
License  CC BY 4.0
Cite     J. Engel, C. Resnick, A. Roberts, S. Dieleman, M. Norouzi, D. Eck, K. Simonyan, "Neural
         Audio Synthesis of Musical Notes with WaveNet Autoencoders", ICML 2017.
Layout   nsynth-{train,valid,test}/audio/{note}.wav; WAV, 16 bits, 16 kHz, mono, 4 s. A note is
         called {family}_{source}_{number}-{pitch}-{velocity}, as in
         synth_lead_synthetic_003-060-100. Family and instrument come from this name. examples.json
         beside the audio says the same in one JSON object of hundreds of megabytes, and is not
         needed.
Task     Instrument family, 11 classes, accuracy. Indices are those of `instrument_family` in
         examples.json.
Split    Official: train 289,205, valid 12,678, test 4,096. No instrument of train is in valid or
         test.
Defects  synth_lead has no test notes. It keeps its index, and accuracy is over the ten others.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from matpac.clip import Clip, Rejection, SplitName
from matpac.datasets.dataset_page import Archive, Page, base_of
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public

HOSTS = (
    "http://download.magenta.tensorflow.org/datasets/nsynth",
    "https://storage.googleapis.com/magentadata/datasets/nsynth",
)


def _archive(split: str, md5: str) -> Archive:
    name = f"nsynth-{split}.jsonwav.tar.gz"
    return Archive((RemoteFile(name, tuple(f"{host}/{name}" for host in HOSTS), f"md5:{md5}"),))


PAGE = Page(
    title="NSynth, instrument families",
    license="CC BY 4.0",
    citation="Engel et al.: Neural Audio Synthesis of Musical Notes with WaveNet Autoencoders, ICML 2017",
    home="https://magenta.tensorflow.org/datasets/nsynth",
    archives=(
        _archive("train", "fde6665a93865503ba598b9fac388660"),
        _archive("valid", "87e94a00a19b6dbc99cf6d4c0c0cae87"),
        _archive("test", "5e6f8719bf7e16ad0a00d518b78af77d"),
    ),
    download_gb=25.2,
    num_recordings=305_979,
    num_clips=305_979,
    num_classes=11,
    num_folds=None,
    metric="accuracy",
)
# fmt: off
CLASSES = (
    "bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead",
    "vocal",
)
# fmt: on
SPLITS: dict[str, SplitName] = {"nsynth-train": "train", "nsynth-valid": "validation", "nsynth-test": "test"}
NOTE = re.compile(
    rf"(?P<instrument>(?P<family>{'|'.join(CLASSES)})_(?:acoustic|electronic|synthetic)_\d{{3}})-\d{{3}}-\d{{3}}"
)


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    splits = _folders(root)
    for recording in recordings:
        folder, _, name = recording.path.rpartition("/")
        note = NOTE.fullmatch(name.removesuffix(".wav"))
        if folder not in splits or note is None:
            yield Rejection(recording.path, "not listed (no note in the audio folder of a split)")
            continue
        yield Clip(
            id=note[0],
            path=recording.path,
            labels=(note["family"],),
            split=splits[folder],
            group=note["instrument"],
        )


def _folders(root: Path) -> dict[str, SplitName]:
    """Folder of each split's notes, relative to the root. Raises ValueError if there is none."""
    folders = {}
    for name, split in SPLITS.items():
        with suppress(ValueError):  # A copy may lack a split.
            folder = base_of(root, f"{name}/audio") / name / "audio"
            folders[folder.relative_to(root).as_posix()] = split
    if not folders:
        raise ValueError(f"{root}: need {' or '.join(SPLITS)}, as in the official layout, found none")
    return folders
