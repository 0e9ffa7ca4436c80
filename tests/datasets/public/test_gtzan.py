import hashlib
import shutil
from collections import Counter

import pytest

from matpac.clip import Clip, Rejection
from matpac.datasets.inventory import Recording, take_inventory
from matpac.datasets.public import gtzan
from matpac.datasets.registry import READERS
from matpac.params import Public
from tests.datasets.public.miniatures import gtzan as miniature

PARAMS = Public(kind="gtzan", source=".")
NOT_LISTED = "not listed (in none of the fault-filtered lists, or there twice)"
SHA256 = {
    "train": "2b04966cef1486f1a7767b74271533fa23e220388db804a1937835e1fc4fa3fa",
    "validation": "f8fbee7c52397a0e0f3a91dc54fedecb2e27f5bdc9a9daeab8cb10d077e26956",
    "test": "09cafa6a89ce0a27f30ed250d56ecb4d03c22fffb5a693f96c7ae655ee02ac72",
}
"""Of the lists as they are passed on everywhere, a path and a newline for each recording."""
# fmt: off
COUNTS = {
    "blues": (46, 23, 31), "classical": (48, 20, 31), "country": (45, 23, 30), "disco": (42, 22, 29),
    "hiphop": (47, 18, 27), "jazz": (43, 17, 27), "metal": (44, 20, 27), "pop": (41, 13, 30),
    "reggae": (43, 17, 26), "rock": (44, 24, 32),
}
# fmt: on


def recording(path):
    return Recording(path, 1, "0" * 64, path)


def read(root, paths):
    return list(gtzan.clips(PARAMS, root, map(recording, paths)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gtzan")
    archives = miniature.make(folder)
    assert list(archives) == [part.name for archive in gtzan.PAGE.archives for part in archive.parts]
    for archive in archives.values():
        shutil.unpack_archive(archive, folder / "unpacked", filter="data")
    return folder / "unpacked"


def as_list(split):
    return "".join(f"{path}\n" for path, found in gtzan.fault_filtered().items() if found == split)


def test_the_shipped_lists_are_those_of_the_literature():
    for split, sha256 in SHA256.items():
        assert hashlib.sha256(as_list(split).encode()).hexdigest() == sha256


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("validation", "valid"), ("test", "test")])
def test_the_shipped_lists_are_the_official_files(splits_folder, split, name):
    assert as_list(split) == (splits_folder / "gtzan" / f"{name}_filtered.txt").read_text()


def test_930_of_1000_recordings_become_clips(tmp_path):
    (tmp_path / "jazz").mkdir()
    (tmp_path / "jazz" / "jazz.00054.wav").write_bytes(b"RIFF, and whatever an intact copy has")
    found = read(tmp_path, [f"{genre}/{genre}.{n:05}.wav" for genre in gtzan.CLASSES for n in range(100)])
    clips = [item for item in found if isinstance(item, Clip)]
    assert len({clip.id for clip in clips}) == len(clips) == gtzan.PAGE.num_clips
    assert Counter(item.reason for item in found if isinstance(item, Rejection)) == {NOT_LISTED: 70}
    splits = ("train", "validation", "test")
    assert Counter((*clip.labels, clip.split) for clip in clips) == {
        (genre, split): count
        for genre, counts in COUNTS.items()
        for split, count in zip(splits, counts, strict=True)
    }


def test_the_genre_is_the_folder_and_the_id_names_a_file(tmp_path):
    path = "Data/genres_original/blues/blues.00029.wav"
    assert read(tmp_path, [path]) == [Clip("blues_00029", path, ("blues",), "train")]


def test_old_copies_end_in_au_and_a_second_copy_is_left_out(tmp_path):
    paths = [
        "genres/pop/pop.00000.au",
        "genres/pop/pop.00000.wav",
        "genres/pop/pop.00001.mp3",
        "pop.00002.wav",
    ]
    clip, *strays = read(tmp_path, paths)
    assert (clip.id, clip.path) == ("pop_00000", paths[0])
    assert strays == [Rejection(path, NOT_LISTED) for path in paths[1:]]


def test_the_broken_recording_is_a_known_defect_and_an_intact_one_is_used(tmp_path):
    path = "jazz/jazz.00054.wav"
    defect = Rejection(path, "known defect (empty, or not a WAV file, in current copies)")
    (tmp_path / "jazz").mkdir()
    for content in (b"", b"\0" * 2_000):
        (tmp_path / path).write_bytes(content)
        assert read(tmp_path, [path]) == [defect]
    (tmp_path / path).write_bytes(b"RIFF")
    assert read(tmp_path, [path]) == [Clip("jazz_00054", path, ("jazz",), "train")]
    # A disk that cannot be read is another trouble than the known one: it must count.
    (tmp_path / path).unlink()
    assert isinstance(read(tmp_path, [path])[0], Clip)


def test_what_becomes_of_the_miniature(root):
    recordings = list(take_inventory(root))
    assert len(recordings) == miniature.NUM_RECORDINGS
    found = list(gtzan.clips(PARAMS, root, recordings))
    clips = [item for item in found if isinstance(item, Clip)]
    assert len(clips) == miniature.NUM_CLIPS
    assert Counter((*clip.labels, clip.split) for clip in clips) == {
        (genre, split): 3 for genre in ("blues", "jazz") for split in ("train", "validation", "test")
    }
    rejected = {item.path: item.reason for item in found if isinstance(item, Rejection)}
    assert rejected.pop(miniature.BROKEN).startswith("known defect (")
    assert set(rejected.values()) == {NOT_LISTED}
    assert len(rejected) == 2


def test_the_task_has_all_genres_in_alphabetical_order(tmp_path):
    task = READERS["gtzan"].task(PARAMS, tmp_path, {"jazz"}, None)
    assert (len(task.classes), task.num_folds, task.metric) == (10, None, "accuracy")
    assert list(task.classes) == sorted(task.classes)
