import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from matpac.files import line_of
from matpac.walk import PassedOver, audio_files, check_utf8, find_files, require_some, storage_of


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound")


def test_every_audio_file_is_found_and_nothing_else(tmp_path):
    put(*(tmp_path / name for name in ("b.WAV", "a/c.flac", "a/d e/ü.Mp3", "z.m4a", "talk.sph", "film.mkv")))
    put(*(tmp_path / name for name in ("notes.txt", ".hidden.wav", "a/._d.wav", ".cache/e.wav", "wav")))
    assert audio_files(tmp_path) == ["a/c.flac", "a/d e/ü.Mp3", "b.WAV", "film.mkv", "talk.sph", "z.m4a"]


def test_linked_folders_are_read_and_loops_are_passed_over(tmp_path):
    put(tmp_path / "set/a/x.wav", tmp_path / "far/deep/y.wav", tmp_path / "far/z.wav")
    links = {"a/far": tmp_path / "far", "up": tmp_path, "a/here": tmp_path / "set/a", "self": "self"}
    for name, target in links.items():
        (tmp_path / "set" / name).symlink_to(target)
    (tmp_path / "far/back").symlink_to(tmp_path / "set")
    (tmp_path / "set/gone").symlink_to("nowhere")
    passed_over = PassedOver()
    assert audio_files(tmp_path / "set", passed_over) == ["a/far/deep/y.wav", "a/far/z.wav", "a/x.wav"]
    assert passed_over.number == {
        "link to a folder above itself": 3,
        "link to nothing": 1,
        "link to itself": 1,
    }
    assert passed_over.examples["link to a folder above itself"] == ["a/far/back/", "a/here/", "up/"]


def test_folders_with_links_to_each_other_are_read_in_reasonable_time(tmp_path):
    for number in range(10):
        put(tmp_path / f"{number}/x.wav")
        for other in range(10):
            (tmp_path / f"{number}/to {other}").symlink_to(tmp_path / f"{other}")
    passed_over = PassedOver()
    found = audio_files(tmp_path, passed_over)
    assert {f"{number}/x.wav" for number in range(10)} <= set(found)
    assert len(found) <= 10 + 10 * 16
    assert passed_over.number["link to a folder that 16 links lead to"] > 0


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


def test_what_is_not_read_is_counted_by_suffix_with_examples(tmp_path):
    names = ["a.pdf", "b/c.PDF", "d.tar.gz", "e.zip", "README", "take.1", "x.tar", "y.wav", "Makefile.old"]
    put(*(tmp_path / name for name in names))
    passed_over = PassedOver()
    assert audio_files(tmp_path, passed_over) == ["y.wav"]
    assert passed_over.number == {
        ".old": 1,
        "no suffix": 2,
        ".pdf": 2,
        ".tar.gz": 1,
        ".zip": 1,
        ".tar": 1,
    }
    assert passed_over.examples[".pdf"] == ["a.pdf", "b/c.PDF"]
    assert passed_over.in_words() == (
        "8 files of other kinds: 2 .pdf, 2 no suffix, 1 .old, 1 .tar (archives), 1 .tar.gz (archives), "
        "1 .zip (archives)"
    )


def test_thousands_of_suffixes_stay_few_kinds(tmp_path):
    passed_over = PassedOver()
    for number in range(5000):
        passed_over.add_file(f"core.x{number}")
    assert len(passed_over.number) <= 201
    assert passed_over.total() == 5000


def test_no_folder_and_no_audio_are_refused(tmp_path):
    with pytest.raises(ValueError, match="need a folder of recordings, found none"):
        audio_files(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"need audio files \(.*\.flac.*\), found none$"):
        audio_files(tmp_path)
    put(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"found none, but 1 file of other kinds: 1 \.txt$"):
        audio_files(tmp_path)
    assert list(require_some(["a.wav"], tmp_path, ("files",), PassedOver())) == ["a.wav"]


def test_a_name_that_is_not_utf8_is_passed_over_and_the_rest_is_read(tmp_path):
    put(tmp_path / "good.wav")
    try:
        put(tmp_path / os.fsdecode(b"caf\xe9.wav"), tmp_path / os.fsdecode(b"\xff/a.wav"))
    except OSError:
        pytest.skip("a file system that refuses such names")
    passed_over = PassedOver()
    assert audio_files(tmp_path, passed_over) == ["good.wav"]
    assert passed_over.in_words() == "2 name not in UTF-8 (caf\\xe9.wav, \\xff/a.wav)"
    check_utf8("café.wav", "here")
    with pytest.raises(ValueError, match=r"here: need file names in UTF-8, found .*Rename it\."):
        check_utf8(os.fsdecode(b"caf\xe9.wav"), "here")


LIST = "import sys; from matpac.walk import *; print(ascii(audio_files(Path(sys.argv[1]))))"


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"LC_ALL": "C"}, r"['\xfc.wav']"),
        ({"LC_ALL": "POSIX"}, r"['\xfc.wav']"),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}, r"['\xfc.wav']"),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, ""),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "1"}, r"['\xfc.wav']"),
    ],
)
def test_names_are_read_in_the_c_locale_or_the_message_says_how(tmp_path, project, settings, names):
    put(tmp_path / "ü.wav")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHON"))}
    environment = inherited | {"PYTHONPATH": str(project)} | settings
    run = subprocess.run(
        [sys.executable, "-c", LIST, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == names
    assert bool(names) or "set PYTHONUTF8=1" in run.stderr


def failing(monkeypatch, folder: Path, code: int) -> None:
    """Let a folder fail when it is listed."""
    real = os.scandir

    def scandir(path):
        if Path(path) == folder:
            raise OSError(code, os.strerror(code), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    put(tmp_path / "closed/a.wav", tmp_path / "b.wav")
    failing(monkeypatch, tmp_path / "closed", errno.EACCES)
    passed_over = PassedOver()
    assert audio_files(tmp_path, passed_over) == ["b.wav"]
    assert passed_over.in_words() == "1 no permission (closed/)"


@pytest.mark.parametrize("folder", ["", "bad"])
def test_a_failing_disk_never_looks_like_an_empty_folder(tmp_path, monkeypatch, folder):
    put(tmp_path / "bad/a.wav", tmp_path / "b.wav")
    failing(monkeypatch, tmp_path / folder, errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as failed:
        audio_files(tmp_path)
    assert line_of(failed.value).startswith(f"{tmp_path / folder}: Input/output error")


def test_a_root_without_permission_is_an_error(tmp_path, monkeypatch):
    failing(monkeypatch, tmp_path, errno.EACCES)
    with pytest.raises(PermissionError):
        audio_files(tmp_path)
