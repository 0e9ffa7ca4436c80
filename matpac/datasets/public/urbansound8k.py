"""UrbanSound8K: 8,732 city sounds of up to four seconds, 10 classes, one label each, ten folds.

Source   https://urbansounddataset.weebly.com/urbansound8k.html, https://zenodo.org/record/1203745
License  CC BY-NC (3.0 by the home page, 4.0 by others)
Cite     J. Salamon, C. Jacoby, J. P. Bello, "A Dataset and Taxonomy for Urban Sound Research", ACM
         MM 2014, doi:10.1145/2647868.2655045.
Layout   audio/fold{1..10}/{fsID}-{classID}-{occurrence}-{slice}.wav, with fsID the Freesound
         recording that it was cut from. WAV as people uploaded it: 8 to 192 kHz, integers of 8 to
         32 bits, floats and ADPCM, plain and extensible headers, mono and stereo.
         metadata/UrbanSound8K.csv: slice_file_name,fsID,start,end,salience,fold,classID,class.
Task     10 classes, accuracy. Most have 1,000 clips; siren 929, car_horn 429, gun_shot 374.
Split    Official: 10 folds of 806 to 990 clips. Do not divide the clips again, since slices of one
         recording are much alike. There is no official validation fold.
Defects  Five of the 1,297 Freesound recordings occur in more than one official fold. The folders
         hold stray files (.DS_Store). Some slices last 0.05 s, which is a few frames.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from matpac.clip import Clip, Rejection
from matpac.datasets.dataset_page import Archive, Page, base_of, rows_of_classes
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public

PAGE = Page(
    title="UrbanSound8K",
    license="CC BY-NC 3.0 or 4.0",
    citation="Salamon, Jacoby, Bello: A Dataset and Taxonomy for Urban Sound Research, ACM MM 2014",
    home="https://zenodo.org/record/1203745",
    archives=(
        Archive(
            (
                RemoteFile(
                    "UrbanSound8K.tar.gz",
                    (
                        "https://zenodo.org/record/1203745/files/UrbanSound8K.tar.gz?download=1",
                        "https://zenodo.org/api/records/1203745/files/UrbanSound8K.tar.gz/content",
                        "https://s3.amazonaws.com/pytorch-tutorial-assets/UrbanSound8K.tar.gz",
                    ),
                    "md5:9aa69802bbf37fb986f71ec1483a196e",
                ),
            )
        ),
    ),
    download_gb=6,
    num_recordings=8_732,
    num_clips=8_732,
    num_classes=10,
    num_folds=10,
    metric="accuracy",
)
# fmt: off
CLASSES = (
    "air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling", "engine_idling", "gun_shot",
    "jackhammer", "siren", "street_music",
)
# fmt: on
"""Classes in the order of `classID`."""
TABLE = "metadata/UrbanSound8K.csv"
COLUMNS = ("slice_file_name", "fsID", "fold", "classID", "class")


def tables(params: Public, root: Path) -> list[Path]:
    return [base_of(root, TABLE) / TABLE]


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    [table] = tables(params, root)
    named = rows_of_classes(table, COLUMNS, CLASSES, number="classID", name="class")
    audio = base_of(root, TABLE).relative_to(root) / "audio"
    rows = {(audio / f"fold{row['fold']}" / row["slice_file_name"]).as_posix(): row for row in named}
    for recording in recordings:
        row = rows.get(recording.path)
        if row is None:
            yield Rejection(recording.path, f"not listed (not in {TABLE})")
            continue
        yield Clip(
            id=row["slice_file_name"].removesuffix(".wav"),
            path=recording.path,
            labels=(row["class"],),
            fold=int(row["fold"]),
            group=row["fsID"],
        )
