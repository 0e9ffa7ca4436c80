import os
from pathlib import Path

import pytest

from matpac.walk import audio_files, check_utf8, find_files, require_some, storage_of


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound")


def test_every_audio_file_is_found_and_nothing_else(tmp_path):
    put(*(tmp_path / name for name in ("b.WAV", "a/c.flac", "a/d e/ü.Mp3", "z.m4a")))
    put(*(tmp_path / name for name in ("notes.txt", ".hidden.wav", "a/._d.wav", ".cache/e.wav", "wav")))
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    put(elsewhere / "f.wav")
    (tmp_path / "link").symlink_to(elsewhere)
    assert audio_files(tmp_path) == ["a/c.flac", "a/d e/ü.Mp3", "b.WAV", "z.m4a"]


def test_the_order_is_that_of_the_paths_as_strings(tmp_path):
    names = ["a.wav", "a/z.wav", "a b/c.wav", "a/b/c.wav", "a-b.wav", "A/1.wav", "a/b.wav", "ä.wav", "z.wav"]
    put(*(tmp_path / name for name in names))
    assert audio_files(tmp_path) == sorted(names)


def test_a_linked_file_is_found_by_its_own_name(tmp_path):
    put(tmp_path / "real" / "a.wav", tmp_path / "set" / "b.wav")
    (tmp_path / "set" / "a.wav").symlink_to(tmp_path / "real" / "a.wav")
    (tmp_path / "set" / "circle.wav").symlink_to("circle.wav")
    assert audio_files(tmp_path / "set") == ["a.wav", "b.wav", "circle.wav"]


def test_containers_are_found_only_if_asked_for(tmp_path):
    put(tmp_path / "a.wav", tmp_path / "b.tar", tmp_path / "c.parquet", tmp_path / "d.tar.gz")
    assert list(find_files(tmp_path, ("files",))) == ["a.wav"]
    assert list(find_files(tmp_path, ("tars", "parquet"))) == ["b.tar", "c.parquet"]
    assert [storage_of(name) for name in ("a.WAV", "b.tar", "c.parquet")] == ["files", "tars", "parquet"]


def test_no_folder_and_no_audio_are_refused(tmp_path):
    with pytest.raises(ValueError, match="need a folder of recordings, found none"):
        audio_files(tmp_path / "missing")
    put(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"need audio files \(.*\.flac.*\), found none"):
        audio_files(tmp_path)
    assert list(require_some(["a.wav"], tmp_path, ("files",))) == ["a.wav"]


def test_names_that_are_not_utf8_are_refused(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    check_utf8("café.wav", "here")
    with pytest.raises(ValueError, match=r"here: need file names in UTF-8, found .*Rename it\."):
        check_utf8(name, "here")
    try:
        put(tmp_path / name)
    except OSError:
        pytest.skip("a file system that refuses such names")
    with pytest.raises(ValueError, match="need file names in UTF-8"):
        audio_files(tmp_path)


def test_a_folder_that_cannot_be_read_is_passed_over(tmp_path):
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    put(tmp_path / "closed" / "a.wav", tmp_path / "b.wav")
    (tmp_path / "closed").chmod(0)
    try:
        assert audio_files(tmp_path) == ["b.wav"]
    finally:
        (tmp_path / "closed").chmod(0o700)
