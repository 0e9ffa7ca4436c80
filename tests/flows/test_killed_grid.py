"""A grid on a pipeline of shell scripts: what is killed, what fails, and what is said of it."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.flows.conftest import REPOSITORY

pytestmark = pytest.mark.slow
DEFAULT = REPOSITORY / "presets/demo.yaml"

RECORD = """
trap 'echo saved >> saved; exit 143' TERM
touch started
while [ ! -e go ]; do sleep 0.1; done
alpha=$(sed -n 's/^  alpha: //p' params.yaml) seed=$(sed -n '/^pretrain/,/^[a-o]/s/^  seed: //p' params.yaml)
[ $alpha = 0.75 ] && exit 1
echo $alpha $seed >> records
"""
STAGES = {
    "corpus": {"cmd": "echo made"},
    "record": {
        "cmd": "bash record.sh",
        "params": ["pretrain.alpha", "pretrain.seed"],
        "always_changed": True,
    },
    "report": {"cmd": "cp params.yaml reported", "always_changed": True},
}


def heed_signals():
    """Tests that run in the background of a shell or under nohup inherit ignored signals."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Folder:
    def __init__(self, path):
        self.path = path
        shutil.copy(DEFAULT, path / "params.yaml")
        (path / "presets/grids").mkdir(parents=True)
        self.grid("pretrain.alpha: [0.25, 1.0]")
        (path / "record.sh").write_text(RECORD)
        (path / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
        subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=path, check=True)

    def grid(self, line):
        (self.path / "presets/grids/some.yaml").write_text(line)

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "flows.grid", "some", *arguments],
            cwd=self.path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heed_signals,
        )

    def run(self, *arguments):
        process = self.start(*arguments)
        _, said = process.communicate(timeout=120)
        return process.returncode, [line for line in said.splitlines() if line.startswith("grid: ")]

    def wait_for(self, name):
        give_up = time.monotonic() + 60
        while not (self.path / name).exists():
            assert time.monotonic() < give_up, name
            time.sleep(0.05)

    def read(self, name):
        return (self.path / name).read_text()

    @property
    def is_as_it_was(self):
        return self.read("params.yaml") == DEFAULT.read_text()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_grid_that_is_stopped_stops_its_stage_softly_and_goes_on_later(folder, number):
    process = folder.start()
    folder.wait_for("started")
    assert not folder.is_as_it_was
    os.killpg(process.pid, number)
    process.communicate(timeout=30)  # also waits for all that it has started
    assert folder.read("saved") == "saved\n"
    if number == signal.SIGKILL:
        assert not folder.is_as_it_was
    else:
        assert process.returncode == 128 + number
        assert folder.is_as_it_was

    (folder.path / "go").touch()
    code, said = folder.run()
    assert code == 0
    put_back = "grid: params.yaml held the values of a grid that was killed; it is restored."
    assert (put_back in said) == (number == signal.SIGKILL)
    assert folder.is_as_it_was
    assert folder.read("records").splitlines() == ["0.25 0", "1.0 0", "0.5 0"]
    assert folder.read("reported") == folder.read("params.yaml")


def test_a_second_grid_is_told_to_wait(folder):
    first = folder.start()
    folder.wait_for("started")
    code, said = folder.run()
    assert (code, said[0].split(",")[0]) == (1, "grid: a grid is at work in this folder")
    (folder.path / "go").touch()
    first.communicate(timeout=120)
    assert first.returncode == 0


def test_parameters_that_were_edited_after_a_kill_are_not_touched(folder):
    process = folder.start()
    folder.wait_for("started")
    process.kill()
    process.communicate()
    (folder.path / "params.yaml").write_text(edited := folder.read("params.yaml") + "# mine\n")
    code, said = folder.run()
    assert code == 1
    assert "lies in data/.work/grid/params.yaml" in said[-1]
    assert folder.read("params.yaml") == edited


def test_an_experiment_that_fails_is_named_and_the_others_have_their_report(folder):
    folder.grid("pretrain.alpha: [0.75, 1.0]")
    (folder.path / "go").touch()
    code, said = folder.run("--seeds", "2")
    assert code == 1
    assert said[-1].startswith(
        "grid: failed, see above: pretrain.alpha=0.75, pretrain.alpha=0.75 pretrain.seed=1. "
    )
    assert folder.read("records").splitlines() == ["1.0 0", "0.5 1", "1.0 1", "0.5 0"]
    assert folder.is_as_it_was
    assert folder.read("reported") == folder.read("params.yaml")
