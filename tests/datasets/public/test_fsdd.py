from collections import Counter

from matpac.clip import Clip, Rejection, phrase_of
from matpac.datasets.inventory import Recording, content_digest, take_inventory
from matpac.datasets.public import fsdd
from matpac.params import Public

PARAMS = Public(kind="fsdd", source=".")


def recordings(*paths):
    return [Recording(path, 1, "0" * 64, path) for path in paths]


def test_fsdd_names_say_digit_speaker_and_split(tmp_path):
    paths = ["recordings/7_theo_4.wav", "7_theo_5.wav", "7_theo_10.wav", "seven.wav"]
    *clips, stray = fsdd.clips(PARAMS, tmp_path, recordings(*paths))
    assert clips[0] == Clip("7_theo_4", paths[0], ("7",), split="test", group="theo")
    assert [clip.split for clip in clips] == ["test", "validation", "train"]
    assert isinstance(stray, Rejection)
    assert (stray.path, phrase_of(stray.reason)) == ("seven.wav", "not listed")


def test_all_of_fsdd(audio_folder):
    root = audio_folder / "fsdd"
    inventory = list(take_inventory(root))
    assert len(inventory) == fsdd.PAGE.num_recordings
    assert content_digest(inventory) == fsdd.PAGE.content_digest

    clips = list(fsdd.clips(PARAMS, root, inventory))
    assert len({clip.id for clip in clips}) == fsdd.PAGE.num_clips
    assert Counter(clip.split for clip in clips) == {"train": 2_400, "validation": 300, "test": 300}
    assert set(Counter(clip.labels for clip in clips).values()) == {300}
    assert set(Counter(clip.group for clip in clips).values()) == {500}
    assert {label for clip in clips for label in clip.labels} == set(fsdd.CLASSES)
