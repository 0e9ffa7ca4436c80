import shutil
from collections import Counter

import pytest
import soundfile

from matpac.clip import Clip, Rejection
from matpac.datasets.inventory import Recording, take_inventory
from matpac.datasets.public import urbansound8k
from matpac.datasets.registry import READERS
from matpac.params import Public
from tests.datasets.public.miniatures import urbansound8k as miniature

PARAMS = Public(kind="urbansound8k", source=".")
HEADER = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
STRAY = "UrbanSound8K/audio/fold1/99999-4-0-0.wav"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("urbansound8k")
    archives = miniature.make(folder)
    assert list(archives) == [part.name for archive in urbansound8k.PAGE.archives for part in archive.parts]
    for archive in archives.values():
        shutil.unpack_archive(archive, folder / "unpacked", filter="data")
    return folder / "unpacked"


@pytest.fixture(scope="module")
def recordings(root):
    return list(take_inventory(root))


def with_table(root, text):
    (root / "metadata").mkdir()
    (root / "metadata" / "UrbanSound8K.csv").write_text(text)
    return root


def test_labels_folds_and_sources_come_from_the_table(root, recordings):
    found = list(urbansound8k.clips(PARAMS, root, recordings))
    assert len(recordings) == miniature.NUM_RECORDINGS
    assert [item.path for item in found] == [recording.path for recording in recordings]

    clips = {item.id: item for item in found if isinstance(item, Clip)}
    path = "UrbanSound8K/audio/fold3/20308-8-0-2.wav"
    assert clips["20308-8-0-2"] == Clip("20308-8-0-2", path, ("siren",), fold=3, group="20308")
    assert Counter((clip.fold, *clip.labels) for clip in clips.values()) == {
        (fold, name): 3 for fold in range(1, 11) for name in ("drilling", "siren")
    }
    assert len(clips) == miniature.NUM_CLIPS


def test_strays_are_not_listed(root, recordings):
    found = urbansound8k.clips(PARAMS, root, recordings)
    rejections = [item for item in found if isinstance(item, Rejection)]
    assert rejections == [Rejection(STRAY, "not listed (not in metadata/UrbanSound8K.csv)")]


def test_a_slice_in_another_fold_than_the_tables_is_not_listed(tmp_path):
    root = with_table(tmp_path, HEADER + "7-3-0-0.wav,7,0,1,1,10,3,dog_bark\n")
    paths = ["audio/fold1/7-3-0-0.wav", "audio/fold10/7-3-0-0.wav"]
    wrong, right = urbansound8k.clips(PARAMS, root, (Recording(path, 1, "0" * 64, path) for path in paths))
    assert isinstance(wrong, Rejection)
    assert right == Clip("7-3-0-0", paths[1], ("dog_bark",), fold=10, group="7")


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        (HEADER + "7-3-0-0.wav,7,0,1,1,10,3,siren\n", "found classID 3 named 'siren'"),
        (HEADER + "7-10-0-0.wav,7,0,1,1,10,10,siren\n", "found classID 10 named 'siren'"),
        ("slice_file_name,fold\n", "need columns slice_file_name, fsID, .*, found slice_file_name, fold"),
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path, text, needed):
    root = with_table(tmp_path, text)
    with pytest.raises(ValueError, match=needed):
        list(urbansound8k.clips(PARAMS, root, []))


def test_the_task_has_all_classes_and_folds_in_the_order_of_class_id(root):
    task = READERS["urbansound8k"].task(PARAMS, root, {"siren", "drilling"}, 2)
    assert (len(task.classes), task.num_folds, task.metric) == (10, 10, "accuracy")
    assert [task.classes[index] for index in miniature.CLASSES] == ["drilling", "siren"]
    # classID is in alphabetical order.
    assert list(task.classes) == sorted(task.classes)


def test_the_miniature_has_every_format_that_the_dataset_has(root, recordings):
    infos = [soundfile.info(root / recording.path) for recording in recordings]
    assert {info.samplerate for info in infos} == set(miniature.RATES_HZ)
    assert {(info.subtype, info.format) for info in infos} == set(miniature.FORMATS)
    assert {info.channels for info in infos} == {1, 2}
    assert min(info.duration for info in infos) == pytest.approx(0.05)
