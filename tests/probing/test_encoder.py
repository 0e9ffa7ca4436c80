import json
import shutil

import numpy as np
import pytest
import torch

import matpac
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.probing.encoder import AUDIOSET, PAPER_LOGMEL, AudioEncoder, load_encoder
from matpac.signal.audio import UnusableAudio

RATE = 16_000


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return AudioEncoder(Patches(80, 64, 16).eval(), Encoder(16, 2, 2).eval(), PAPER_LOGMEL, AUDIOSET, 64)


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(scale=0.1, size=RATE).astype(np.float32)


def arrays(path) -> dict:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


class Golden:
    def __init__(self, folder):
        heads = json.loads((folder / "infer_meta.json").read_text())["num_heads"]
        self.encoder = load_encoder(folder / "infer_state.pt", "cpu", num_heads=heads)
        self.outputs = arrays(folder / "infer_outputs.npz")
        inputs = arrays(folder / "infer_inputs.npz")
        wave = inputs["wave_int16"] * inputs["wave_scale"]
        self.clips = {
            str(name): wave[start : start + length]
            for name, (start, length) in zip(inputs["clip_names"], inputs["clip_start_len"], strict=True)
        }


@pytest.fixture(scope="module")
def golden(golden_folder):
    return Golden(golden_folder)


def test_pooled_embeddings_of_all_layers_match_the_authors_code(golden):
    for name, clip in golden.clips.items():
        expected = golden.outputs[f"precise_pooled_{name}"].squeeze()
        [found] = golden.encoder.embed(clip, RATE, layers=True)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_array_equal(golden.encoder.embed(clip, RATE)[0], found[-1])


def test_embeddings_in_time_of_all_layers_match_the_authors_code(golden):
    for name, clip in golden.clips.items():
        expected = golden.outputs[f"precise_time_{name}"].squeeze()
        found = golden.encoder.embed_in_time(clip, RATE, layers=True)
        # Single steps feel the 1e-4 between two front ends more than their mean does.
        np.testing.assert_allclose(found, expected, atol=3e-5)


def test_a_batch_matches_the_authors_code(golden):
    clip = golden.clips["10.0s"]
    found = golden.encoder.embed(np.stack([clip, clip[::-1]]), RATE, layers=True)
    np.testing.assert_allclose(found, golden.outputs["precise_pooled_batch2"], atol=1e-5)


def test_a_released_name_opens_the_file_in_the_cache(golden, golden_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATPAC_HOME", str(tmp_path))
    shutil.copy(golden_folder / "infer_state.pt", tmp_path / "matpac_10_2048.pt")
    encoder = load_encoder("matpac_10_2048", "cpu", num_heads=2)
    clip = golden.clips["6.1s"]
    assert np.array_equal(encoder.embed(clip, RATE), golden.encoder.embed(clip, RATE))
    assert matpac.load("matpac_10_2048", device="cpu").dim == 160


def test_a_batch_of_different_lengths_equals_single_clips(encoder, noise):
    clips = [noise, noise[: RATE // 3], noise[:2000], noise[: RATE // 2]]
    together = encoder.embed(clips, RATE)
    alone = np.concatenate([encoder.embed(clip, RATE) for clip in clips])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_long_clips_are_embedded_in_chunks_as_long_as_the_crops_of_training(encoder):
    log_mel = np.random.default_rng(0).normal(size=(64 + 64 + 40, 80)).astype(np.float32)
    whole, *chunks = encoder.embed_log_mels_in_time([log_mel, log_mel[:64], log_mel[64:128], log_mel[128:]])
    np.testing.assert_allclose(whole, np.concatenate(chunks), atol=1e-5)


def test_channels_are_averaged(encoder, noise):
    stereo = np.stack([noise, np.zeros_like(noise)])[None]
    np.testing.assert_allclose(encoder.embed(stereo, RATE), encoder.embed(noise / 2, RATE), atol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 399, 1600])
def test_the_shortest_clips_embed(encoder, num_samples):
    assert encoder.embed(np.full(num_samples, 0.1), RATE).shape == (1, 80)


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_any_rate_embeds(encoder, rate):
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    reference = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    found, expected = encoder.embed(tone, rate), encoder.embed(reference, RATE)
    assert np.corrcoef(found, expected)[0, 1] > 0.95


def test_an_empty_waveform_is_refused(encoder):
    with pytest.raises(ValueError, match="at least one sample"):
        encoder.embed(np.zeros(0), RATE)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_samples_are_refused(encoder, bad):
    with pytest.raises(ValueError, match="finite samples"):
        encoder.embed(np.array([0.0, bad, 0.0]), RATE)


def test_files_of_any_kind_embed(encoder, tmp_path, noise):
    soundfile = pytest.importorskip("soundfile")
    for rate, channels in [(8_000, 1), (192_000, 1), (44_100, 2), (16_000, 20)]:
        samples = np.tile(np.resize(noise, rate)[:, None], channels)
        soundfile.write(tmp_path / "a.wav", samples, rate)
        assert encoder.embed_file(tmp_path / "a.wav").shape == (80,)


def test_an_unusable_file_is_named(encoder, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    with pytest.raises(UnusableAudio, match=r"broken\.wav"):
        encoder.embed_file(tmp_path / "broken.wav")


def test_neither_folder_nor_released_file_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="need a checkpoint folder or a released"):
        matpac.load(tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match=r"meta\.json is missing"):
        matpac.load(tmp_path)


def test_ten_minutes_embed_in_bounded_memory(encoder):
    long = np.random.default_rng(0).normal(scale=0.1, size=600 * RATE).astype(np.float32)
    assert np.isfinite(encoder.embed(long, RATE)).all()
