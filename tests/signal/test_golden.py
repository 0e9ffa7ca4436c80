"""The front end against values recorded from the authors' code."""

import json

import numpy as np
import pytest

from matpac.params import LogMel
from matpac.signal.logmel import hann, log_mel
from matpac.signal.mel import mel_filters
from matpac.signal.resample import resample


@pytest.fixture(scope="module")
def meta(golden_folder):
    return json.loads((golden_folder / "prep_meta.json").read_text())


@pytest.fixture(scope="module")
def prep(golden_folder):
    with np.load(golden_folder / "prep.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def params(meta):
    logmel, rate_hz = meta["logmel"], meta["target"]
    return LogMel(
        sample_rate_hz=rate_hz,
        window_ms=1000 * logmel["win"] / rate_hz,
        hop_ms=1000 * logmel["hop"] / rate_hz,
        num_mels=logmel["n_mels"],
        fmin_hz=logmel["f_min"],
        fmax_hz=logmel["f_max"],
        resampler="kaiser_best",
    )


def test_window_and_filters(prep, params):
    assert hann(params.window_samples) == pytest.approx(prep["window"], abs=1e-6)
    assert mel_filters(params) == pytest.approx(prep["mel_fb"], abs=1e-6)


@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_waveforms_and_log_mels_at_every_rate(prep, params, channels):
    rates_hz = [int(key.removeprefix("in_")) for key in prep if key.startswith("in_") and key != "in_scale"]
    assert rates_hz
    for rate_hz in rates_hz:
        samples = prep[f"in_{rate_hz}"].astype(np.float32) * prep["in_scale"]
        samples = samples[:, 0] if channels == "mono" else samples.mean(axis=1)
        waveform = resample(samples, rate_hz, params.sample_rate_hz, "kaiser_best")
        key = f"{channels}_{rate_hz}"
        if f"wav16k_{key}" in prep:
            assert waveform == pytest.approx(prep[f"wav16k_{key}"], abs=1e-5)
        frames = log_mel(waveform, params, mel_filters(params))
        assert frames == pytest.approx(prep[f"lms_{key}"].T, abs=2e-4)


def test_log_mels_of_the_inference_clips(golden_folder, params):
    with np.load(golden_folder / "infer_inputs.npz") as inputs:
        wave = inputs["wave_int16"].astype(np.float32) * inputs["wave_scale"]
        clips = dict(zip(inputs["clip_names"], inputs["clip_start_len"], strict=True))
    with np.load(golden_folder / "infer_outputs.npz") as outputs:
        golden = {key: outputs[key] for key in outputs if key.startswith("lms_")}
    assert golden
    for key, expected in golden.items():
        name, _, every = key.removeprefix("lms_").partition("|::")
        start, length = clips[name]
        frames = log_mel(wave[start : start + length], params, mel_filters(params))[:: int(every or 1)]
        assert frames == pytest.approx(expected.T, abs=2e-4)
