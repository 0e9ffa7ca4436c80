import csv
import shutil
from collections import Counter
from dataclasses import dataclass

import pytest

from matpac.datasets import audioset
from matpac.datasets.audioset import BALANCED, CLASSES, EVAL, UNBALANCED
from matpac.datasets.recordings import Recording
from matpac.params import AudioSet
from tests.datasets.miniatures import audioset as miniature

PARAMS = AudioSet(kind="audioset", source=".")


def recording(path, about=""):
    return Recording(path, 1, "0" * 64, path, 0, about)


@dataclass
class Lists:
    """The official lists in small, in a folder that holds nothing else."""

    root: object

    def rewrite(self, name, old, new):
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))


@pytest.fixture
def lists(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    root = tmp_path / "source"
    root.mkdir()
    miniature.make(root)
    return Lists(root)


def clips_of(root, *recordings):
    return list(audioset.clips(PARAMS, root, recordings))


@pytest.mark.parametrize(
    ("name", "youtube_id"),
    [
        ("--4gqARaEJE.flac", "--4gqARaEJE"),
        ("eval/_-a_b-c_1_2.wav", "_-a_b-c_1_2"),
        ("Y--4gqARaEJE.wav", "--4gqARaEJE"),
        ("YYYYYYYYYYYY.wav", "YYYYYYYYYYY"),
        ("--aE2O5G5WE_0.000.wav", "--aE2O5G5WE"),
        ("_aE2O5G5W___30_40.ogg", "_aE2O5G5W__"),
        ("Y_aE2O5G5W_1_30.000_40.000.mp3", "_aE2O5G5W_1"),
        ("abcde_12_34.wav", "abcde_12_34"),
        ("Ybcde_12_34.wav", "Ybcde_12_34"),
        ("shard-00000.tar/Y--4gqARaEJE.flac~2", "--4gqARaEJE"),
        ("--4gqARaEJE.parquet/17", ""),
        ("a recording.wav", ""),
        ("abcdefghijkl.wav", ""),
        ("abcdefghijk_take_2.wav", ""),
    ],
)
def test_the_youtube_id_in_file_names_met_in_the_wild(name, youtube_id):
    assert audioset.youtube_id_of(recording(name)) == youtube_id


def test_what_is_said_about_a_recording_comes_before_its_name():
    told = '{"video_id": "-_other_id_", "path": "_-by_path-_.flac"}'
    assert audioset.youtube_id_of(recording("a.parquet/3", told)) == "-_other_id_"
    made_from = '{"video_id": "not an id", "path": "x/Y_-by_path-_.flac"}'
    assert audioset.youtube_id_of(recording("a.parquet/3", made_from)) == "_-by_path-_"
    for useless in ("plain text", "[1]", '{"video_id": 5, "path": null}'):
        assert audioset.youtube_id_of(recording("a.tar/--4gqARaEJE.flac", useless)) == "--4gqARaEJE"


def test_lists_give_labels_and_splits(lists):
    first = {item.found_in: item for item in reversed(miniature.items())}
    found = clips_of(lists.root, *(recording(f"{first[name].youtube_id}.wav") for name in (EVAL, UNBALANCED)))
    assert [(clip.labels, clip.split) for clip in found] == [(("Speech",), "test"), (("Speech",), None)]
    assert [clip.group for clip in found] == [first[EVAL].youtube_id, first[UNBALANCED].youtube_id]

    balanced = [item.youtube_id for item in miniature.items() if item.found_in == BALANCED]
    clips = clips_of(lists.root, *(recording(f"{youtube_id}_30.000.wav") for youtube_id in balanced))
    assert Counter(clip.split for clip in clips) == {"train": 12, "validation": 12}


def test_the_list_of_a_segment_in_several_is_the_first_of_eval_balanced_unbalanced(lists):
    segment = next(item for item in miniature.items() if item.found_in == UNBALANCED).youtube_id
    lists.rewrite(EVAL, "eval_se-__0", segment)
    [clip] = clips_of(lists.root, recording(f"{segment}.wav"))
    assert clip.split == "test"
    assert audioset.listed(PARAMS, lists.root)[UNBALANCED] == 18


def test_a_recording_in_no_list_is_a_clip_for_pretraining(lists):
    for path in ("__unlisted-.wav", "a recording.wav"):
        [clip] = clips_of(lists.root, recording(path))
        assert (clip.labels, clip.split, clip.absent) == ((), None, None)


def test_labels_that_came_with_a_recording_win_if_all_are_known(lists):
    segment = next(item for item in miniature.items() if item.found_in == EVAL).youtube_id
    own, unknown, empty = clips_of(
        lists.root,
        recording(f"a.tar/{segment}.wav", '{"labels": ["/m/04rlf", "/m/05zppz"]}'),
        recording(f"b.tar/{segment}.wav", '{"labels": ["/m/04rlf", 7]}'),
        recording(f"c.tar/{segment}.wav", '{"labels": []}'),
    )
    # In the order of the index, whatever the order of the mids.
    assert own.labels == ("Male speech, man speaking", "Music")
    assert unknown.labels == empty.labels == ("Speech",)
    assert {clip.split for clip in (own, unknown, empty)} == {"test"}
    # Copies of one segment: clips of their own that never part.
    assert len({own.id, unknown.id, empty.id}) == 3
    assert {own.group, unknown.group, empty.group} == {segment}


def test_the_three_forms_give_the_same_clips(lists, tmp_path):
    """Recordings as the inventory lists them, from the files themselves."""
    forms = miniature.make_audio(tmp_path / "audio")
    items = miniature.items()
    files = [path.relative_to(forms["files"]).as_posix() for path in forms["files"].rglob("*.*")]
    assert len(files) == len(items)
    by_id = {
        clip.group: (clip.labels, clip.split) for clip in clips_of(lists.root, *map(recording, sorted(files)))
    }
    assert by_id.keys() == {item.youtube_id for item in items}
    assert Counter(split for _, split in by_id.values()) == {
        "test": 12,
        "train": 12,
        "validation": 12,
        None: 15,
    }
    names = [miniature.NAMES[item.mids[0]] for item in items if item.found_in]
    assert [by_id[item.youtube_id][0] for item in items if item.found_in] == [(name,) for name in names]


def test_missing_segments_are_counted(lists):
    recordings = [recording(f"{item.youtube_id}.flac") for item in miniature.items()]
    copies = [recording(f"copy/{item.path}") for item in recordings]
    listed = audioset.listed(PARAMS, lists.root)
    present = audioset.present(PARAMS, lists.root, [*recordings, *copies, recording("none.wav")])
    assert listed == {EVAL: 15, BALANCED: 26, UNBALANCED: 19}
    assert {name: listed[name] - present[name] for name in listed} == miniature.NUM_MISSING


def test_lists_in_the_source_win_over_downloaded_ones(lists, tmp_path):
    below = tmp_path / "other" / "csv"
    below.parent.mkdir()
    miniature.make_audio(tmp_path / "other" / "audio")
    lists.root.rename(below)
    assert {path.parent for path in audioset.tables(PARAMS, below.parent)} == {below}

    audioset.lists_folder().mkdir(parents=True)
    (below / EVAL).rename(audioset.lists_folder() / EVAL)
    paths = {path.name: path.parent for path in audioset.tables(PARAMS, below.parent)}
    assert paths == dict.fromkeys((CLASSES, BALANCED, UNBALANCED), below) | {EVAL: audioset.lists_folder()}

    (below / BALANCED).unlink()
    with pytest.raises(ValueError, match=r"need the official lists, found no balanced_train_segments\.csv"):
        audioset.tables(PARAMS, below.parent)


def test_other_lists_give_other_labels(lists):
    segment = next(item for item in miniature.items() if item.found_in == EVAL).youtube_id
    clips_of(lists.root, recording(f"{segment}.wav"))
    lists.rewrite(EVAL, f'{segment}, 30.000, 40.000, "/m/09x0r"', f'{segment}, 30.000, 40.000, "/m/04rlf"')
    [clip] = clips_of(lists.root, recording(f"{segment}.wav"))
    assert clip.labels == ("Music",)


def test_the_source_is_not_written_to(lists):
    before = sorted(lists.root.rglob("*"))
    clips_of(lists.root, recording("a.wav"))
    audioset.listed(PARAMS, lists.root)
    assert sorted(lists.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("num_segs=15", "num_segs=20371", "need 20371 segments, as its header says, found 15"),
        ('30.000, 40.000, "/m/09x0r"', '30.000, 40.000, "/m/none"', r"line \d+: need an id, .* /m/none"),
        (', 40.000, "/m/09x0r"', "", r"line \d+: need an id, start, end and mids"),
    ],
)
def test_a_damaged_list_is_refused_and_leaves_nothing(lists, old, new, complaint):
    lists.rewrite(EVAL, old, new)
    with pytest.raises(ValueError, match=f"{EVAL}.*{complaint}"):
        clips_of(lists.root, recording("a.wav"))
    assert list(audioset.lists_folder().iterdir()) == []


def test_the_task_has_all_classes_and_there_is_none_without_labels(lists):
    task = audioset.task(PARAMS, lists.root, {"Music"}, None)
    assert task.classes[:3] == ("Speech", "Male speech, man speaking", "Music")
    assert len(task.classes) == audioset.PAGE.num_classes
    assert audioset.task(PARAMS, lists.root, set(), None) is None


def test_the_official_classes(lists, splits_folder):
    official = splits_folder / "audioset" / CLASSES
    shutil.copy(official, lists.root / CLASSES)
    with official.open(newline="") as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    assert audioset.task(PARAMS, lists.root, {"Speech"}, None).classes == tuple(names)
    assert len(set(names)) == 527
