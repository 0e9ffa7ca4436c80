import shutil
import subprocess
import zipfile
from collections import Counter

import pytest

from matpac.clip import Clip, Rejection
from matpac.datasets.inventory import Recording
from matpac.datasets.public import fsd50k
from matpac.fetch.archive import unpack
from matpac.params import Public
from tests.datasets.public.miniatures import fsd50k as miniature

PARAMS = Public(kind="fsd50k", source=".")


def recording(path):
    return Recording(path, 1, "0" * 64, path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsd50k")
    files = miniature.make(folder)
    assert list(files) == [part.name for archive in fsd50k.PAGE.archives for part in archive.parts]
    for archive in fsd50k.PAGE.archives:
        unpack([files[part.name] for part in archive.parts], folder / "set")
    return folder / "set"


@pytest.fixture(scope="module")
def recordings(root):
    return [recording(path.relative_to(root).as_posix()) for path in sorted(root.rglob("*.wav"))]


def test_labels_and_splits_come_from_the_ground_truth(root, recordings):
    clips = {clip.id: clip for clip in fsd50k.clips(PARAMS, root, recordings)}
    assert clips["100"] == Clip("100", "FSD50K.dev_audio/100.wav", ("Meow", "Cat"), split="train")
    assert clips["300"] == Clip("300", "FSD50K.eval_audio/300.wav", ("Bark", "Dog"), split="test")
    assert len(clips) == miniature.NUM_CLIPS
    assert Counter(clip.split for clip in clips.values()) == {"train": 12, "validation": 12, "test": 12}


def test_strays_and_second_copies_are_not_listed(root, recordings):
    strays = ["FSD50K.eval_audio/100.wav", "FSD50K.dev_audio/7.wav", "copy/FSD50K.dev_audio/100.wav"]
    found = list(fsd50k.clips(PARAMS, root, [*recordings, *map(recording, strays)]))
    reason = "not listed (in neither dev.csv nor eval.csv, or there twice)"
    assert found[-3:] == [Rejection(path, reason) for path in strays]


def test_the_task_has_all_classes_of_the_vocabulary(root):
    task = fsd50k.task(PARAMS, root, {"Bark"}, None)
    assert task.classes == tuple(miniature.VOCABULARY)
    assert (task.multi_label, task.metric, task.num_folds) == (True, "mAP", None)


@pytest.mark.skipif(shutil.which("zip") is None, reason="no Info-ZIP")
def test_our_split_zip_is_one_to_info_zip(root, tmp_path):
    shutil.copytree(root / "FSD50K.eval_audio", tmp_path / "set")
    miniature.write_split_zip(tmp_path, "set", part_bytes=100_000)
    assert len(list(tmp_path.glob("set.z*"))) == 4
    join = ["zip", "-q", "-s", "0", "set.zip", "--out", "joined.zip"]
    subprocess.run(join, cwd=tmp_path, check=True)
    with zipfile.ZipFile(tmp_path / "joined.zip") as archive:
        for path in sorted((tmp_path / "set").iterdir()):
            assert archive.read(f"set/{path.name}") == path.read_bytes()


def test_the_official_lists(splits_folder):
    root = splits_folder / "fsd50k"
    dev, eval_, _ = fsd50k.tables(PARAMS, root)
    paths = [
        f"FSD50K.{part}_audio/{line.partition(',')[0]}.wav"
        for part, table in (("dev", dev), ("eval", eval_))
        for line in table.read_text().splitlines()[1:]
    ]
    clips = list(fsd50k.clips(PARAMS, root, map(recording, paths)))
    assert len({clip.id for clip in clips}) == fsd50k.PAGE.num_clips
    assert Counter(clip.split for clip in clips) == {"train": 36_796, "validation": 4_170, "test": 10_231}
    assert sum(len(clip.labels) for clip in clips if clip.split != "test") == 114_271
    assert sum(len(clip.labels) for clip in clips if clip.split == "test") == 38_596
    classes = fsd50k.task(PARAMS, root, set(), None).classes
    assert list(classes) == sorted({label for clip in clips for label in clip.labels})
    assert len(classes) == fsd50k.PAGE.num_classes
