import csv
import gzip
import json
from collections import Counter

import pytest

from matpac.clip import Clip, Rejection
from matpac.datasets.inventory import Recording
from matpac.datasets.public import magnatagatune
from matpac.fetch.archive import unpack
from matpac.files import read_json
from matpac.params import MagnaTagATune
from tests.datasets.public.miniatures import magnatagatune as miniature

KEEP = MagnaTagATune(kind="magnatagatune", source=".", untagged="keep")
DROP = MagnaTagATune(kind="magnatagatune", source=".", untagged="drop")


def recording(path, num_bytes=1):
    return Recording(path, num_bytes, "0" * 64, path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("magnatagatune")
    files = miniature.make(folder)
    assert list(files) == [part.name for archive in magnatagatune.PAGE.archives for part in archive.parts]
    unpack([files[f"mp3.zip.00{part}"] for part in (1, 2, 3)], folder / "set")
    for name in ("annotations_final.csv", "clip_info_final.csv"):
        files[name].rename(folder / "set" / name)
    return folder / "set"


@pytest.fixture(scope="module")
def recordings(root):
    paths = [path for path in sorted(root.rglob("*.mp3")) if not path.name.startswith(".")]
    return [recording(path.relative_to(root).as_posix(), path.stat().st_size) for path in paths]


def test_the_folder_is_the_split_and_the_name_begins_with_the_artist(root, recordings):
    clips = [clip for clip in magnatagatune.clips(KEEP, root, recordings) if isinstance(clip, Clip)]
    path = "0/artist_0-some_album-00-a_title-0-29.mp3"
    assert clips[0] == Clip("2", path, ("drums",), split="train", group="artist_0")
    assert Counter(clip.split for clip in clips) == {"train": 26, "validation": 13, "test": 26}
    assert len({clip.id for clip in clips}) == miniature.NUM_CLIPS
    assert len(recordings) == miniature.NUM_RECORDINGS


def test_untagged_clips_are_kept_for_the_probe_or_for_pretraining_only(root, recordings):
    kept, dropped = (
        [clip for clip in magnatagatune.clips(params, root, recordings) if isinstance(clip, Clip)]
        for params in (KEEP, DROP)
    )
    assert [clip.labels for clip in kept] == [clip.labels for clip in dropped]
    assert {clip.split for clip in dropped if not clip.labels} == {None}
    assert Counter(clip.split for clip in kept if not clip.labels) == {"train": 2, "validation": 1, "test": 2}
    assert [clip for clip in kept if clip.labels] == [clip for clip in dropped if clip.labels]


def test_the_three_files_without_bytes_are_known_and_others_are_not(root, recordings):
    found = dict(zip(recordings, magnatagatune.clips(KEEP, root, recordings), strict=True))
    rejected = [item for item in found.values() if isinstance(item, Rejection)]
    assert {item.path for item in rejected} == magnatagatune.BROKEN
    assert {item.reason for item in rejected} == {"known defect (distributed without a single byte)"}
    # Another file without bytes is a bad copy, and a broken one with bytes was mended.
    [mended, *_] = sorted(magnatagatune.BROKEN)
    empty = recordings[0].path
    both = magnatagatune.clips(KEEP, root, [recording(mended), recording(empty, 0)])
    assert all(isinstance(item, Clip) for item in both)


def test_strays_and_second_copies_are_not_listed(root, recordings):
    strays = ["0/unknown.mp3", f"copy/{recordings[0].path}"]
    found = list(magnatagatune.clips(KEEP, root, [*recordings, *map(recording, strays)]))
    reason = "not listed (not in annotations_final.csv, or there twice)"
    assert found[-2:] == [Rejection(path, reason) for path in strays]


def test_the_folders_may_lie_beside_the_table_or_below(root, recordings):
    below = [recording(f"mp3/{item.path}", item.bytes) for item in recordings]
    beside, deeper = (list(magnatagatune.clips(KEEP, root, items)) for items in (recordings, below))
    assert [item.path for item in deeper] == [f"mp3/{item.path}" for item in beside]
    assert [type(item) for item in deeper] == [type(item) for item in beside]


def test_a_table_with_commas_is_refused(tmp_path):
    (tmp_path / "annotations_final.csv").write_text("clip_id,guitar,mp3_path\n2,1,0/a.mp3\n")
    with pytest.raises(ValueError, match=r"separated by TAB, found 'clip_id,guitar,mp3_path'"):
        list(magnatagatune.clips(KEEP, tmp_path, []))


def test_the_task_asks_for_the_commonest_tags(root):
    task = magnatagatune.task(KEEP, root, set(), None)
    # 20 clips each and the three broken ones; then the 47 that only these have, by name.
    assert task.classes[:5] == ("drums", "flute", "techno", "ambient", "beat")
    assert set(task.classes) == set(miniature.TOP_TAGS)
    assert (task.multi_label, task.metric, task.num_folds) == (True, "mAP", None)


@pytest.fixture(scope="module")
def official(splits_folder, tmp_path_factory):
    """Every annotated clip, and a folder with its annotations in the official layout."""
    folder = tmp_path_factory.mktemp("official")
    with gzip.open(splits_folder / "mtt" / "jukemir_magnatagatune.json.gz") as file:
        annotated = {name: clip for name, clip in json.load(file).items() if clip["y_all"] is not None}
    tags = sorted({tag for clip in annotated.values() for tag in clip["y_all"]})
    with (folder / "annotations_final.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(["clip_id", *tags, "mp3_path"])
        for clip in annotated.values():
            given = [int(tag in clip["y_all"]) for tag in tags]
            writer.writerow([clip["extra"]["clip_id"], *given, clip["extra"]["mp3_path"]])
    return annotated, folder


def test_all_of_the_official_annotations(official, splits_folder):
    annotated, folder = official
    counts = read_json(splits_folder / "mtt" / "top50_tag_counts.json")["counts"]
    task = magnatagatune.task(KEEP, folder, set(), None)
    assert list(task.classes) == sorted(counts, key=lambda tag: (-counts[tag], tag))

    paths = [clip["extra"]["mp3_path"] for clip in annotated.values()]
    recordings = [recording(path, int(path not in magnatagatune.BROKEN)) for path in paths]
    found = dict(zip(paths, magnatagatune.clips(KEEP, folder, recordings), strict=True))
    assert len(found) == magnatagatune.PAGE.num_recordings
    clips = {path: clip for path, clip in found.items() if isinstance(clip, Clip)}
    assert len(clips) == magnatagatune.PAGE.num_clips
    assert Counter(clip.split for clip in clips.values()) == {
        "train": 18_706,
        "validation": 1_825,
        "test": 5_329,
    }
    assert Counter(clip.split for clip in clips.values() if not clip.labels) == {
        "train": 3_459,
        "validation": 296,
        "test": 997,
    }
    splits = {"train": "train", "valid": "validation", "test": "test"}
    artists = {}
    for entry in annotated.values():
        clip = clips.get(entry["extra"]["mp3_path"])
        if clip is not None:
            assert clip.split == splits[entry["split"]]
            assert set(clip.labels) == set(entry["y"])
            assert artists.setdefault(clip.group, entry["extra"]["artist"]) == entry["extra"]["artist"]
    assert len(set(artists.values())) == len(artists)
