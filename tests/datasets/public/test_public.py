"""fsdd and esc10: from paths alone, and on the real recordings where they are."""

from collections import Counter
from dataclasses import replace

from matpac.clip import Clip, Rejection, phrase_of
from matpac.datasets.inventory import Recording, content_digest, take_inventory
from matpac.datasets.public import esc10, fsdd
from matpac.params import Esc10, Fsdd

FSDD, ESC10 = Fsdd(kind="fsdd", source="."), Esc10(kind="esc10", source=".")


def recordings(*paths):
    return [Recording(path, 1, "0" * 64, path) for path in paths]


def test_fsdd_names_say_digit_speaker_and_split(tmp_path):
    paths = ["recordings/7_theo_4.wav", "7_theo_5.wav", "7_theo_10.wav", "seven.wav"]
    *clips, stray = fsdd.clips(FSDD, tmp_path, recordings(*paths))
    assert clips[0] == Clip("7_theo_4", paths[0], ("7",), split="test", group="theo")
    assert [clip.split for clip in clips] == ["test", "validation", "train"]
    assert isinstance(stray, Rejection)
    assert (stray.path, phrase_of(stray.reason)) == ("seven.wav", "not listed")


def test_esc10_paths_say_class_fold_and_source(tmp_path):
    path = "009 - Rooster/3-100032-B.ogg"
    expected = Clip("3-100032-B", path, ("Rooster",), fold=3, group="100032")
    for below in ("", "ESC-10-master/"):
        assert list(esc10.clips(ESC10, tmp_path, recordings(below + path))) == [
            replace(expected, path=below + path)
        ]
    for wrong in ("009 - Hen/3-100032-B.ogg", "009 - Rooster/6-1-A.ogg", "a.ogg"):
        [stray] = esc10.clips(ESC10, tmp_path, recordings(wrong))
        assert isinstance(stray, Rejection)
        assert (stray.path, phrase_of(stray.reason)) == (wrong, "not listed")


def test_all_of_fsdd(audio_folder):
    root = audio_folder / "fsdd"
    inventory = list(take_inventory(root))
    assert len(inventory) == fsdd.PAGE.num_recordings
    assert content_digest(inventory) == fsdd.PAGE.content_digest

    clips = list(fsdd.clips(FSDD, root, inventory))
    assert len({clip.id for clip in clips}) == fsdd.PAGE.num_clips
    assert Counter(clip.split for clip in clips) == {"train": 2_400, "validation": 300, "test": 300}
    assert set(Counter(clip.labels for clip in clips).values()) == {300}
    assert set(Counter(clip.group for clip in clips).values()) == {500}
    assert {label for clip in clips for label in clip.labels} == set(fsdd.task(FSDD, root, (), None).classes)


def test_all_of_esc10(audio_folder):
    root = audio_folder / "esc10"
    inventory = list(take_inventory(root))
    assert len(inventory) == esc10.PAGE.num_recordings
    assert content_digest(inventory) == esc10.PAGE.content_digest

    clips = list(esc10.clips(ESC10, root, inventory))
    assert len({clip.id for clip in clips}) == esc10.PAGE.num_clips
    assert set(Counter((clip.labels, clip.fold) for clip in clips).values()) == {8}
    folds_of_source = {clip.group: clip.fold for clip in clips}
    assert all(folds_of_source[clip.group] == clip.fold for clip in clips)
    task = esc10.task(ESC10, root, (), 5)
    assert {label for clip in clips for label in clip.labels} == set(task.classes)
    assert len(task.classes) == esc10.PAGE.num_classes
