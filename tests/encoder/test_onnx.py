"""ONNX Runtime gives what torch gives."""

import stat
import sys

import numpy as np
import pytest
import torch

from matpac.cli import main
from matpac.encoder.encoder import AudioEncoder, load_encoder
from matpac.encoder.onnx import export_onnx
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.params import Custom, Model
from matpac.signal.mel import mel_filters
from matpac.weights.released import AUDIOSET, PAPER_LOGMEL
from tests.checkpoints import untrained_checkpoint
from tests.files import files_end_at, files_for
from tests.recordings import LOGMEL

onnxruntime = pytest.importorskip("onnxruntime")

RATE = 16_000
CUSTOM = Custom(
    encoder_dim=24,
    encoder_depth=3,
    encoder_heads=3,
    predictor_dim=16,
    predictor_depth=1,
    predictor_heads=2,
    head_hidden=20,
    head_bottleneck=10,
)
"""Dimensions of no size with a name."""
CHUNK = 64
SECONDS = (0.2, 0.5, 0.655, 0.7, 1.0, 3.0, 6.095, 10.0, 30.0, 60.0)
"""A chunk of 64 frames is 0.655 s, one of 608 frames 6.095 s."""


def tiny_encoder(chunk_frames: int) -> AudioEncoder:
    """With weights so large that attention tells tokens apart, as after training."""
    torch.manual_seed(0)
    patches, encoder = Patches(80, chunk_frames, 32).eval(), Encoder(32, 2, 2).eval()
    with torch.no_grad():
        for block in encoder.blocks:
            block.attn.qkv.weight.mul_(5)
    return AudioEncoder(patches, encoder, PAPER_LOGMEL, mel_filters(PAPER_LOGMEL), AUDIOSET, chunk_frames)


def runs(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda waveform: session.run(["embedding"], {"waveform": waveform})[0]


def sounds(num_clips, num_samples):
    """A rising tone in noise, each clip 20 dB quieter than the one before; the last is silent."""
    generator = np.random.default_rng(num_samples)
    time_s = np.arange(num_samples) / RATE
    tone = np.sin(2 * np.pi * (200 + 50 * time_s) * time_s)
    clips = [
        10.0**-clip * (0.5 * tone + generator.normal(scale=0.02, size=num_samples))
        for clip in range(num_clips - 1)
    ]
    return np.stack([*clips, np.zeros(num_samples)]).astype(np.float32)


@pytest.fixture(scope="module", params=[CHUNK, 608])
def both(request, tmp_path_factory):
    encoder = tiny_encoder(request.param)
    path = tmp_path_factory.mktemp("onnx") / "encoder.onnx"
    export_onnx(encoder, path)
    return encoder, runs(path)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", SECONDS)
def test_onnx_runtime_equals_torch(both, seconds):
    encoder, run = both
    waveform = sounds(4, round(seconds * RATE))
    np.testing.assert_allclose(run(waveform), encoder.embed(waveform, RATE), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 15, 16, 17, 63, 64, 65, 128, 129, 607, 608, 609, 1216])
def test_the_edges_of_patches_and_chunks_are_where_they_are_in_torch(both, frames):
    encoder, run = both
    for num_samples in (400 + 160 * (frames - 1), 400 + 160 * frames - 1):
        waveform = sounds(2, num_samples)
        np.testing.assert_allclose(run(waveform), encoder.embed(waveform, RATE), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [1, 160, 399])
def test_less_than_a_window_is_filled_with_silence(both, num_samples):
    encoder, run = both
    waveform = sounds(2, num_samples)
    np.testing.assert_allclose(run(waveform), encoder.embed(waveform, RATE), atol=1e-4)


@pytest.mark.slow
def test_steps_equal_those_of_torch_to_one_in_ten_thousand(tmp_path):
    encoder, out = tiny_encoder(CHUNK), tmp_path / "steps.onnx"
    export_onnx(encoder, out, in_time=True, hop_ms=40)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert said == {"sample_rate_hz": "16000", "first_center_ms": "87.5", "hop_ms": "40"}
    for num_samples in (100, 400, 3000, 20_000, 100_000):
        waveform = sounds(2, num_samples)[:1]
        [steps] = session.run(["steps"], {"waveform": waveform})
        [expected] = encoder.embed_in_time(waveform, RATE, hop_ms=40)
        np.testing.assert_allclose(steps[0], expected.embeddings, atol=1e-4)


@pytest.mark.slow
def test_deviations_equal_those_of_torch(tmp_path):
    encoder, out = tiny_encoder(CHUNK), tmp_path / "encoder.onnx"
    export_onnx(encoder, out, pooling="mean_and_deviation")
    waveform = sounds(2, 40_000)
    expected = encoder.embed(waveform, RATE, pooling="mean_and_deviation")
    np.testing.assert_allclose(runs(out)(waveform), expected, atol=1e-4)


def test_a_hop_without_time_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"hop_ms: need in_time"):
        export_onnx(tiny_encoder(CHUNK), tmp_path / "x.onnx", hop_ms=40)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.txt", r"^--out: need a name that ends in .onnx, got .*x.txt$"),
        ("folder", r"^--out: need a name that ends in .onnx, got .*folder$"),
        ("folder.onnx", r"^--out: need a new name or one to replace, found a folder at .*folder.onnx$"),
        ("afile/x.onnx", r"afile/x.onnx: need a name in a folder, found something else at .*afile$"),
    ],
)
def test_where_no_file_can_be_is_said_before_the_work(tmp_path, monkeypatch, name, said):
    (tmp_path / "afile").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.onnx").mkdir()
    monkeypatch.setattr(torch.onnx, "export", None)
    with pytest.raises(ValueError, match=said):
        export_onnx(tiny_encoder(CHUNK), tmp_path / name)


@pytest.mark.slow
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    out = tmp_path / "x.onnx"
    with (
        files_end_at(10_000),
        pytest.raises(OSError, match=rf"^{out}: cannot be written \(File too large\)") as said,
    ):
        export_onnx(tiny_encoder(CHUNK), out)
    assert "\n" not in str(said.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_writes_one_file_that_says_its_rate(tmp_path, monkeypatch, capsys):
    model = Model(size="custom", custom=CUSTOM, mask_ratio=0.6, num_clusters=64, num_predictor_heads=1)
    checkpoint = untrained_checkpoint(tmp_path / "checkpoint", model=model)
    out = tmp_path / "new" / "encoder.onnx"
    monkeypatch.setattr(sys, "argv", ["matpac", "export", str(checkpoint), "--out", str(out)])
    with files_for(0o027), pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert capsys.readouterr().out == f"{out}: waveform [batch, time] at 16000 Hz -> embedding [batch, 24]\n"
    assert [path.name for path in out.parent.iterdir()] == ["encoder.onnx"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"sample_rate_hz": "16000"}
    waveform = sounds(2, RATE)
    expected = load_encoder(checkpoint).embed(waveform, LOGMEL.sample_rate_hz)
    np.testing.assert_allclose(session.run(None, {"waveform": waveform})[0], expected, atol=1e-3)
