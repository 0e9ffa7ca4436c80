"""The examples run, and give what they say."""

import os
import subprocess
import sys

import numpy as np
import pytest

from matpac.weights.released import PAPER_LOGMEL
from tests.checkpoints import untrained_checkpoint


def first_steps(project, folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(project), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, project / "docs/examples/first_steps.py", *map(str, arguments)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_first_steps_run_without_anything(project, tmp_path):
    said = first_steps(project, tmp_path)
    assert "12 recordings in first_steps/sounds" in said
    assert "knock/0.wav: 2.0 s -> (1, 640)" in said
    pairs = [line.split()[0:5:4] for line in said.splitlines() if "is most like" in line]
    assert len(pairs) == 12
    # Before training, too, sounds of a kind are alike.
    assert sum(one.split("/")[0] == other.split("/")[0] for one, other in pairs) >= 9
    made = {path.name for path in (tmp_path / "first_steps").iterdir()}
    assert made == {"sounds", "encoder", "embeddings.npz", "in_time.png"}


@pytest.mark.slow
def test_the_first_steps_run_with_a_checkpoint_and_real_recordings(project, tmp_path, audio_folder):
    (tmp_path / "checkpoint").mkdir()
    checkpoint = untrained_checkpoint(tmp_path / "checkpoint", PAPER_LOGMEL)
    said = first_steps(project, tmp_path, checkpoint, audio_folder / "nsynth-test-mini")
    assert "is most like" in said
    embeddings = np.load(tmp_path / "first_steps/embeddings.npz")["embeddings"]
    assert embeddings.shape[1] == 640
    assert np.isfinite(embeddings).all()
