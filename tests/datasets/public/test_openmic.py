import shutil
from collections import Counter
from itertools import pairwise

import pytest

from matpac.clip import Clip, Rejection
from matpac.datasets.inventory import Recording
from matpac.datasets.public import openmic
from matpac.datasets.registry import READERS
from matpac.fetch.archive import unpack
from matpac.files import read_json
from matpac.params import Public
from tests.datasets.public.miniatures import openmic as miniature

PARAMS = Public(kind="openmic", source=".")


def recording(path):
    return Recording(path, 1, "0" * 64, path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openmic")
    unpack(list(miniature.make(folder).values()), folder / "unpacked")
    return folder / "unpacked"


@pytest.fixture(scope="module")
def recordings(root):
    return [recording(path.relative_to(root).as_posix()) for path in sorted(root.rglob("*.ogg"))]


def test_what_was_not_observed_is_neither_a_label_nor_absent(root, recordings):
    clips = {clip.id: clip for clip in openmic.clips(PARAMS, root, recordings)}
    # Relevance 1.0 and 0.0 in the first; 0.5, which is a positive, and 0.49 in the second.
    path = "openmic-2018/audio/001/001100_0.ogg"
    assert clips["001100_0"] == Clip(
        "001100_0", path, ("bass",), split=clips["001101_3840"].split, group="11", absent=("flute",)
    )
    assert clips["001101_3840"].labels == ("flute",)
    assert clips["001101_3840"].absent == ("voice",)
    assert {len(clip.labels) + len(clip.absent) for clip in clips.values()} == {2}


def test_artists_stay_together_and_a_part_of_train_validates(root, recordings):
    clips = list(openmic.clips(PARAMS, root, recordings))
    # 15 % of 48 clips are 7.2: the first artist, with 12 clips, is enough.
    assert len(clips) == miniature.NUM_CLIPS
    assert Counter(clip.split for clip in clips) == {"train": 36, "validation": 12, "test": 12}
    assert set(Counter((clip.split, clip.group) for clip in clips).values()) == {12}
    assert {clip.group for clip in clips if clip.split == "test"} == {"21"}


def test_strays_and_second_copies_are_not_listed(root, recordings):
    strays = ["openmic-2018/audio/001/001100_7.ogg", "copy/001/001100_0.ogg", "openmic-2018/001100_0.ogg"]
    found = list(openmic.clips(PARAMS, root, [*recordings, *map(recording, strays)]))
    reason = "not listed (in neither partition, or there twice)"
    assert found[-3:] == [Rejection(path, reason) for path in strays]
    assert all(isinstance(clip, Clip) for clip in found[:-3])


def test_a_clip_without_an_artist_is_refused(root, recordings, tmp_path):
    shutil.copytree(root / "openmic-2018", tmp_path / "set")
    table = tmp_path / "set" / openmic.METADATA
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith("001100_0,")))
    with pytest.raises(ValueError, match="need a row for every clip, found none for 001100_0"):
        list(openmic.clips(PARAMS, tmp_path, recordings))


def test_tables_and_task(root):
    assert all(path.is_file() for path in openmic.tables(PARAMS, root))
    task = READERS["openmic"].task(PARAMS, root, {"bass"}, None)
    assert task.classes[:3] == ("accordion", "banjo", "bass")
    assert (task.multi_label, task.metric, task.num_folds) == (True, "mAP", None)


def test_the_official_lists(splits_folder, tmp_path):
    official = splits_folder / "openmic"
    classes = read_json(official / "class-map.json")
    assert sorted(classes, key=classes.get) == list(openmic.CLASSES)

    (tmp_path / "partitions").mkdir()
    for name in (openmic.TRAIN, openmic.TEST):
        shutil.copy(official / name.rpartition("/")[2], tmp_path / name)
    train, test = ((tmp_path / name).read_text().split() for name in (openmic.TRAIN, openmic.TEST))
    assert (len(train), len(test)) == (14_915, 5_085)
    # Artists are in the archive only. Tracks with neighbouring numbers make an artist here.
    tested = set(test)
    artists = {key: f"{'test' if key in tested else 'train'} {key[:5]}" for key in (*train, *test)}
    lines = [f"{key},{artist}\n" for key, artist in artists.items()]
    (tmp_path / openmic.METADATA).write_text("sample_key,artist_id\n" + "".join(lines))
    (tmp_path / openmic.LABELS).write_text(
        f"sample_key,instrument,relevance,num_responses\n{test[0]},violin,0.9,3\n"
    )
    recordings = [recording(f"audio/{key[:3]}/{key}.ogg") for key in (*train, *test)]
    clips = list(openmic.clips(PARAMS, tmp_path, recordings))
    assert len({clip.id for clip in clips}) == openmic.PAGE.num_clips
    splits = Counter(clip.split for clip in clips)
    assert splits["test"] == 5_085
    largest = max(Counter(artists[key] for key in train).values())
    assert 0.15 * 14_915 <= splits["validation"] < 0.15 * 14_915 + largest
    assert all(a.split == b.split for a, b in pairwise(clips) if a.group == b.group)
    assert clips[14_915].labels == ("violin",)
