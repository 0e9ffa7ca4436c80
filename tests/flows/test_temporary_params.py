"""What was in a file comes back, whoever is killed."""

import signal
import subprocess
import sys

import pytest

from flows.temporary_params import restore, temporary_params


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"before # mine\r\n")
    return path


def test_what_was_there_comes_back_also_after_an_error(file, tmp_path):
    def stopped():
        with temporary_params(file, b"for now", tmp_path / "kept"):
            assert file.read_bytes() == b"for now"
            sys.exit(143)

    with pytest.raises(SystemExit):
        stopped()
    assert file.read_bytes() == b"before # mine\r\n"
    assert not restore(file, tmp_path / "kept")


def killed_inside(file, folder, content=b"for now"):
    code = (
        "import os, pathlib, signal, sys; from flows.temporary_params import temporary_params\n"
        "file, folder = map(pathlib.Path, sys.argv[1:3])\n"
        "with temporary_params(file, sys.argv[3].encode(), folder): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, file, folder, content])
    assert done.returncode == -signal.SIGKILL


def test_what_was_there_comes_back_after_a_kill(file, tmp_path):
    killed_inside(file, tmp_path / "kept")
    assert file.read_bytes() == b"for now"
    assert restore(file, tmp_path / "kept")
    assert file.read_bytes() == b"before # mine\r\n"
    assert not restore(file, tmp_path / "kept")


def test_what_somebody_has_written_since_stays_and_both_are_named(file, tmp_path):
    killed_inside(file, tmp_path / "kept")
    file.write_bytes(b"edited")
    with pytest.raises(RuntimeError, match=rf"{file} was edited .* lies in {tmp_path}/kept/params.yaml"):
        restore(file, tmp_path / "kept")
    assert file.read_bytes() == b"edited"
    assert (tmp_path / "kept/params.yaml").read_bytes() == b"before # mine\r\n"


def test_edits_while_it_is_lent_stay(file, tmp_path):
    with (
        pytest.raises(RuntimeError, match="was edited"),
        temporary_params(file, b"for now", tmp_path / "kept"),
    ):
        file.write_bytes(b"edited")
    assert file.read_bytes() == b"edited"


def test_a_link_stays_one(file, tmp_path):
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    with temporary_params(link, b"for now", tmp_path / "kept"):
        assert file.read_bytes() == b"for now"
    assert link.is_symlink()
    assert file.read_bytes() == b"before # mine\r\n"
