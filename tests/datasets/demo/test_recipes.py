from collections import Counter
from threading import Thread

import numpy as np
import pytest
import soundfile

from matpac.clip import Rejection
from matpac.datasets.demo import recipes as demo
from matpac.datasets.inventory import content_digest, take_inventory
from matpac.params import Demo
from tests.files import files_end_at

RECIPES = ("corpus", "melodies", "rhythms", "scenes")


def small(recipe, num_clips=5, seed=0) -> Demo:
    return Demo(kind="demo", recipe=recipe, num_clips=num_clips, seed=seed)


def made(params, root):
    demo.fetch(params, root, None)
    return list(demo.clips(params, root, take_inventory(root)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_seed_gives_the_same_recordings_again(tmp_path, recipe):
    digests = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        made(small(recipe, seed=seed), tmp_path / folder)
        digests.append(content_digest(take_inventory(tmp_path / folder)))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recordings_are_sound_and_long_enough(tmp_path, recipe):
    made(small(recipe, num_clips=12), tmp_path / "root")
    rates_hz, channels = set(), set()
    for path in (tmp_path / "root").glob("*.wav"):
        samples, rate_hz = soundfile.read(path, always_2d=True)
        assert len(samples) >= 2.2 * rate_hz
        assert 0.01 < np.abs(samples).max() < 1
        assert np.abs(samples.mean(axis=1)).max() > 0.01
        rates_hz.add(rate_hz)
        channels.add(samples.shape[1])
    assert len(rates_hz) > 1
    assert channels == {1, 2}


def test_interrupted_synthesis_goes_on_and_ends_the_same(tmp_path):
    class Cut(Exception):
        pass

    def cut(done, total):
        if done == 3:
            raise Cut

    params = small("melodies", num_clips=6)
    with pytest.raises(Cut):
        demo.fetch(params, tmp_path / "cut", cut)
    assert not (tmp_path / "cut").exists()
    seen = []
    demo.fetch(params, tmp_path / "cut", lambda done, total: seen.append((done, total)))
    demo.fetch(params, tmp_path / "whole", None)
    assert seen[-1] == (6, 6)
    assert list(take_inventory(tmp_path / "cut")) == list(take_inventory(tmp_path / "whole"))


def test_a_full_disk_leaves_no_beginning_of_a_clip_and_keeps_whole_ones(tmp_path):
    params, root = small("corpus"), tmp_path / "corpus"
    expected = made(params, tmp_path / "a")
    whole = {path.name: path.stat().st_size for path in (tmp_path / "a").glob("*.wav")}
    with files_end_at(sorted(whole.values())[-2]), pytest.raises(OSError, match="File too large"):
        demo.fetch(params, root, None)
    assert not root.exists()
    for path in tmp_path.glob(".corpus.release-*/*"):
        assert path.stat().st_size == whole[path.name]
    assert made(params, root) == expected


def test_a_second_process_waits_for_the_first_and_uses_its_result(tmp_path):
    params, seen = small("melodies", num_clips=6), []
    second = Thread(target=demo.fetch, args=(params, tmp_path / "root", lambda *done: seen.append(done)))

    def begin_another(done, total):
        if done == 3:
            second.start()

    demo.fetch(params, tmp_path / "root", begin_another)
    second.join()
    assert seen == []
    assert len(list((tmp_path / "root").glob("*.wav"))) == 6


def test_another_release_is_made_anew(tmp_path):
    params = small("corpus", num_clips=1)
    demo.fetch(params, tmp_path / "root", None)
    first = list(take_inventory(tmp_path / "root"))
    (tmp_path / "root" / "release.txt").write_text("0")
    (tmp_path / "root" / "clip-000000.wav").write_bytes(b"old")
    demo.fetch(params, tmp_path / "root", None)
    assert list(take_inventory(tmp_path / "root")) == first


def split_table(params):
    return Counter(
        (demo.labels_of(params, number), *demo.split_and_fold(params, number))
        for number in range(params.num_clips)
    )


def test_classes_are_spread_evenly_over_splits_and_folds():
    melodies = split_table(small("melodies", num_clips=720))
    assert set(melodies.values()) == {36, 9, 15}
    assert len(melodies) == 12 * 3
    rhythms = split_table(small("rhythms", num_clips=600))
    assert set(rhythms.values()) == {15}
    assert len(rhythms) == 8 * 5


def test_a_dozen_clips_fill_every_split_and_fold():
    for recipe, num_parts in (("melodies", 3), ("scenes", 3), ("rhythms", 5)):
        params = small(recipe, num_clips=12)
        parts = {demo.split_and_fold(params, number) for number in range(12)}
        assert len(parts) == num_parts


def test_labels_are_classes_of_the_task(tmp_path):
    for recipe in RECIPES[1:]:
        params = small(recipe)
        clips = made(params, tmp_path / recipe)
        task = demo.task(params, tmp_path / recipe, (), None)
        assert task is not None
        for clip in clips:
            assert set(clip.labels) <= set(task.classes)
            assert task.multi_label or len(clip.labels) == 1
    params = small("corpus", num_clips=1)
    [clip] = made(params, tmp_path / "corpus")
    assert (clip.labels, clip.split, clip.fold) == ((), None, None)
    assert demo.task(params, tmp_path / "corpus", (), None) is None


def test_a_file_that_we_did_not_make_is_rejected(tmp_path):
    params = small("melodies", num_clips=2)
    demo.fetch(params, tmp_path / "root", None)
    (tmp_path / "root" / "mine.wav").touch()
    [*_, stray] = demo.clips(params, tmp_path / "root", take_inventory(tmp_path / "root"))
    assert stray == Rejection("mine.wav", "not listed (in labels.csv)")
    assert demo.tables(params, tmp_path / "root") == [tmp_path / "root" / "labels.csv"]


def test_every_scene_tag_occurs_in_every_split():
    params = small("scenes", num_clips=600)
    tags = Counter(
        (tag, demo.split_and_fold(params, number)[0])
        for number in range(600)
        for tag in demo.labels_of(params, number)
    )
    assert len(tags) == 10 * 3
    assert min(tags.values()) >= 10


def test_contours_differ_in_order_only():
    assert {tuple(sorted(contour)) for contour in demo.CONTOURS.values()} == {(0, 1, 2, 3, 4)}
    assert {pattern.hits.count("L") for pattern in demo.PATTERNS.values()} == {4}
    assert {len(pattern.hits) for pattern in demo.PATTERNS.values()} == {8}
