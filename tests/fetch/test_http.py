"""Real downloads, from a server on this machine that does whatever servers do."""

import hashlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from matpac.fetch import http as module
from matpac.fetch.http import DiskTooSmall, Patience, RemoteFile, download
from tests.fetch.hostile import Fault, serve

CONTENT = random.Random(0).randbytes(300_000)
CUT = 9 * module.CHUNK_BYTES
QUICK = Patience(attempts=3, first_wait_s=0.01, longest_wait_s=0.05, silence_s=0.5)


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "a.zip").write_bytes(CONTENT)
    (folder / "mirror.zip").write_bytes(CONTENT)
    with serve(folder) as site:
        yield site


def checksum(content=CONTENT, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


CHECKSUM = checksum()


def remote(site, *names, checksum=CHECKSUM, num_bytes=None):
    """The file a.zip, by the addresses of these names."""
    return RemoteFile(
        "a.zip", tuple(f"{site.url}/{name}" for name in names or ["a.zip"]), checksum, num_bytes
    )


def get(file, folder, **options):
    """The file's content; nothing else is left in the folder."""
    download([file], folder, patience=QUICK, **options)
    assert [path.name for path in folder.iterdir()] == ["a.zip"]
    return (folder / "a.zip").read_bytes()


def ranges(site, name="a.zip"):
    return [request.range for request in site.asked_for(name)]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_file_arrives_once(site, tmp_path, algorithm):
    file = remote(site, checksum=checksum(algorithm=algorithm))
    assert get(file, tmp_path / "out") == CONTENT
    assert get(file, tmp_path / "out") == CONTENT
    assert ranges(site) == [None]


def test_several_files_arrive_together_and_progress_is_told(site, tmp_path):
    files = []
    for number in range(7):
        (site.folder / f"{number}.bin").write_bytes(CONTENT[number:])
        site.always(f"{number}.bin", Fault(pause_s=0.01))
        address = f"{site.url}/{number}.bin"
        files.append(RemoteFile(f"{number}.bin", (address,), None, num_bytes=len(CONTENT) - number))
    heard, threads = [], set()

    def report(done, total):
        heard.append((done, total))
        threads.add(threading.get_ident())

    download(files, tmp_path, report, patience=QUICK)
    for number in range(7):
        assert (tmp_path / f"{number}.bin").read_bytes() == CONTENT[number:]
    total = 7 * len(CONTENT) - 21
    assert heard[0][1] == total
    assert heard[-1] == (total, total)
    assert len({done for done, _ in heard}) > 3
    assert heard == sorted(heard)
    assert threads == {threading.get_ident()}


def test_the_total_is_0_while_nobody_knows_it(site, tmp_path):
    site.always("a.zip", Fault(without_length=True))
    heard = []
    assert get(remote(site), tmp_path / "out", report=lambda *progress: heard.append(progress)) == CONTENT
    assert heard[-1] == (len(CONTENT), 0)


# Trouble that passes.


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, retry_after="0"),
        Fault(status=503),
        Fault(status=500),
        Fault(cut_after=0),
        Fault(cut_after=100_000),
        Fault(length_off_by=1000),
        Fault(stall_s=1),
        Fault(body=b"wrong" * 100, cut_after=100),
    ],
    ids=str,
)
def test_passing_trouble_is_outlived(site, tmp_path, fault):
    site.misbehave("a.zip", fault, fault)
    assert get(remote(site), tmp_path / "out") == CONTENT


def test_only_the_rest_is_asked_for_after_a_cut(site, tmp_path):
    site.misbehave("a.zip", Fault(cut_after=100_000), Fault(cut_after=50_000), Fault(status=503))
    assert get(remote(site, checksum=None), tmp_path / "out") == CONTENT
    first, *rest = site.asked_for("a.zip")
    assert first.range is None
    starts = [int(request.range.removeprefix("bytes=").removesuffix("-")) for request in rest]
    assert starts == sorted(starts)
    assert starts[0] > 100_000 - module.CHUNK_BYTES
    assert starts[-1] > 150_000 - 2 * module.CHUNK_BYTES
    assert len({request.if_range for request in rest}) == 1
    assert rest[0].if_range.startswith('"')
    assert site.sent_bytes["/a.zip"] < len(CONTENT) + 2 * module.CHUNK_BYTES


def test_fifty_random_cuts_are_outlived(site, tmp_path):
    generator = random.Random(5)
    site.misbehave("a.zip", *(Fault(cut_after=generator.randrange(15_000, 40_000)) for _ in range(50)))
    assert get(remote(site), tmp_path / "out") == CONTENT


def test_random_misbehaviour_ends_whole_and_right_or_in_one_clear_line(site, tmp_path):
    generator = random.Random(8)
    faults = [
        lambda: Fault(cut_after=generator.randrange(len(CONTENT))),
        lambda: Fault(status=generator.choice([404, 429, 500, 503])),
        lambda: Fault(length_off_by=generator.choice([-7, 7])),
        lambda: Fault(body=b"wrong" * 1000),
        lambda: Fault(ignore_range=True, cut_after=generator.randrange(len(CONTENT))),
        lambda: Fault(content_range="bytes 7-8/9"),
        lambda: Fault(etag='"other"'),
        lambda: Fault(without_length=True, cut_after=generator.randrange(len(CONTENT))),
    ]
    num_whole, problems = 0, []
    for attempt in range(60):
        site.misbehave("a.zip", *(generator.choice(faults)() for _ in range(generator.randrange(6))))
        folder = tmp_path / str(attempt)
        try:
            assert get(remote(site), folder) == CONTENT
            num_whole += 1
        except ValueError as error:
            problems.append(str(error))
            assert not (folder / "a.zip").exists()
    assert num_whole > 20
    assert len(problems) == 60 - num_whole
    assert all(re.fullmatch("a.zip: cannot be downloaded [^\n]+", problem) for problem in problems)


def test_progress_resets_the_count_of_failures(site, tmp_path):
    fruitless = [Fault(status=503)] * (QUICK.attempts - 1)
    cuts = [Fault(cut_after=60_000)]
    site.misbehave("a.zip", *fruitless, *cuts, *fruitless, *cuts, *fruitless)
    assert get(remote(site), tmp_path / "out") == CONTENT


@pytest.mark.parametrize("in_seconds", [True, False])
def test_retry_after_is_honoured(site, tmp_path, in_seconds):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    site.misbehave("a.zip", Fault(status=429, retry_after="1" if in_seconds else date))
    started = time.monotonic()
    download([remote(site)], tmp_path, patience=Patience(first_wait_s=0.01))
    assert 0.9 < time.monotonic() - started < 4


def test_retry_after_has_a_limit(site, tmp_path):
    site.misbehave("a.zip", Fault(status=503, retry_after="3600"))
    started = time.monotonic()
    assert get(remote(site), tmp_path / "out") == CONTENT
    assert time.monotonic() - started < 2


# Servers that cannot or will not resume.


def cut_once(site, folder):
    """Leave the first half or so of the file in the folder."""
    site.misbehave("a.zip", Fault(cut_after=CUT), *[Fault(status=503)] * 3)
    with pytest.raises(ValueError, match=r"a.zip: cannot be downloaded"):
        download([remote(site, checksum=None)], folder, patience=QUICK)
    assert {path.name for path in folder.iterdir()} == {"a.zip.part", "a.zip.part.json"}
    site.requests.clear()


def test_the_next_call_asks_for_the_rest(site, tmp_path):
    cut_once(site, tmp_path / "out")
    assert get(remote(site, checksum=None), tmp_path / "out") == CONTENT
    assert ranges(site) == [f"bytes={CUT}-"]


def test_a_server_that_ignores_ranges_sends_all(site, tmp_path):
    cut_once(site, tmp_path / "out")
    site.always("a.zip", Fault(ignore_range=True))
    assert get(remote(site), tmp_path / "out") == CONTENT


def test_a_server_that_ignores_ranges_and_always_cuts_is_given_up(site, tmp_path):
    site.always("a.zip", Fault(ignore_range=True, cut_after=100_000))
    with pytest.raises(ValueError, match=r"a.zip: cannot be downloaded .*IncompleteRead"):
        download([remote(site)], tmp_path, patience=QUICK)
    assert len(site.requests) == 1 + QUICK.attempts


@pytest.mark.parametrize("checked", [True, False])
def test_a_file_that_changed_is_started_anew(site, tmp_path, checked):
    cut_once(site, tmp_path / "out")
    new = CONTENT[::-1] + b"more"
    (site.folder / "a.zip").write_bytes(new)
    assert get(remote(site, checksum=checksum(new) if checked else None), tmp_path / "out") == new


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-299999/300000", f"bytes {CUT + 1}-299999/300000", f"bytes {CUT}-299999/9", "nonsense"],
)
def test_a_wrong_content_range_starts_anew(site, tmp_path, content_range):
    cut_once(site, tmp_path / "out")
    site.misbehave("a.zip", Fault(content_range=content_range))
    assert get(remote(site, checksum=None), tmp_path / "out") == CONTENT
    assert ranges(site) == [f"bytes={CUT}-", None]


def test_another_version_in_spite_of_if_range_starts_anew(site, tmp_path):
    site.misbehave("a.zip", Fault(cut_after=CUT, etag='"one"'), Fault(etag='"one"', status=503))
    site.misbehave("a.zip", Fault(etag='"one"', content_range=f"bytes {CUT}-299999/300001"))
    assert get(remote(site, checksum=None), tmp_path / "out") == CONTENT
    assert ranges(site)[-1] is None


def test_without_etag_and_checksum_nothing_is_resumed(site, tmp_path):
    site.always("a.zip", Fault(etag=""))
    site.misbehave("a.zip", Fault(cut_after=CUT, etag=""))
    assert get(remote(site, checksum=None), tmp_path / "out") == CONTENT
    assert ranges(site) == [None, None]


def test_without_etag_the_checksum_tells_whether_the_rest_fits(site, tmp_path):
    """The server changes the file after a cut, and there is nothing to notice it by but the checksum."""
    site.always("a.zip", Fault(etag=""))
    site.misbehave("a.zip", Fault(cut_after=CUT, etag="", body=b"x" * len(CONTENT)))
    assert get(remote(site), tmp_path / "out") == CONTENT
    assert ranges(site) == [None, f"bytes={CUT}-", None]


def test_a_beginning_longer_than_the_file_starts_anew(site, tmp_path):
    cut_once(site, tmp_path / "out")
    new = CONTENT[:1000]
    (site.folder / "a.zip").write_bytes(new)
    site.always("a.zip", Fault(etag=""))  # Else If-Range would tell: this server answers 416.
    assert get(remote(site, checksum=checksum(new)), tmp_path / "out") == new
    assert ranges(site) == [f"bytes={CUT}-", None]


def test_a_whole_beginning_needs_no_request(site, tmp_path):
    """Killed after the last byte, before the file got its name."""
    cut_once(site, tmp_path / "out")
    (tmp_path / "out" / "a.zip.part").write_bytes(CONTENT)
    assert get(remote(site), tmp_path / "out") == CONTENT
    assert ranges(site) == []


def test_too_long_a_length_is_found_out(site, tmp_path):
    site.always("a.zip", Fault(length_off_by=1000))
    assert get(remote(site), tmp_path / "out") == CONTENT
    assert ranges(site)[-1].startswith("bytes=")


# Mirrors.


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_there_is_asked_of_the_next_mirror_at_once(site, tmp_path, status):
    site.always("a.zip", Fault(status=status))
    assert get(remote(site, "a.zip", "mirror.zip"), tmp_path / "out") == CONTENT
    assert len(site.asked_for("a.zip")) == 1


@pytest.mark.parametrize("wrong", [Fault(body=CONTENT[:-1] + b"x"), Fault(length_off_by=-10)], ids=str)
def test_wrong_bytes_are_thrown_away_and_the_next_mirror_asked(site, tmp_path, wrong):
    site.always("a.zip", wrong)
    assert get(remote(site, "a.zip", "mirror.zip"), tmp_path / "out") == CONTENT
    assert ranges(site) == [None]
    assert ranges(site, "mirror.zip") == [None]


def test_a_mirror_goes_on_where_another_stopped(site, tmp_path):
    site.misbehave("a.zip", Fault(cut_after=CUT))
    site.always("a.zip", Fault(status=503))
    assert get(remote(site, "a.zip", "mirror.zip"), tmp_path / "out") == CONTENT
    assert ranges(site, "mirror.zip") == [f"bytes={CUT}-"]


def test_a_mirror_with_another_file_does_not_go_on_where_another_stopped(site, tmp_path):
    site.misbehave("a.zip", Fault(cut_after=CUT, body=b"x" * len(CONTENT)))
    site.always("a.zip", Fault(status=503))
    assert get(remote(site, "a.zip", "mirror.zip"), tmp_path / "out") == CONTENT
    assert ranges(site, "mirror.zip") == [f"bytes={CUT}-", None]


def test_the_mirror_that_the_beginning_came_from_is_asked_first(site, tmp_path):
    site.always("a.zip", Fault(status=503))
    site.misbehave("mirror.zip", Fault(cut_after=CUT), *[Fault(status=503)] * 3)
    file = remote(site, "a.zip", "mirror.zip")
    with pytest.raises(ValueError, match="cannot be downloaded"):
        download([file], tmp_path / "out", patience=QUICK)
    site.requests.clear()
    assert get(file, tmp_path / "out") == CONTENT
    assert [request.path for request in site.requests] == ["/mirror.zip"]


def test_when_all_mirrors_fail_one_line_says_how(site, tmp_path):
    site.always("a.zip", Fault(body=b"wrong"))
    site.always("mirror.zip", Fault(status=503))
    dead = RemoteFile(
        "a.zip",
        (f"{site.url}/none.zip", f"{site.url}/a.zip", f"{site.url}/mirror.zip", "http://127.0.0.1:9/a.zip"),
        checksum(),
    )
    with pytest.raises(ValueError, match=r"^a\.zip: cannot be downloaded [^\n]*$") as caught:
        download([dead], tmp_path, patience=QUICK)
    for part in (
        "/none.zip: HTTP 404",
        "/a.zip: need sha256:",
        "/mirror.zip: HTTP 503 Service Unavailable;",
        "http://127.0.0.1:9/a.zip: [Errno 111] Connection refused)",
        "Check the network and run again",
        "or set `source` in params.yaml to a local copy.",
    ):
        assert part in str(caught.value)
    assert not list(tmp_path.glob("a.zip*"))


def test_silence_ends_by_itself(site, tmp_path):
    site.always("a.zip", Fault(stall_s=30))
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"a.zip: silent for 0.2 s\)"):
        download([remote(site)], tmp_path, patience=Patience(2, 0.01, 0.05, silence_s=0.2))
    assert time.monotonic() - started < 5


# Files without a checksum.


@pytest.mark.parametrize(
    "fault", [Fault(length_off_by=-10), Fault(body=CONTENT + b"more"), Fault(body=b"")], ids=str
)
def test_the_number_of_bytes_is_checked(site, tmp_path, fault):
    site.misbehave("a.zip", fault)
    assert get(remote(site, checksum=None, num_bytes=len(CONTENT)), tmp_path / "out") == CONTENT


def test_an_endless_file_is_cut_at_the_number_of_bytes(site, tmp_path):
    site.always("a.zip", Fault(body=CONTENT * 10, without_length=True))
    with pytest.raises(ValueError, match="sent more than 300,000 bytes"):
        download([remote(site, checksum=None, num_bytes=len(CONTENT))], tmp_path, patience=QUICK)


def test_a_web_page_is_not_taken_for_a_file_without_a_checksum(site, tmp_path):
    site.always("a.zip", Fault(body=b"<html>Log in</html>", content_type="text/html; charset=utf-8"))
    assert get(remote(site, "a.zip", "mirror.zip", checksum=None), tmp_path / "out") == CONTENT
    with pytest.raises(ValueError, match=r"a.zip: sent a web page instead of the file\)"):
        download([remote(site, checksum=None)], tmp_path / "other", patience=QUICK)


def test_content_encoding_is_left_alone(site, tmp_path):
    """Some servers call a .tar.gz a compressed tar; its checksum is that of the .tar.gz."""
    site.always("a.zip", Fault(content_encoding="gzip"))
    assert get(remote(site), tmp_path / "out") == CONTENT


# Disks.

usage = namedtuple("usage", "total used free")


def free_bytes(monkeypatch, num_bytes):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**9, 10**9, num_bytes))


def test_a_small_disk_is_noticed_before_the_first_request(site, tmp_path, monkeypatch):
    free_bytes(monkeypatch, 250_000)
    files = [remote(site, num_bytes=len(CONTENT))]
    with pytest.raises(
        DiskTooSmall, match=r"need 0.001 GB of free disk space for downloading and unpacking, found"
    ):
        download(files, tmp_path, patience=QUICK, room_factor=2.0)
    assert not site.requests


def test_a_small_disk_is_noticed_when_the_server_says_the_size(site, tmp_path, monkeypatch):
    free_bytes(monkeypatch, 299_999)
    with pytest.raises(DiskTooSmall, match="for downloading, found"):
        download([remote(site)], tmp_path, patience=QUICK)
    assert not (tmp_path / "a.zip.part").exists()


def test_room_for_the_rest_is_enough(site, tmp_path, monkeypatch):
    cut_once(site, tmp_path / "out")
    free_bytes(monkeypatch, 160_000)
    assert get(remote(site, num_bytes=len(CONTENT)), tmp_path / "out") == CONTENT


# Ends before the end.


def test_one_file_that_fails_stops_the_others(site, tmp_path):
    (site.folder / "slow.bin").write_bytes(CONTENT * 10)
    site.always("slow.bin", Fault(pause_s=0.05))
    slow = RemoteFile("slow.bin", (f"{site.url}/slow.bin",), None)
    missing = RemoteFile("none.bin", (f"{site.url}/none.bin",), None)
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"none.bin: cannot be downloaded"):
        download([slow, missing], tmp_path, patience=QUICK)
    assert time.monotonic() - started < 2
    size = (tmp_path / "slow.bin.part").stat().st_size
    time.sleep(0.2)
    assert (tmp_path / "slow.bin.part").stat().st_size == size


PROGRAM = """
import signal, sys
from pathlib import Path
from matpac.fetch.http import RemoteFile, download
# Ignored where the tests themselves run in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)
download([RemoteFile("a.zip", (sys.argv[1],), sys.argv[2])], Path(sys.argv[3]))
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_is_resumed_with_the_rest_only(site, tmp_path, project, ending):
    site.misbehave("a.zip", Fault(pause_s=0.1))
    out = tmp_path / "out"
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, f"{site.url}/a.zip", checksum(), str(out)],
        cwd=project,
        stderr=subprocess.DEVNULL,
    )
    part = out / "a.zip.part"
    while not part.exists() or part.stat().st_size < 60_000:
        assert program.poll() is None
        time.sleep(0.01)
    program.send_signal(ending)
    assert program.wait(timeout=5) != 0
    size = part.stat().st_size
    assert 60_000 <= size < len(CONTENT)

    assert get(remote(site), out) == CONTENT
    first, second = site.asked_for("a.zip")
    assert first.range is None
    assert second.range == f"bytes={size}-"


def test_a_stalled_download_ends_at_once_when_interrupted(site, tmp_path, project):
    site.always("a.zip", Fault(stall_s=20))
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, f"{site.url}/a.zip", checksum(), str(tmp_path / "out")],
        cwd=project,
        stderr=subprocess.DEVNULL,
    )
    while site.sent_bytes["/a.zip"] < 150_000:
        assert program.poll() is None
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    program.wait(timeout=3)
