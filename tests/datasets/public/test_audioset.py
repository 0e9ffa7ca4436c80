import csv
import shutil
from collections import Counter
from dataclasses import replace

import pytest

from matpac.datasets.inventory import Recording, take_inventory
from matpac.datasets.public import audioset
from matpac.datasets.public.audioset import BALANCED, CLASSES, EVAL, UNBALANCED
from matpac.fetch.http import RemoteFile
from matpac.params import AudioSet
from tests.datasets.public.miniatures import audioset as miniature
from tests.fetch.hostile import serve

PARAMS = AudioSet(kind="audioset", source=".")


def recording(path, about=""):
    return Recording(path, 1, "0" * 64, path, 0, about)


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """A folder that holds the official lists in small, and nothing else."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    folder = tmp_path / "source"
    folder.mkdir()
    miniature.make(folder)
    return folder


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


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
    found = clips_of(lists, *(recording(f"{first[name].youtube_id}.wav") for name in (EVAL, UNBALANCED)))
    assert [(clip.labels, clip.split) for clip in found] == [(("Speech",), "test"), (("Speech",), None)]
    assert [clip.group for clip in found] == [first[EVAL].youtube_id, first[UNBALANCED].youtube_id]

    balanced = [item.youtube_id for item in miniature.items() if item.found_in == BALANCED]
    clips = clips_of(lists, *(recording(f"{youtube_id}_30.000.wav") for youtube_id in balanced))
    assert Counter(clip.split for clip in clips) == {"train": 12, "validation": 12}


def test_the_list_of_a_segment_in_several_is_the_first_of_eval_balanced_unbalanced(lists):
    segment = next(item for item in miniature.items() if item.found_in == UNBALANCED).youtube_id
    rewrite(lists / EVAL, "eval_se-__0", segment)
    [clip] = clips_of(lists, recording(f"{segment}.wav"))
    assert clip.split == "test"
    assert audioset.listed(PARAMS, lists)[UNBALANCED] == 18


def test_a_recording_in_no_list_is_a_clip_for_pretraining(lists):
    for path in ("__unlisted-.wav", "a recording.wav"):
        [clip] = clips_of(lists, recording(path))
        assert (clip.labels, clip.split, clip.absent) == ((), None, None)


def test_labels_that_came_with_a_recording_win_if_all_are_known(lists):
    segment = next(item for item in miniature.items() if item.found_in == EVAL).youtube_id
    own, unknown, empty = clips_of(
        lists,
        recording(f"a.tar/{segment}.wav", '{"labels": ["/m/04rlf", "/m/05zppz"]}'),
        recording(f"b.tar/{segment}.wav", '{"labels": ["/m/04rlf", {"mid": 7}]}'),
        recording(f"c.tar/{segment}.wav", '{"labels": []}'),
    )
    # In the order of the index, whatever the order of the mids.
    assert own.labels == ("Male speech, man speaking", "Music")
    assert unknown.labels == empty.labels == ("Speech",)
    assert {clip.split for clip in (own, unknown, empty)} == {"test"}
    # Copies of one segment: clips of their own that never part.
    assert len({own.id, unknown.id, empty.id}) == 3
    assert {own.group, unknown.group, empty.group} == {segment}


@pytest.mark.parametrize("form", ["files", "tars", "parquet"])
def test_files_tars_and_parquet_give_the_same_clips(lists, tmp_path, form):
    root = miniature.make_audio(tmp_path / "audio")[form]
    for name in (CLASSES, EVAL, BALANCED, UNBALANCED):
        shutil.copy(lists / name, root)
    recordings = list(take_inventory(root, ("files", "tars", "parquet")))
    clips = clips_of(root, *recordings)
    assert [clip.path for clip in clips] == [recording.path for recording in recordings]
    assert len({clip.id for clip in clips}) == miniature.NUM_CLIPS
    labels = {item.youtube_id: tuple(miniature.NAMES[mid] for mid in item.mids) for item in miniature.items()}
    assert {clip.group: clip.labels for clip in clips} == labels
    splits = {"test": 12, "train": 12, "validation": 12, None: 15}
    assert Counter(clip.split for clip in clips) == splits
    [empty] = [recording for recording in recordings if recording.bytes == 0]
    assert audioset.youtube_id_of(empty) == miniature.EMPTY


def test_only_lists_that_the_source_lacks_are_downloaded(lists, tmp_path, monkeypatch):
    source, site_folder = tmp_path / "own", tmp_path / "site"
    source.mkdir()
    lists.rename(site_folder)
    (site_folder / EVAL).rename(source / EVAL)
    with serve(site_folder) as site:
        archives = tuple(
            replace(archive, parts=(RemoteFile(part.name, (f"{site.url}/{part.name}",), None),))
            for archive in audioset.PAGE.archives
            for part in archive.parts
        )
        monkeypatch.setattr(audioset, "PAGE", replace(audioset.PAGE, archives=archives))
        audioset.fetch(PARAMS, source, None)
        audioset.fetch(PARAMS, source, None)
    assert sorted(request.path for request in site.requests) == [
        f"/{name}" for name in (BALANCED, CLASSES, UNBALANCED)
    ]
    segment = next(item for item in miniature.items() if item.found_in == BALANCED).youtube_id
    [clip] = clips_of(source, recording(f"{segment}.wav"))
    assert clip.labels == ("Speech",)


def test_missing_segments_are_counted(lists):
    recordings = [recording(f"{item.youtube_id}.flac") for item in miniature.items()]
    copies = [recording(f"copy/{item.path}") for item in recordings]
    listed = audioset.listed(PARAMS, lists)
    present = audioset.present(PARAMS, lists, [*recordings, *copies, recording("none.wav")])
    assert listed == {EVAL: 15, BALANCED: 26, UNBALANCED: 19}
    assert {name: listed[name] - present[name] for name in listed} == miniature.NUM_MISSING


def test_lists_in_the_source_win_over_downloaded_ones(lists, tmp_path):
    below = tmp_path / "other" / "csv"
    below.parent.mkdir()
    miniature.make_audio(tmp_path / "other" / "audio")
    lists.rename(below)
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
    clips_of(lists, recording(f"{segment}.wav"))
    rewrite(lists / EVAL, f'{segment}, 30.000, 40.000, "/m/09x0r"', f'{segment}, 30.000, 40.000, "/m/04rlf"')
    [clip] = clips_of(lists, recording(f"{segment}.wav"))
    assert clip.labels == ("Music",)


def test_the_source_is_not_written_to(lists):
    before = sorted(lists.rglob("*"))
    clips_of(lists, recording("a.wav"))
    audioset.listed(PARAMS, lists)
    assert sorted(lists.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("num_segs=15", "num_segs=20371", "need 20371 segments, as its header says, found 15"),
        ('30.000, 40.000, "/m/09x0r"', '30.000, 40.000, "/m/none"', r"line \d+: need an id, .*/m/none"),
        (', 40.000, "/m/09x0r"', "", r"line \d+: need an id, start, end and mids"),
    ],
)
def test_a_damaged_list_is_refused_and_leaves_nothing(lists, old, new, complaint):
    rewrite(lists / EVAL, old, new)
    with pytest.raises(ValueError, match=f"{EVAL}.*{complaint}"):
        clips_of(lists, recording("a.wav"))
    assert list(audioset.lists_folder().iterdir()) == []


def test_the_task_has_all_classes_and_there_is_none_without_labels(lists):
    task = audioset.task(PARAMS, lists, {"Music"}, None)
    assert task.classes[:3] == ("Speech", "Male speech, man speaking", "Music")
    assert len(task.classes) == audioset.PAGE.num_classes
    assert audioset.task(PARAMS, lists, set(), None) is None


def test_the_official_classes(lists, splits_folder):
    official = splits_folder / "audioset" / CLASSES
    shutil.copy(official, lists / CLASSES)
    with official.open(newline="") as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    assert audioset.task(PARAMS, lists, {"Speech"}, None).classes == tuple(names)
    assert len(set(names)) == 527
