"""ESC-50: 2,000 environmental sounds of five seconds, 50 classes, one label each, five folds.

Source   https://github.com/karolpiczak/ESC-50 (formerly karoldvl/ESC-50)
License  CC BY-NC 3.0; the subset ESC-10 CC BY 3.0. So meta/esc50.csv is read from the download.
Cite     K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM MM 2015,
         doi:10.1145/2733373.2806390.
Layout   audio/{fold}-{Freesound id}-{take}-{target}.wav; WAV, 16 bits, 44.1 kHz, mono, 5 s.
         meta/esc50.csv: filename,fold,target,category,esc10,src_file,take.
Task     50 classes, 40 clips each, accuracy. The index of a class is the column `target`.
Split    Official: 5 folds of 400 clips, 8 of each class in each fold. There is no official
         validation fold. All takes of one Freesound recording are in one fold, except those below.
Checksum The archive is of a branch, and its host may pack it into other bytes tomorrow (md5 was
         once 7771e4b9d86d0945acce719c7a59305a). So the number of recordings is checked instead.
Defects  Short sounds are padded to five seconds with digital silence, the logarithm of 0. Four
         Freesound recordings serve two classes each, in two folds (131943, 134049, 209698, 234879).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from matpac.clip import Clip, Rejection
from matpac.datasets.dataset_page import Archive, Page, base_of, rows_of_classes
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public

PAGE = Page(
    title="ESC-50",
    license="CC BY-NC 3.0",
    citation="Piczak: ESC: Dataset for Environmental Sound Classification, ACM MM 2015",
    home="https://github.com/karolpiczak/ESC-50",
    archives=(
        Archive(
            (
                RemoteFile(
                    "ESC-50-master.zip",
                    (
                        "https://github.com/karolpiczak/ESC-50/archive/master.zip",
                        "https://github.com/karoldvl/ESC-50/archive/master.zip",
                    ),
                    checksum=None,
                ),
            )
        ),
    ),
    download_gb=0.6,
    num_recordings=2_000,
    num_clips=2_000,
    num_classes=50,
    num_folds=5,
    metric="accuracy",
)
# fmt: off
CLASSES = (
    "dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow",
    "rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds", "water_drops", "wind",
    "pouring_water", "toilet_flush", "thunderstorm",
    "crying_baby", "sneezing", "clapping", "breathing", "coughing", "footsteps", "laughing", "brushing_teeth",
    "snoring", "drinking_sipping",
    "door_wood_knock", "mouse_click", "keyboard_typing", "door_wood_creaks", "can_opening", "washing_machine",
    "vacuum_cleaner", "clock_alarm", "clock_tick", "glass_breaking",
    "helicopter", "chainsaw", "siren", "car_horn", "engine", "train", "church_bells", "airplane", "fireworks",
    "hand_saw",
)
# fmt: on
"""Classes in the order of `target`, by major category: animals, nature, humans, indoors,
outdoors."""
TABLE = "meta/esc50.csv"
COLUMNS = ("filename", "fold", "target", "category", "src_file")


def tables(params: Public, root: Path) -> list[Path]:
    return [base_of(root, TABLE) / TABLE]


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    [table] = tables(params, root)
    named = rows_of_classes(table, COLUMNS, CLASSES, number="target", name="category")
    audio = base_of(root, TABLE).relative_to(root) / "audio"
    rows = {(audio / row["filename"]).as_posix(): row for row in named}
    for recording in recordings:
        row = rows.get(recording.path)
        if row is None:
            yield Rejection(recording.path, f"not listed (not in {TABLE})")
            continue
        yield Clip(
            id=row["filename"].removesuffix(".wav"),
            path=recording.path,
            labels=(row["category"],),
            fold=int(row["fold"]),
            group=row["src_file"],
        )
