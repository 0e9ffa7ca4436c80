from collections import Counter
from dataclasses import replace

from matpac.clip import Clip, Rejection, phrase_of
from matpac.datasets.inventory import Recording, content_digest, take_inventory
from matpac.datasets.public import esc10
from matpac.params import Public

PARAMS = Public(kind="esc10", source=".")


def recordings(*paths):
    return [Recording(path, 1, "0" * 64, path) for path in paths]


def test_esc10_paths_say_class_fold_and_source(tmp_path):
    path = "009 - Rooster/3-100032-B.ogg"
    expected = Clip("3-100032-B", path, ("Rooster",), fold=3, group="100032")
    for below in ("", "ESC-10-master/"):
        assert list(esc10.clips(PARAMS, tmp_path, recordings(below + path))) == [
            replace(expected, path=below + path)
        ]
    for wrong in ("009 - Hen/3-100032-B.ogg", "009 - Rooster/6-1-A.ogg", "a.ogg"):
        [stray] = esc10.clips(PARAMS, tmp_path, recordings(wrong))
        assert isinstance(stray, Rejection)
        assert (stray.path, phrase_of(stray.reason)) == (wrong, "not listed")


def test_all_of_esc10(audio_folder):
    root = audio_folder / "esc10"
    inventory = list(take_inventory(root))
    assert len(inventory) == esc10.PAGE.num_recordings
    assert content_digest(inventory) == esc10.PAGE.content_digest

    clips = list(esc10.clips(PARAMS, root, inventory))
    assert len({clip.id for clip in clips}) == esc10.PAGE.num_clips
    assert set(Counter((clip.labels, clip.fold) for clip in clips).values()) == {8}
    folds_of_source = {clip.group: clip.fold for clip in clips}
    assert all(folds_of_source[clip.group] == clip.fold for clip in clips)
    assert {label for clip in clips for label in clip.labels} == set(esc10.CLASSES)
    assert len(esc10.CLASSES) == esc10.PAGE.num_classes
