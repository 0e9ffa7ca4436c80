"""Pages of miniature datasets, whose archives lie on a server on this machine or in a folder."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from matpac.datasets import obtain as module
from matpac.datasets.dataset_page import Archive, Page, base_of
from matpac.datasets.inventory import content_digest, take_inventory
from matpac.datasets.obtain import fetch_page, is_packed
from matpac.fetch.archive import UnusableArchive
from matpac.fetch.http import DiskTooSmall, Patience, RemoteFile
from tests.fetch.hostile import Fault, serve
from tests.fetch.test_archive import cut_into, make_tar_gz, make_zip, tree

QUICK = Patience(attempts=2, first_wait_s=0.01, longest_wait_s=0.05, silence_s=0.5)
TRAIN = {f"mini-1/audio/{number}.wav": random.Random(number).randbytes(30_000) for number in range(4)}
TEST = {f"mini-1/test/{number}.wav": random.Random(9 + number).randbytes(10_000) for number in range(3)}
LABELS = b"file,label\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The archives of the page on a server; the test runs in a folder of its own."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    folder = tmp_path / "site"
    folder.mkdir()
    cut_into(make_zip(folder / "train.zip", TRAIN), 2)
    make_tar_gz(folder / "test.tar.gz", TEST)
    (folder / "labels.csv").write_bytes(LABELS)
    with serve(folder) as site:
        yield site


def remote(site, name, checked=True):
    digest = hashlib.md5((site.folder / name).read_bytes()).hexdigest()
    return RemoteFile(name, (f"{site.url}/{name}",), f"md5:{digest}" if checked else None)


def page_of(*archives, num_recordings=7, digest=None):
    return Page(
        title="Mini",
        license="none",
        citation="none",
        home="none",
        archives=archives,
        download_gb=0.001,
        num_recordings=num_recordings,
        num_clips=7,
        num_classes=2,
        num_folds=None,
        metric="accuracy",
        content_digest=digest,
    )


@pytest.fixture
def page(site):
    return page_of(
        Archive((remote(site, "train.zip.001"), remote(site, "train.zip.002"))),
        Archive((remote(site, "test.tar.gz"),)),
        Archive((remote(site, "labels.csv"),), unpack=False),
    )


@pytest.fixture
def root(tmp_path, page):
    return tmp_path / "audio" / page.root("mini").name


WHOLE = TRAIN | TEST | {"labels.csv": LABELS}


def no_traces(root):
    """Nothing of the archives is left, and nothing unfinished."""
    folder = root.parent.parent / "project" / "data" / ".work" / "download"
    return [path.name for path in folder.iterdir()] == [f"{root.name}.lock"] and nothing_looks_whole(
        root.with_name("other")
    )


def nothing_looks_whole(root):
    return not root.exists() and not list(root.parent.glob(".*"))


# Downloads.


def test_a_page_becomes_a_folder_once(site, page, root):
    heard = []
    fetch_page(page, None, root, lambda *progress: heard.append(progress), patience=QUICK)
    assert tree(root) == WHOLE
    assert base_of(root, "audio/0.wav") == root / "mini-1"
    sizes = {path.name: path.stat().st_size for path in site.folder.iterdir()}
    assert (sum(sizes.values()), sum(sizes.values())) in heard
    assert heard[-1] == (sizes["test.tar.gz"], sizes["test.tar.gz"])
    assert no_traces(root)

    fetch_page(page, None, root, patience=QUICK)
    assert len(site.requests) == 4


def test_what_was_downloaded_and_unpacked_is_used_by_the_next_call(site, page, root, monkeypatch):
    site.always("labels.csv", Fault(status=404))
    with pytest.raises(ValueError, match=r"labels.csv: cannot be downloaded"):
        fetch_page(page, None, root, patience=QUICK)
    site._always.clear()

    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        if len(list(root.parent.rglob("*.wav"))) == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        fetch_page(page, None, root, interrupt, patience=QUICK)
    assert not root.exists()
    [partial] = root.parent.glob(".*")
    unpacked = {path: path.stat().st_ino for path in partial.rglob("*.wav")}
    assert len(unpacked) == 4
    num_requests = len(site.requests)

    fetch_page(page, None, root, patience=QUICK)
    assert len(site.requests) == num_requests
    assert {(root / path.relative_to(partial)).stat().st_ino for path in unpacked} == set(unpacked.values())
    assert tree(root) == WHOLE
    assert no_traces(root)


def test_what_a_kill_after_the_last_step_left_is_removed(site, page, root):
    fetch_page(page, None, root, patience=QUICK)
    left = module.WORK / "download" / root.name / "train.zip.001"
    left.parent.mkdir()
    left.write_bytes(b"PK")
    fetch_page(page, None, root, patience=QUICK)
    assert no_traces(root)
    assert len(site.requests) == 4


PROGRAM = """
import sys
from pathlib import Path
from matpac.datasets.obtain import fetch_page
from tests.datasets.test_obtain import Archive, RemoteFile, page_of
url, checksum, root = sys.argv[1:]
fetch_page(page_of(Archive((RemoteFile("train.zip", (url,), checksum),)), num_recordings=4), None, Path(root))
"""


@pytest.fixture
def start(site, tmp_path, project):
    """Fetch a page of one archive in another process."""
    make_zip(site.folder / "train.zip", TRAIN)
    archive = remote(site, "train.zip")
    programs = []

    def start(root):
        command = [sys.executable, "-c", PROGRAM, archive.urls[0], archive.checksum, str(root)]
        path = os.pathsep.join((str(project), os.environ.get("PYTHONPATH", "")))
        programs.append(
            subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True
            )
        )
        return programs[-1]

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def test_a_killed_process_loses_nothing(site, tmp_path, start):
    root = tmp_path / "audio" / "killed"
    site.misbehave("train.zip", Fault(pause_s=0.1))
    program = start(root)
    part = module.WORK / "download" / "killed" / "train.zip.part"
    while not part.exists() or part.stat().st_size < 50_000:
        assert program.poll() is None
        time.sleep(0.01)
    program.send_signal(signal.SIGKILL)
    program.wait(timeout=5)
    assert nothing_looks_whole(root)
    size = part.stat().st_size
    assert start(root).wait(timeout=60) == 0
    assert tree(root) == TRAIN
    assert [request.range for request in site.asked_for("train.zip")] == [None, f"bytes={size}-"]


def test_another_process_at_work_is_waited_for(site, tmp_path, start):
    root = tmp_path / "audio" / "shared"
    site.misbehave("train.zip", Fault(pause_s=0.2))
    programs = [start(root), start(root)]
    errors = [program.communicate(timeout=60)[1] for program in programs]
    assert [program.returncode for program in programs] == [0, 0], errors
    assert len(site.asked_for("train.zip")) == 1
    assert tree(root) == TRAIN
    assert sorted("Mini: another process fetches it; waiting" in error for error in errors) == [False, True]


# Archives that hold something else.


def test_a_wrong_number_of_recordings_is_refused(site, page, root):
    with pytest.raises(UnusableArchive, match=r"^Mini: need 8 recordings, found 7$"):
        fetch_page(replace(page, num_recordings=8), None, root, patience=QUICK)
    assert nothing_looks_whole(root)
    # The checksums are right: to download them again would not help.
    fetch_page(page, None, root, patience=QUICK)
    assert len(site.requests) == 4


def hosted(site):
    """As code hosts give it: no checksum of the archive, one of the contents, in some top folder."""
    make_zip(site.folder / "hosted.zip", TRAIN)
    for name, content in TRAIN.items():
        path = site.folder.parent / "plain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    digest = content_digest(take_inventory(site.folder.parent / "plain" / "mini-1"))
    return page_of(Archive((remote(site, "hosted.zip", checked=False),)), num_recordings=4, digest=digest)


def test_contents_are_compared_whatever_the_top_folder_is_called(site, root):
    page = hosted(site)
    make_zip(
        site.folder / "hosted.zip", {name.replace("mini-1", "mini-abc"): data for name, data in TRAIN.items()}
    )
    fetch_page(page, None, root, patience=QUICK)
    assert len(tree(root / "mini-abc")) == 4


def test_other_contents_are_thrown_away_and_downloaded_anew(site, root):
    page = hosted(site)
    make_zip(site.folder / "hosted.zip", TRAIN | {"mini-1/audio/3.wav": b"other"})
    with pytest.raises(
        UnusableArchive, match=r"need .* digest \w+, found \w+; thrown away: hosted.zip. Run again"
    ):
        fetch_page(page, None, root, patience=QUICK)
    assert nothing_looks_whole(root)
    make_zip(site.folder / "hosted.zip", TRAIN)
    fetch_page(page, None, root, patience=QUICK)
    assert tree(root) == TRAIN


@pytest.mark.parametrize("content_type", ["text/html", "application/zip"])
def test_a_web_page_instead_of_an_archive_is_refused_and_not_kept(site, root, content_type):
    page = hosted(site)
    site.misbehave("hosted.zip", Fault(body=b"<html>Busy</html>", content_type=content_type))
    with pytest.raises(ValueError, match=r"hosted.zip: (cannot be unpacked \(neither|.*sent a web page)"):
        fetch_page(page, None, root, patience=QUICK)
    assert nothing_looks_whole(root)
    fetch_page(page, None, root, patience=QUICK)
    assert tree(root) == TRAIN


def test_an_archive_without_audio_is_refused(site, root):
    make_zip(site.folder / "empty.zip", {"README.md": b"Moved."})
    page = page_of(Archive((remote(site, "empty.zip", checked=False),)), num_recordings=None)
    with pytest.raises(
        UnusableArchive,
        match=r"Mini: .*need audio files .*, found none, but 1 file .*1 \.md; thrown away: empty.zip",
    ):
        fetch_page(page, None, root, patience=QUICK)


def test_a_malicious_archive_is_refused_by_name(site, root, tmp_path):
    make_zip(site.folder / "evil.zip", {"fine.wav": b"RIFF", "../../../outside.wav": b"RIFF"})
    page = page_of(Archive((remote(site, "evil.zip"),)), num_recordings=2)
    with pytest.raises(
        UnusableArchive, match=r"evil.zip: refused, since its member '../../../outside.wav' leads out"
    ):
        fetch_page(page, None, root, patience=QUICK)
    assert nothing_looks_whole(root)
    assert not list(tmp_path.rglob("outside.wav"))


def test_a_disk_too_small_for_unpacking_is_noticed_before_all_is_downloaded(page, root, monkeypatch):
    """A disk of 250 kB holds the archives, 150 kB, but not their contents besides."""
    usage = namedtuple("usage", "total used free")

    def disk_usage(folder):
        used = 0
        for path in Path(folder).rglob("*"):
            with suppress(FileNotFoundError):  # Threads are at work.
                used += path.stat().st_size if path.is_file() else 0
        return usage(250_000, used, 250_000 - used)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", disk_usage)
        with pytest.raises(DiskTooSmall, match=r"GB of free disk space for downloading and unpacking, found"):
            fetch_page(page, None, root, patience=QUICK)
    fetch_page(page, None, root, patience=QUICK)
    assert tree(root) == WHOLE


# Local sources.


def test_a_local_folder_in_the_official_layout_is_used_where_it_is(page, root, tmp_path):
    (tmp_path / "mine" / "audio").mkdir(parents=True)
    (tmp_path / "mine" / "audio" / "0.wav").write_bytes(b"RIFF")
    (tmp_path / "mine" / "train.zip.001").write_bytes(b"kept beside what was in it")
    assert not is_packed(tmp_path / "mine", page)
    fetch_page(page, str(tmp_path / "mine"), root)
    assert not root.exists()


def test_a_local_folder_of_the_archives_is_unpacked_without_network(site, page, root):
    assert is_packed(site.folder, page)
    before = tree(site.folder)
    fetch_page(page, str(site.folder), root)
    assert tree(root) == WHOLE
    assert tree(site.folder) == before
    assert not site.requests
    assert no_traces(root)


def test_one_of_the_local_archives_stands_for_all(site, page, root):
    fetch_page(page, str(site.folder / "train.zip.001"), root)
    assert tree(root) == WHOLE


def test_an_archive_by_another_name_is_unpacked(page, root, tmp_path):
    mine = make_zip(tmp_path / "my copy.zip", WHOLE)
    assert is_packed(mine, page)
    fetch_page(page, str(mine), root)
    assert tree(root) == WHOLE


def test_a_missing_local_archive_is_named(site, page, root):
    (site.folder / "test.tar.gz").unlink()
    with pytest.raises(ValueError, match=r"site: need all archives of Mini, found no test.tar.gz\. Add"):
        fetch_page(page, str(site.folder), root)


def test_another_local_archive_is_refused_and_kept(site, page, root):
    expected = page.archives[1].parts[0].checksum
    (site.folder / "test.tar.gz").write_bytes(b"other")
    with pytest.raises(
        ValueError, match=rf"test.tar.gz: not the official archive \(need {expected}, found md5:"
    ):
        fetch_page(page, str(site.folder), root)
    assert (site.folder / "test.tar.gz").read_bytes() == b"other"
    assert nothing_looks_whole(root)


def test_a_damaged_local_archive_is_refused_and_kept(page, root, tmp_path):
    (tmp_path / "mine.zip").write_bytes(make_zip(tmp_path / "whole.zip", WHOLE).read_bytes()[:-1000])
    with pytest.raises(UnusableArchive, match=r"mine.zip: cannot be unpacked"):
        fetch_page(page, str(tmp_path / "mine.zip"), root)
    assert (tmp_path / "mine.zip").exists()
    assert nothing_looks_whole(root)


def test_a_source_that_is_not_there_is_a_clear_error(page, root, tmp_path):
    assert not is_packed(tmp_path / "none", page)
    with pytest.raises(ValueError, match=r"none: need Mini as a folder .* found nothing. Correct `source`"):
        fetch_page(page, str(tmp_path / "none"), root)
