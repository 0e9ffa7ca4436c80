import multiprocessing

import pytest

from matpac.files import exclusive, move_into_place, read_json, whole_file, write_json


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


@pytest.mark.parametrize("content", [b"", b'{"mean": -7.0', b"\xff\xfe"])
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "statistics.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"statistics\.json: need JSON, found none \(.*\)\. Make it anew"):
        read_json(path)


def test_a_finished_folder_replaces_the_old_one(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    move_into_place(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "content").read_text() == "new"
    assert not (tmp_path / "new").exists()


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
