import csv
import re
import shutil
from collections import Counter, defaultdict

import pytest
import soundfile

from matpac.clip import Clip, Rejection
from matpac.datasets.inventory import Recording, take_inventory
from matpac.datasets.public import esc50
from matpac.datasets.registry import READERS
from matpac.params import Public
from tests.datasets.public.miniatures import esc50 as miniature

PARAMS = Public(kind="esc50", source=".")
HEADER = "filename,fold,target,category,esc10,src_file,take\n"


def recording(path):
    return Recording(path, 1, "0" * 64, path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("esc50")
    archives = miniature.make(folder)
    assert list(archives) == [part.name for archive in esc50.PAGE.archives for part in archive.parts]
    for archive in archives.values():
        shutil.unpack_archive(archive, folder / "unpacked")
    return folder / "unpacked"


def with_table(root, text):
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text(text)
    return root


def test_labels_folds_and_sources_come_from_the_table(root):
    recordings = list(take_inventory(root))
    clips = list(esc50.clips(PARAMS, root, recordings))
    path = "ESC-50-master/audio/1-100100-A-0.wav"
    assert clips[0] == Clip("1-100100-A-0", path, ("dog",), fold=1, group="100100")
    assert [clip.path for clip in clips] == [recording.path for recording in recordings]
    assert Counter((clip.fold, *clip.labels) for clip in clips) == {
        (fold, name): 3 for fold in range(1, 6) for name in ("dog", "rain")
    }
    assert len(clips) == miniature.NUM_CLIPS


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_the_source_may_be_the_top_folder_or_a_folder_around_it(root, levels):
    pointed_at = [root / "ESC-50-master", root, root.parent][levels]
    recordings = list(take_inventory(pointed_at))
    clips = list(esc50.clips(PARAMS, pointed_at, recordings))
    assert [clip.path for clip in clips] == [recording.path for recording in recordings]
    assert esc50.tables(PARAMS, pointed_at) == [root / "ESC-50-master" / "meta" / "esc50.csv"]


def test_strays_and_second_copies_are_not_listed(tmp_path):
    root = with_table(tmp_path, HEADER + "1-7-A-0.wav,1,0,dog,True,7,A\n1-7-B-0.wav,1,0,dog,True,7,B\n")
    paths = ["audio/1-7-A-0.wav", "audio/1-8-A-0.wav", "audio_16k/1-7-A-0.wav", "backup/audio/1-7-A-0.wav"]
    clip, *strays = esc50.clips(PARAMS, root, map(recording, paths))
    assert clip.path == paths[0]
    assert strays == [Rejection(path, "not listed (not in meta/esc50.csv)") for path in paths[1:]]
    # A row without its recording is no error; this copy lacks one.


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        (HEADER + "1-7-A-0.wav,1,0,cat,True,7,A\n", "need the official classes, found target 0 named 'cat'"),
        (HEADER + "1-7-A-50.wav,1,50,dog,True,7,A\n", "found target 50 named 'dog'"),
        (HEADER + "1-7-A-0.wav,1\n", "found target None named None"),
        ("file,fold\n", "need columns filename, fold, .*, found file, fold"),
        ("", "found nothing"),
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path, text, needed):
    root = with_table(tmp_path, text)
    with pytest.raises(ValueError, match=needed):
        list(esc50.clips(PARAMS, root, []))


def test_a_folder_without_the_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"need meta/esc50.csv, as in the official layout, found none"):
        list(esc50.clips(PARAMS, tmp_path, []))


def test_the_task_has_all_classes_and_folds_whatever_occurs(root):
    task = READERS["esc50"].task(PARAMS, root, {"rain", "dog"}, 2)
    assert (len(task.classes), task.num_folds, task.metric) == (50, 5, "accuracy")
    assert [task.classes[target] for target in miniature.CLASSES] == ["dog", "rain"]


def test_the_official_list(splits_folder, tmp_path):
    text = (splits_folder / "esc50" / "esc50.csv").read_text()
    root = with_table(tmp_path, text)
    rows = list(csv.DictReader(text.splitlines()))
    clips = list(esc50.clips(PARAMS, root, (recording(f"audio/{row['filename']}") for row in rows)))

    assert len({clip.id for clip in clips}) == len(clips) == esc50.PAGE.num_clips
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", clip.id) for clip in clips)
    assert [(clip.fold, clip.labels[0], clip.group) for clip in clips] == [
        (int(row["fold"]), row["category"], row["src_file"]) for row in rows
    ]
    assert set(Counter((clip.fold, clip.labels) for clip in clips).values()) == {8}
    by_target = {int(row["target"]): row["category"] for row in rows}
    assert tuple(by_target[target] for target in range(50)) == esc50.CLASSES

    folds = defaultdict(set)
    for clip in clips:
        folds[clip.group].add(clip.fold)
    in_two = {group for group, found in folds.items() if len(found) > 1}
    assert in_two == {"131943", "134049", "209698", "234879"}


def test_the_real_esc10_laid_out_as_esc50(audio_folder, tmp_path):
    with (audio_folder / "esc10" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = [
        f"{row['esc50_filename']},{row['fold']},{row['esc50_target']},"
        f"{esc50.CLASSES[int(row['esc50_target'])]},True,{row['src_file']},{row['take']}\n"
        for row in rows
    ]
    root = with_table(tmp_path, HEADER + "".join(table))
    (root / "audio").mkdir()
    for row in rows:
        shutil.copyfile(audio_folder / "esc10" / row["path"], root / "audio" / row["esc50_filename"])

    recordings = list(take_inventory(root))
    clips = {clip.path: clip for clip in esc50.clips(PARAMS, root, recordings)}
    assert len(clips) == len(recordings) == 400
    for row in rows:
        clip = clips[f"audio/{row['esc50_filename']}"]
        assert (clip.fold, clip.group) == (int(row["fold"]), row["src_file"])
    assert set(Counter((clip.labels, clip.fold) for clip in clips.values()).values()) == {8}
    assert len({clip.labels for clip in clips.values()}) == 10
    # Vorbis under a name that ends in .wav: what counts is the content.
    assert soundfile.info(root / recordings[0].path).format == "OGG"
