"""A real experiment of DVC's in a copy of a repository whose only stage leaves a record."""

import json
import subprocess
import sys

import pytest
import yaml

from matpac.elsewhere import EXPERIMENT, recorded_elsewhere, records_of
from matpac.files import read_json

WRITE = """
import json, pathlib, sys
alpha = sys.argv[1]
folder = pathlib.Path("data/experiments")
folder.mkdir(parents=True, exist_ok=True)
(folder / f"{alpha}.json").write_text(json.dumps({"alpha": alpha}))
"""


def test_only_finished_experiments_count():
    name = f"refs/exps/ab/{'c' * 38}/lucky-bird"
    assert EXPERIMENT.fullmatch(name)
    for other in ("refs/exps/stash", "refs/exps/exec/EXEC_HEAD", "refs/exps/celery/stash", "refs/heads/main"):
        assert not EXPERIMENT.fullmatch(other)


def test_without_git_there_are_none(in_tmp):
    assert recorded_elsewhere() == []
    assert records_of([]) == []


def test_what_lies_beside_the_records_is_none(in_tmp):
    (in_tmp / ".dvc").mkdir()
    (in_tmp / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    folder, names = "a" * 32, {"README.md": "b" * 32, "0123456789abcdef.json": "c" * 32}
    cache = in_tmp / ".dvc/cache/files/md5"
    entries = [{"md5": md5, "relpath": name} for name, md5 in names.items()]
    for md5, text in ((f"{folder}.dir", json.dumps(entries)), *((md5, "{}") for md5 in names.values())):
        (cache / md5[:2]).mkdir(parents=True)
        (cache / md5[:2] / md5[2:]).write_text(text)
    assert records_of([folder]) == [cache / "cc" / ("c" * 30)]


@pytest.mark.slow
def test_the_records_of_an_experiment_in_a_copy_are_found_in_the_cache(in_tmp, capsys):
    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    stage = {
        "cmd": f"{sys.executable} write.py ${{alpha}}",
        "params": ["alpha"],
        "outs": [{"data/experiments": {"persist": True}}],
    }
    (in_tmp / "write.py").write_text(WRITE)
    (in_tmp / "params.yaml").write_text("alpha: 1\n")
    (in_tmp / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"record": stage}}))
    run("git", "init", "--quiet")
    run("git", "config", "user.name", "a")
    run("git", "config", "user.email", "a@b.c")
    dvc = (sys.executable, "-m", "dvc")
    run(*dvc, "init", "--quiet")
    run(*dvc, "repro", "--quiet")
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message=one")
    assert recorded_elsewhere() == []
    run(*dvc, "exp", "run", "--temp", "--set-param", "alpha=2")

    # The copy began with what the last commit had recorded.
    [found] = recorded_elsewhere()
    assert sorted(read_json(path)["alpha"] for path in records_of([found])) == ["1", "2"]
    assert [path.name for path in (in_tmp / "data/experiments").iterdir()] == ["1.json"]

    assert records_of(["0" * 32]) == []
    assert "record: 1 experiments have no records in DVC's cache" in capsys.readouterr().err
