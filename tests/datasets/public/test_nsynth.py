import shutil
from collections import Counter

import pytest

from matpac.clip import Clip, Rejection
from matpac.datasets.inventory import Recording, take_inventory
from matpac.datasets.public import nsynth
from matpac.datasets.registry import READERS
from matpac.files import read_json
from matpac.params import Public
from tests.datasets.public.miniatures import nsynth as miniature

PARAMS = Public(kind="nsynth", source=".")
NOT_LISTED = "not listed (no note in the audio folder of a split)"


def read(root, paths):
    return list(nsynth.clips(PARAMS, root, (Recording(path, 1, "0" * 64, path) for path in paths)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nsynth")
    archives = miniature.make(folder)
    assert list(archives) == [part.name for archive in nsynth.PAGE.archives for part in archive.parts]
    for archive in archives.values():
        shutil.unpack_archive(archive, folder / "unpacked", filter="data")
    return folder / "unpacked"


def test_the_name_of_a_note_says_family_and_instrument_and_its_folder_the_split(root):
    recordings = list(take_inventory(root))
    clips = {clip.id: clip for clip in nsynth.clips(PARAMS, root, recordings)}
    note = "synth_lead_synthetic_011-060-075"
    assert clips[note] == Clip(
        note,
        f"nsynth-valid/audio/{note}.wav",
        ("synth_lead",),
        "validation",
        group="synth_lead_synthetic_011",
    )
    assert len(clips) == len(recordings) == miniature.NUM_CLIPS
    families = {"train": ("bass", "reed", "synth_lead"), "test": ("bass", "reed")}
    families["validation"] = families["train"]
    assert Counter((clip.split, *clip.labels) for clip in clips.values()) == {
        (split, family): 3 for split, found in families.items() for family in found
    }


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_names_say_what_examples_json_says(root, split):
    notes = read_json(root / f"nsynth-{split}" / "examples.json")
    clips = read(root, [f"nsynth-{split}/audio/{note}.wav" for note in notes])
    assert_as_in_examples(root, clips, notes)


def test_real_notes(audio_folder):
    root = audio_folder / "nsynth-test-mini"
    notes = read_json(root / "nsynth-test" / "examples.json")
    clips = list(nsynth.clips(PARAMS, root, take_inventory(root)))
    assert len(clips) == len(notes) == 27
    assert {clip.split for clip in clips} == {"test"}
    assert_as_in_examples(root, clips, notes)


def assert_as_in_examples(root, clips, notes):
    task = READERS["nsynth"].task(PARAMS, root, {"bass"}, None)
    for clip in clips:
        note = notes[clip.id]
        assert clip.labels == (note["instrument_family_str"],)
        assert task.classes.index(clip.labels[0]) == note["instrument_family"]
        assert clip.group == note["instrument_str"]


def test_the_task_has_eleven_families_although_one_is_never_tested(root):
    task = READERS["nsynth"].task(PARAMS, root, {"bass", "reed"}, None)
    assert (len(task.classes), task.num_folds, task.metric) == (11, None, "accuracy")
    assert task.classes[9] == "synth_lead"


def test_archives_may_be_unpacked_apart_and_a_split_may_lack(root, tmp_path):
    shutil.copytree(root / "nsynth-test", tmp_path / "a" / "nsynth-test")
    shutil.copytree(root / "nsynth-valid", tmp_path / "b" / "nsynth-valid")
    clips = list(nsynth.clips(PARAMS, tmp_path, take_inventory(tmp_path)))
    assert Counter(clip.split for clip in clips) == {"test": 6, "validation": 9}


def test_strays_and_second_copies_are_not_listed(root):
    note = "bass_synthetic_098-060-075"
    clip, *strays = read(
        root,
        paths := [
            f"nsynth-test/audio/{note}.wav",
            f"copy/nsynth-test/audio/{note}.wav",
            "nsynth-test/audio/bass_synthetic_098-060-075 (1).wav",
            "nsynth-test/audio/kazoo_acoustic_000-060-075.wav",
            f"nsynth-test/{note}.wav",
        ],
    )
    assert clip.id == note
    assert strays == [Rejection(path, NOT_LISTED) for path in paths[1:]]


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "nsynth-train").mkdir()
    with pytest.raises(ValueError, match=r"need nsynth-train or .*, as in the official layout, found none"):
        read(tmp_path, ["nsynth-train/bass_synthetic_098-060-075.wav"])
