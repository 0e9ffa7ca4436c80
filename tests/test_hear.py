"""What hear-validator checks (https://github.com/hearbenchmark/hear-validator), and what it does not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from matpac import hear
from matpac.encoder.encoder import load_encoder
from matpac.weights.released import PAPER_LOGMEL
from tests.checkpoints import untrained_checkpoint

RATE = 16_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return untrained_checkpoint(tmp_path_factory.mktemp("hear") / "checkpoint", PAPER_LOGMEL)


@pytest.fixture(scope="module")
def model(checkpoint):
    return hear.load_model(str(checkpoint))


def noise(num_sounds, num_samples):
    generator = torch.Generator().manual_seed(num_samples)
    return torch.rand((num_sounds, num_samples), generator=generator) * 2 - 1


def test_the_model_is_a_torch_module_with_its_sizes(model):
    assert isinstance(model, torch.nn.Module)
    assert sum(parameter.numel() for parameter in model.parameters()) > 800_000
    assert model.sample_rate == RATE
    assert model.scene_embedding_size == model.timestamp_embedding_size == 5 * 128


def test_without_a_path_the_pipelines_checkpoint_is_opened(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "data/checkpoints").mkdir(parents=True)
    (tmp_path / "data/checkpoints/pretrained").symlink_to(checkpoint)
    monkeypatch.chdir(tmp_path)
    assert hear.load_model().scene_embedding_size == 5 * 128


def test_a_wrong_path_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing: need"):
        hear.load_model(str(tmp_path / "nothing"))


@pytest.fixture(params=[None, 40, 10])
def hop_ms(model, request, monkeypatch):
    """Time between timestamps; None for the plain steps of 160 ms."""
    monkeypatch.setattr(model, "hop_ms", request.param)
    return request.param or 160


def test_timestamps_are_as_close_as_the_api_suggests(model):
    _, timestamps = hear.get_timestamp_embeddings(noise(1, RATE), model)
    assert timestamps.diff().eq(40).all()


@pytest.mark.parametrize("seconds", [1.07, 1.98, 2.74, 4.0])
def test_timestamps_are_evenly_apart_and_within_the_sound(model, seconds, hop_ms):
    audio = noise(2, int(seconds * RATE))
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    assert embeddings.dtype == timestamps.dtype == torch.float32
    assert not embeddings.requires_grad
    assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
    assert timestamps[:, 0].tolist() == [87.5, 87.5]
    assert timestamps.diff().eq(hop_ms).all()
    assert 1000 * seconds - hop_ms - 87.5 < timestamps.max() <= 1000 * seconds


def test_an_embedding_is_of_what_sounds_at_its_timestamp(model, monkeypatch):
    """A click changes the step that is centered nearest to it most of all."""
    monkeypatch.setattr(model, "hop_ms", None)
    silence = torch.zeros(1, RATE)
    quiet, timestamps = hear.get_timestamp_embeddings(silence, model)
    for step, center_ms in enumerate(timestamps[0].tolist()):
        click = silence.clone()
        click[0, round(center_ms * RATE / 1000)] = 1
        heard, _ = hear.get_timestamp_embeddings(click, model)
        assert (heard - quiet)[0].norm(dim=1).argmax() == step


@pytest.mark.parametrize("num_samples", [1, 399, 1000, 1399])
def test_a_sound_shorter_than_a_center_has_one_embedding_at_its_middle(model, num_samples):
    embeddings, timestamps = hear.get_timestamp_embeddings(noise(3, num_samples), model)
    assert embeddings.shape[:2] == (3, 1)
    assert timestamps.tolist() == [[pytest.approx(500 * num_samples / RATE)]] * 3


def test_timestamps_do_not_drift_in_five_minutes(model):
    _, timestamps = hear.get_timestamp_embeddings(noise(1, 5 * 60 * RATE), model)
    expected = 87.5 + 40 * np.arange(timestamps.shape[1])
    np.testing.assert_array_equal(timestamps[0].numpy(), expected)
    assert 5 * 60_000 - timestamps.max() < 40


@pytest.mark.parametrize("num_samples", [100, RATE, 3 * RATE])
def test_a_sound_has_the_same_embeddings_in_any_batch(model, num_samples):
    audio = noise(5, num_samples)
    scenes = hear.get_scene_embeddings(audio, model)
    steps, _ = hear.get_timestamp_embeddings(audio, model)
    for sound in range(5):
        alone = audio[sound : sound + 1]
        np.testing.assert_allclose(hear.get_scene_embeddings(alone, model)[0], scenes[sound], atol=1e-4)
        steps_alone, _ = hear.get_timestamp_embeddings(alone, model)
        np.testing.assert_allclose(steps_alone[0], steps[sound], atol=1e-4)


def test_scene_embeddings_are_those_of_the_encoder(model, checkpoint):
    audio = noise(2, RATE)
    scenes = hear.get_scene_embeddings(audio, model)
    assert scenes.dtype == torch.float32
    np.testing.assert_allclose(scenes, load_encoder(checkpoint).embed(audio.numpy(), RATE), atol=1e-6)


@pytest.mark.parametrize("embeddings", [hear.get_scene_embeddings, hear.get_timestamp_embeddings])
@pytest.mark.parametrize(
    ("audio", "said"),
    [
        (noise(2, RATE)[0], r"got \[16000\]. One sound is audio\[None\]"),
        (noise(2, RATE)[:, None], r"got \[2, 1, 16000\]"),
        (torch.zeros(0, RATE), r"got \[0, 16000\]"),
        (torch.zeros(2, 0), r"got \[2, 0\]"),
        (torch.ones(2, RATE, dtype=torch.int16), r"got torch.int16. Divide by the full scale"),
        (32_768 * noise(2, RATE), r"got one of 3276\d.*. Divide by the full scale"),
        (noise(2, RATE) / 0, r"got one of "),
    ],
)
def test_what_the_api_does_not_allow_is_one_line(model, embeddings, audio, said):
    with pytest.raises(ValueError, match=rf"^hear: need a tensor \[n_sounds, n_samples\].*{said}") as raised:
        embeddings(audio, model)
    assert "\n" not in str(raised.value)


def test_an_array_is_no_tensor():
    with pytest.raises(ValueError, match=r"^hear: need a tensor .*, got ndarray\."):
        hear.sounds_of(np.zeros((2, RATE), np.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_what_resampling_adds_to_full_scale_and_other_floats_are_allowed(model, dtype):
    audio = (1.25 * noise(2, RATE).sign()).to(dtype)
    assert torch.equal(
        hear.get_scene_embeddings(audio, model), hear.get_scene_embeddings(audio.float(), model)
    )


@pytest.mark.slow
def test_hear_validator_is_content(checkpoint, project):
    """`make hear`, with this environment in place of .venv."""
    environment = os.environ | {"PYTHONPATH": str(project)}

    def make(target: str) -> subprocess.CompletedProcess[str]:
        tools, here = f"BIN={Path(sys.executable).parent}", "--old-file=.venv/installed"
        command = ["make", target, f"MODEL={checkpoint}", tools, here]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)

    made = make(".venv-hear/tensorflow.py")
    if "No matching distribution found" in made.stderr:
        pytest.skip(f"pip cannot fetch hear-validator: {made.stderr.splitlines()[-2]}")
    assert made.returncode == 0, made.stderr
    said = make("hear")
    assert said.returncode == 0, said.stderr
    assert "Looks good!" in said.stdout.splitlines()


@pytest.mark.gpu
def test_a_model_on_a_gpu_takes_sounds_from_anywhere(checkpoint):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model, audio = hear.load_model(str(checkpoint)), noise(2, RATE)
    assert next(model.parameters()).is_cuda
    on_gpu, _ = hear.get_timestamp_embeddings(audio.cuda(), model)
    assert on_gpu.is_cuda
    on_cpu, _ = hear.get_timestamp_embeddings(audio, model.to("cpu"))
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-3, rtol=1e-3)
