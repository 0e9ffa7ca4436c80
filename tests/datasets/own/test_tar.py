import io
import json
import tarfile
from collections import Counter

import numpy as np
import pytest
import soundfile

from matpac.datasets.inventory import Recording, read_bytes, take_inventory
from matpac.datasets.own import labels, tar
from matpac.params import Tar


def params(labels="label", **changes) -> Tar:
    fields = {"multi_label": False, "num_folds": 3, "split_fractions": None} | changes
    return Tar(kind="tar", source=".", labels=labels, **fields)


def write_shards(root, notes, per_shard=4):
    """A tar for every few samples: 0.1 s of noise as FLAC, and a JSON beside it where there is one."""
    for number, note in enumerate(notes):
        samples = np.random.default_rng(number).normal(scale=0.1, size=1600)
        sound = io.BytesIO()
        soundfile.write(sound, samples, 16000, format="FLAC")
        members = [(f"{number:05d}.flac", sound.getvalue())]
        if note is not None:
            members.append((f"{number:05d}.json", json.dumps(note).encode()))
        with tarfile.open(root / f"{number // per_shard:03d}.tar", "a") as archive:
            for name, content in members:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))


def clips_of(params, root):
    recordings = list(take_inventory(root, ("tars",)))
    clips = list(tar.clips(params, root, recordings))
    assert [clip.path for clip in clips] == [recording.path for recording in recordings]
    return clips


def test_labels_and_folds_come_from_the_json_beside_the_sound(tmp_path):
    notes = [
        {"label": "cat" if number % 2 else 7, "fold": number % 3, "group": number} for number in range(9)
    ]
    write_shards(tmp_path, [*notes, None, {"other": 1}, {"label": None}])
    clips = clips_of(params(), tmp_path)
    assert [clip.labels for clip in clips[:4]] == [("7",), ("cat",), ("7",), ("cat",)]
    assert [clip.fold for clip in clips[:4]] == [1, 2, 3, 1]
    assert clips[3].group == "3"
    assert [(clip.labels, clip.fold) for clip in clips[9:]] == [((), None)] * 3
    assert len({clip.id for clip in clips}) == 12
    assert clips[0].id.startswith("000_tar_00000-")
    task = labels.task(params(), tmp_path, {"7", "cat"}, 3)
    assert (task.classes, task.metric, task.num_folds) == (("7", "cat"), "accuracy", 3)


def test_several_labels_and_given_splits(tmp_path):
    splits = ("train", "Val", "test")
    notes = [{"tags": ["a", "b"][: number % 3], "split": splits[number % 3]} for number in range(6)]
    write_shards(tmp_path, notes)
    clips = clips_of(params("tags", multi_label=True), tmp_path)
    assert [clip.labels for clip in clips[:3]] == [(), ("a",), ("a", "b")]
    assert [clip.split for clip in clips[:3]] == ["train", "validation", "test"]
    assert labels.task(params("tags", multi_label=True), tmp_path, {"b", "a"}, None).metric == "mAP"


def test_clips_without_split_are_dealt_whole_groups_together(tmp_path):
    write_shards(tmp_path, [{"label": f"{number % 2}", "group": number // 4} for number in range(24)])
    clips = clips_of(params(num_folds=3), tmp_path)
    assert set(Counter((clip.labels, clip.fold) for clip in clips).values()) == {4}
    assert len({(clip.group, clip.fold) for clip in clips}) == 6
    fractions = {"validation": 0.25, "test": 0.25}
    clips = clips_of(params(num_folds=None, split_fractions=fractions), tmp_path)
    counts = Counter(clip.split for clip in clips)
    assert counts["train"] == 12
    assert {counts["validation"], counts["test"]} == {4, 8}
    with pytest.raises(ValueError, match="need num_folds or split_fractions"):
        clips_of(params(num_folds=None), tmp_path)


def test_without_labels_nothing_is_read_from_the_json(tmp_path):
    recordings = [Recording("0.tar/a.flac", 1, "0" * 64, "0.tar", 512, "no JSON")]
    [clip] = tar.clips(params("none"), tmp_path, recordings)
    assert (clip.labels, clip.split, clip.fold) == ((), None, None)
    assert labels.task(params("none"), tmp_path, (), None) is None


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("no JSON", "0.tar/a.flac: need JSON about the recording"),
        ("[1]", r"need a JSON object about the recording, found \[1\]"),
        ('{"label": {"a": 1}}', "label: need a text, a number or a list of them"),
        ('{"label": ["a", "b"]}', "need a label, found 2: set multi_label"),
        ('{"label": " "}', "need a label, found none"),
        ('{"label": "a", "split": "later"}', "need train, validation or test, got later"),
        ('{"label": "a", "fold": "one"}', "need a whole number, got one"),
        ('{"other": "a"}', "need recordings with a label, found none"),
        ("", "need recordings with a label, found none"),
    ],
)
def test_wrong_labels_are_refused_with_the_place(tmp_path, about, message):
    recordings = [Recording("0.tar/a.flac", 1, "0" * 64, "0.tar", 512, about)]
    with pytest.raises(ValueError, match=message):
        list(tar.clips(params(), tmp_path, recordings))


def test_the_sound_of_a_member_can_be_decoded(tmp_path):
    write_shards(tmp_path, [None] * 6)
    for number, recording in enumerate(take_inventory(tmp_path, ("tars",))):
        samples, rate_hz = soundfile.read(io.BytesIO(read_bytes(tmp_path, recording)))
        expected = np.random.default_rng(number).normal(scale=0.1, size=1600)
        assert rate_hz == 16000
        np.testing.assert_allclose(samples, expected, atol=2**-15)
