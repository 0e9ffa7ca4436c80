"""fsdd and esc10: from paths alone, and on the real recordings where they are."""

from collections import Counter

import pytest

from matpac.datasets import esc10, fsdd
from matpac.datasets.clip import Clip
from matpac.datasets.recordings import content_digest, recordings_root, take_inventory
from matpac.params import Esc10, Fsdd

FSDD, ESC10 = Fsdd(kind="fsdd", source="."), Esc10(kind="esc10", source=".")


def test_fsdd_names_say_digit_speaker_and_split(tmp_path):
    paths = ["recordings/7_theo_4.wav", "7_theo_5.wav", "7_theo_10.wav"]
    clips = list(fsdd.clips(FSDD, tmp_path, paths))
    assert clips[0] == Clip("7_theo_4", paths[0], ("7",), split="test", group="theo")
    assert [clip.split for clip in clips] == ["test", "validation", "train"]
    with pytest.raises(ValueError, match=r"need file names like 7_jackson_32.wav"):
        list(fsdd.clips(FSDD, tmp_path, ["seven.wav"]))


def test_esc10_paths_say_class_fold_and_source(tmp_path):
    path = "009 - Rooster/3-100032-B.ogg"
    expected = Clip("3-100032-B", path, ("Rooster",), fold=3, group="100032")
    assert list(esc10.clips(ESC10, tmp_path, [path])) == [expected]
    for wrong in ("009 - Hen/3-100032-B.ogg", "009 - Rooster/6-1-A.ogg", "a.ogg"):
        with pytest.raises(ValueError, match="need paths like"):
            list(esc10.clips(ESC10, tmp_path, [wrong]))


def test_all_of_fsdd(audio_folder):
    params = Fsdd(kind="fsdd", source=str(audio_folder / "fsdd"))
    root = recordings_root("fsdd", params)
    inventory = take_inventory(root)
    assert len(inventory) == fsdd.ARCHIVE.num_recordings
    assert content_digest(inventory) == fsdd.ARCHIVE.content_digest

    clips = list(fsdd.clips(params, root, [recording.path for recording in inventory]))
    assert len({clip.id for clip in clips}) == 3_000
    assert Counter(clip.split for clip in clips) == {"train": 2_400, "validation": 300, "test": 300}
    assert set(Counter(clip.labels for clip in clips).values()) == {300}
    assert set(Counter(clip.group for clip in clips).values()) == {500}


def test_all_of_esc10(audio_folder):
    params = Esc10(kind="esc10", source=str(audio_folder / "esc10"))
    root = recordings_root("esc10", params)
    inventory = take_inventory(root)
    assert len(inventory) == esc10.ARCHIVE.num_recordings
    assert content_digest(inventory) == esc10.ARCHIVE.content_digest

    clips = list(esc10.clips(params, root, [recording.path for recording in inventory]))
    assert len({clip.id for clip in clips}) == 400
    assert set(Counter((clip.labels, clip.fold) for clip in clips).values()) == {8}
    folds_of_source = {clip.group: clip.fold for clip in clips}
    assert all(folds_of_source[clip.group] == clip.fold for clip in clips)
