import hashlib

import pytest

from matpac.datasets.recordings import (
    Recording,
    content_digest,
    read_recordings,
    recordings_root,
    take_inventory,
    write_recordings,
)
from matpac.params import Demo, Folder


def put(path, content=b"sound"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_every_audio_file_is_found_and_nothing_else(tmp_path):
    for name in ("b.WAV", "a/c.flac", "a/d e/ü.Mp3", "z.m4a"):
        put(tmp_path / name, name.encode())
    for name in ("notes.txt", ".hidden.wav", "a/._d.wav", ".cache/e.wav", "labels.csv"):
        put(tmp_path / name)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    put(elsewhere / "f.wav")
    (tmp_path / "link").symlink_to(elsewhere)
    assert take_inventory(tmp_path) == [
        Recording(name, len(name.encode()), hashlib.sha256(name.encode()).hexdigest())
        for name in ("a/c.flac", "a/d e/ü.Mp3", "b.WAV", "z.m4a")
    ]


def test_a_linked_file_counts_as_the_recording_it_is(tmp_path):
    put(tmp_path / "real" / "a.wav")
    put(tmp_path / "set" / "b.wav")
    (tmp_path / "set" / "a.wav").symlink_to(tmp_path / "real" / "a.wav")
    assert [recording.path for recording in take_inventory(tmp_path / "set")] == ["a.wav", "b.wav"]


def test_no_folder_and_no_audio_are_refused(tmp_path):
    with pytest.raises(ValueError, match="need a folder of recordings, found none"):
        take_inventory(tmp_path / "missing")
    put(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="need audio files"):
        take_inventory(tmp_path)


def test_the_table_keeps_every_name(tmp_path):
    recordings = [Recording('a, "b".wav', 5, "0" * 64), Recording("ü/c\nd.wav", 0, "1" * 64)]
    write_recordings(tmp_path, recordings)
    assert read_recordings(tmp_path) == recordings


def test_content_digest_does_not_depend_on_the_order():
    first, second = Recording("a", 1, "0" * 64), Recording("b", 1, "1" * 64)
    assert content_digest([first, second]) == content_digest([second, first])
    assert content_digest([first]) != content_digest([first, second])


def test_own_recordings_are_read_in_place_and_ours_are_kept_apart_by_params(tmp_path):
    own = Folder(kind="folder", source=str(tmp_path), labels="none", multi_label=False, num_folds=None)
    assert recordings_root("own", own) == tmp_path
    roots = {
        recordings_root("demo", Demo(kind="demo", recipe="corpus", num_clips=num_clips, seed=seed))
        for num_clips in (1, 2)
        for seed in (0, 1)
    }
    assert len(roots) == 4


def test_all_odd_files_are_recordings(audio_folder):
    assert len(take_inventory(audio_folder / "odd")) == 144
