import errno
import multiprocessing
import re
import shlex
import stat
import subprocess
import sys

import pytest

from matpac import files as module
from matpac.files import (
    SUMS,
    check_place,
    damage,
    exclusive,
    is_full,
    locked,
    move_into_place,
    read_json,
    seal,
    whole_file,
    write_json,
    write_text,
)
from tests.files import files_end_at, files_for


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail_half_way():
        with whole_file(path) as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_one_line_that_names_the_file_and_the_old_one_stays(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with (
        files_end_at(100),
        pytest.raises(OSError, match=rf"^{re.escape(str(path))}: cannot be written") as said,
    ):
        write_text(path, 200 * "x")
    assert str(said.value).endswith("(File too large). Make room there, or write elsewhere.")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_is_for_whom_the_umask_says_whatever_writes_it(tmp_path, umask, mode):
    def write_for_oneself(path):
        path.unlink(missing_ok=True)
        path.touch(0o600)

    with files_for(umask), whole_file(tmp_path / "a") as partial:
        write_for_oneself(partial)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_where_no_file_can_be_is_said_before_the_work(tmp_path):
    (tmp_path / "afile").touch()
    check_place(tmp_path / "new" / "newer" / "a.npz")
    assert not (tmp_path / "new").exists()
    for path in (tmp_path / "afile" / "a.npz", tmp_path / "afile" / "new" / "a.npz"):
        with pytest.raises(
            ValueError, match=r"a\.npz: need a name in a folder, found something else at .*/afile$"
        ):
            check_place(path)


@pytest.mark.parametrize("content", [b"", b'{"mean": -7.0', b"\xff\xfe"])
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "statistics.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"statistics\.json: need JSON, found none \(.*\)\. Make it again"):
        read_json(path)


def test_a_finished_folder_replaces_the_old_one(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    move_into_place(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "content").read_text() == "new"
    assert not (tmp_path / "new").exists()


def test_a_kill_while_the_old_folder_is_removed_leaves_the_new_one_whole(tmp_path, monkeypatch):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)

    def killed(_folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        move_into_place(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "content").read_text() == "new"


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "store/deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (tmp_path / "store" / name).write_text(name)
    seal(tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda store: (store / "a").write_text("A"), "other bytes in a"),
        (lambda store: (store / "a").unlink(), "no a"),
        (lambda store: (store / "deep/c").touch(), f"deep/c, which {SUMS} does not list"),
        (lambda store: (store / SUMS).unlink(), f"no {SUMS}"),
        (lambda store: (store / SUMS).write_text(""), f"a, which {SUMS} does not list"),
        (lambda store: (store / SUMS).write_bytes(b"\xff"), f"a, which {SUMS} does not list"),
    ],
)
def test_a_sealed_folder_shows_what_has_changed_in_it(sealed, change, found):
    assert damage(sealed) is None
    change(sealed)
    assert damage(sealed) == found


def test_a_sealed_folder_is_checked_by_sha256sum_too(sealed):
    (sealed / ".DS_Store").touch()
    assert damage(sealed) is None
    subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=sealed, check=True)


def test_the_holder_of_a_lock_removes_what_killed_writers_left_and_its_empty_folder(tmp_path):
    kept = ["a", ".b.host.7.partial", ".a.note", "a/x"]
    left = [".a.host.7.partial", "a/.x.host.7.partial"]
    for name in (*kept, *left):
        (tmp_path / name).mkdir()
    with exclusive(tmp_path / "work/one", tmp_path / "a"):
        assert (tmp_path / "work/one").is_dir()
        assert all((tmp_path / name).exists() for name in kept)
        assert not any((tmp_path / name).exists() for name in left)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["one.lock"]


def _hold(folder, held, release):
    with exclusive(folder):
        held.set()
        release.wait(30)


def test_a_second_process_is_turned_away(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "work", held, release))
    other.start()
    assert held.wait(30)
    with pytest.raises(RuntimeError, match="in use by another process"), exclusive(tmp_path / "work"):
        pass
    release.set()
    other.join()
    with exclusive(tmp_path / "work"):
        pass


def test_no_room_is_a_full_disk_a_quota_or_a_largest_size_and_nothing_else():
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        assert is_full(OSError(number, "no room"))
    assert not is_full(OSError(errno.EACCES, "not allowed"))
    assert not is_full(ValueError())
    assert not is_full(None)


def test_who_is_turned_away_can_type_what_the_line_says(tmp_path):
    folder = tmp_path / "it's at $HOME"
    with (
        exclusive(folder),
        pytest.raises(RuntimeError, match="in use by another process") as error,
        exclusive(folder),
    ):
        pass
    [command] = re.findall("`(fuser .+?)`", str(error.value))
    assert shlex.split(command) == ["fuser", f"{folder}.lock"]


def test_readers_share_a_lock_and_a_writer_waits_for_them(tmp_path):
    path = tmp_path / "lock"
    with locked(path, shared=True) as one, locked(path, shared=True) as other:
        assert one is not None
        assert other is not None
        with locked(path) as writer:
            assert writer is None
    with locked(path) as writer:
        assert writer is not None


def test_the_lock_of_a_file_that_its_last_holder_removed_is_taken_again(tmp_path, monkeypatch):
    path, lock, times = tmp_path / "lock", module.lock, []

    def removed_just_before(file, **how):
        if not times:
            path.unlink()
        times.append(file)
        return lock(file, **how)

    monkeypatch.setattr(module, "lock", removed_just_before)
    with locked(path) as held, locked(path) as other:
        assert held is not None
        assert other is None


def test_a_child_that_inherits_a_lock_holds_it_to_its_end(tmp_path):
    path = tmp_path / "lock"
    with locked(path) as held:
        code = "import sys; sys.stdin.read()"
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=[held.fileno()]
        )
    with locked(path) as ours:
        assert ours is None
    child.communicate()
    with locked(path) as ours:
        assert ours is not None
