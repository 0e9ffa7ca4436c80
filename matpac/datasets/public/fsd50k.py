"""FSD50K: 51,197 everyday sounds of 0.3 to 30 seconds, 200 classes, several labels each.

Source   https://zenodo.org/record/4060432
License  Collection CC BY 4.0. Each clip has its own: CC0, CC BY, CC BY-NC or Sampling+ (field
         license of FSD50K.metadata/{dev,eval}_clips_info_FSD50K.json).
Cite     E. Fonseca, X. Favory, J. Pons, F. Font, X. Serra, "FSD50K: An open dataset of
         human-labeled sound events", IEEE/ACM TASLP 30, 2022, doi:10.5281/zenodo.4060432.
Layout   FSD50K.dev_audio/{Freesound id}.wav (40,966), FSD50K.eval_audio/ (10,231); WAV, 16 bits,
         44.1 kHz, mono. FSD50K.ground_truth/: dev.csv (fname,labels,mids,split), eval.csv
         (fname,labels,mids) and vocabulary.csv (index,label,mid, without a header).
Task     200 classes, mean average precision. Labels are already carried up the ontology (a guitar
         is also a musical instrument).
Split    Official: train 36,796, val 4,170 (no uploader is in both), eval 10,231 (our test split).
Defects  Labels of dev are right but perhaps incomplete, those of eval exhaustive. A class without a
         label counts as absent in both, as in the literature.
"""

import csv
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from matpac.clip import Clip, Rejection, SplitName, Task
from matpac.datasets.dataset_page import Archive, Page, base_of
from matpac.datasets.inventory import Recording
from matpac.fetch.http import RemoteFile
from matpac.params import Public


def _remote(name: str, md5: str) -> RemoteFile:
    urls = (
        f"https://zenodo.org/record/4060432/files/{name}?download=1",
        f"https://zenodo.org/api/records/4060432/files/{name}/content",
    )
    return RemoteFile(name, urls, f"md5:{md5}")


PAGE = Page(
    title="FSD50K",
    license="CC BY 4.0; each clip its own: CC0, CC BY, CC BY-NC or Sampling+",
    citation="Fonseca, Favory, Pons, Font, Serra: FSD50K, IEEE/ACM TASLP 30, 2022",
    home="https://zenodo.org/record/4060432",
    archives=(
        Archive(
            (
                _remote("FSD50K.dev_audio.z01", "faa7cf4cc076fc34a44a479a5ed862a3"),
                _remote("FSD50K.dev_audio.z02", "8f9b66153e68571164fb1315d00bc7bc"),
                _remote("FSD50K.dev_audio.z03", "1196ef47d267a993d30fa98af54b7159"),
                _remote("FSD50K.dev_audio.z04", "d088ac4e11ba53daf9f7574c11cccac9"),
                _remote("FSD50K.dev_audio.z05", "81356521aa159accd3c35de22da28c7f"),
                _remote("FSD50K.dev_audio.zip", "c480d119b8f7a7e32fdb58f3ea4d6c5a"),
            )
        ),
        Archive(
            (
                _remote("FSD50K.eval_audio.z01", "3090670eaeecc013ca1ff84fe4442aeb"),
                _remote("FSD50K.eval_audio.zip", "6fa47636c3a3ad5c7dfeba99f2637982"),
            )
        ),
        Archive((_remote("FSD50K.ground_truth.zip", "ca27382c195e37d2269c4c866dd73485"),)),
        Archive((_remote("FSD50K.metadata.zip", "b9ea0c829a411c1d42adb9da539ed237"),)),
    ),
    download_gb=24,
    num_recordings=51_197,
    num_clips=51_197,
    num_classes=200,
    num_folds=None,
    metric="mAP",
)
DEV, EVAL, VOCABULARY = (f"FSD50K.ground_truth/{name}.csv" for name in ("dev", "eval", "vocabulary"))
SPLITS: dict[str, SplitName] = {"train": "train", "val": "validation"}
"""Our names for the values of the column `split` in dev.csv."""


def tables(params: Public, root: Path) -> list[Path]:
    base = base_of(root, DEV)
    return [base / name for name in (DEV, EVAL, VOCABULARY)]


def clips(params: Public, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    dev, eval_, _ = tables(params, root)
    listed = dict(_ground_truth(dev, "FSD50K.dev_audio")) | dict(_ground_truth(eval_, "FSD50K.eval_audio"))
    for recording in recordings:
        path = PurePosixPath(recording.path)
        truth = listed.pop("/".join(path.parts[-2:]), None)
        if truth is None:
            yield Rejection(recording.path, "not listed (in neither dev.csv nor eval.csv, or there twice)")
            continue
        labels, split = truth
        yield Clip(path.stem, recording.path, labels, split)


def task(params: Public, root: Path, labels: Collection[str], num_folds: int | None) -> Task | None:
    _, _, vocabulary = tables(params, root)
    with vocabulary.open(newline="", encoding="utf-8") as file:
        rows = sorted((int(index), label) for index, label, _ in csv.reader(file))
    return PAGE.task([label for _, label in rows])


def _ground_truth(table: Path, folder: str) -> Iterator[tuple[str, tuple[tuple[str, ...], SplitName]]]:
    """Path of each recording, with its labels and its split."""
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            split = SPLITS[row["split"]] if "split" in row else "test"
            yield f"{folder}/{row['fname']}.wav", (tuple(row["labels"].split(",")), split)
