"""The examples run, and give what they say."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import matpac
from matpac.params import Custom, load_params
from matpac.weights.released import PAPER_LOGMEL
from tests.checkpoints import untrained_checkpoint
from tests.recordings import NETWORKS


def run_example(project, name, folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(project), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, project / "docs/examples" / name, *map(str, arguments)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_first_steps_run_without_anything(project, tmp_path):
    said = run_example(project, "first_steps.py", tmp_path)
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
    said = run_example(project, "first_steps.py", tmp_path, checkpoint, audio_folder / "nsynth-test-mini")
    assert "is most like" in said
    embeddings = np.load(tmp_path / "first_steps/embeddings.npz")["embeddings"]
    assert embeddings.shape[1] == 640
    assert np.isfinite(embeddings).all()


@pytest.mark.slow
def test_fine_tuning_by_hand_learns_two_classes(project, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    model = load_params(project / "presets/demo.yaml").model
    tiny = model.model_copy(update={"size": "custom", "custom": Custom(**NETWORKS)})
    checkpoint = untrained_checkpoint(tmp_path / "checkpoint", model=tiny)
    random = np.random.default_rng(0)
    for number, name in enumerate(["noise", "tone"] * 12):
        seconds = np.arange(int(random.uniform(4_000, 9_000))) / 8_000
        sound = random.normal(scale=0.1, size=len(seconds))
        sound += 0.3 * (name == "tone") * np.sin(2 * np.pi * 1_000 * seconds)
        (tmp_path / "sounds" / name).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"sounds/{name}/{number}.wav", sound, 8_000)
    said = run_example(project, "finetune.py", tmp_path, checkpoint, tmp_path / "sounds")
    assert said.splitlines()[-1].endswith("100% of 6 held-out clips right")
    assert matpac.load(tmp_path / "finetuned").dim == matpac.load(checkpoint).dim
    code = (project / "docs/examples/finetune.py").read_text().splitlines()
    assert len([line for line in code if line.strip()]) <= 48
