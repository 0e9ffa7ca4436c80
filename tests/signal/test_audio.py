import csv
import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from matpac.signal.audio import UnusableAudio, decode, read_audio
from matpac.signal.logmel import log_mel

RATE_HZ = 22_050


@pytest.fixture
def noise():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (RATE_HZ // 2, 3)).astype(np.float32)


def reason(path) -> str:
    with pytest.raises(UnusableAudio) as caught:
        decode(path)
    assert caught.value.path == path
    return caught.value.reason


def test_mono_is_the_mean_of_the_channels_before_resampling(tmp_path, paper, noise):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE_HZ, subtype="FLOAT")
    samples, rate_hz = decode(path)
    assert rate_hz == RATE_HZ
    assert samples == pytest.approx(noise.mean(axis=1), abs=1e-7)
    waveform = read_audio(path, paper)
    assert waveform.dtype == np.float32
    assert len(waveform) == 8_000


@pytest.mark.parametrize("num_channels", [1, 2, 20])
def test_blocks_are_joined_without_loss(tmp_path, num_channels):
    """More than a block of 2 ** 20 samples."""
    num_frames = 2**21 // num_channels + 12_345
    ramp = np.arange(num_frames, dtype=np.float32) % 1000 / 1000
    path = tmp_path / "long.wav"
    soundfile.write(path, np.repeat(ramp[:, None], num_channels, axis=1), 8_000, subtype="FLOAT")
    assert np.abs(decode(path)[0] - ramp).max() < 1e-6


def test_a_header_that_promises_too_much_costs_nothing(tmp_path, noise):
    path = tmp_path / "boast.wav"
    soundfile.write(path, noise[:, 0], RATE_HZ, subtype="PCM_16")
    header = bytearray(path.read_bytes())
    header[40:44] = (0x7FFFFFF0).to_bytes(4, "little")
    path.write_bytes(header)
    assert len(decode(path)[0]) == len(noise)


def test_reasons(tmp_path, noise):
    def written(name, samples, rate_hz=RATE_HZ):
        soundfile.write(tmp_path / name, samples, rate_hz, subtype="FLOAT")
        return tmp_path / name

    holes = noise[:, 0].copy()
    holes[100] = np.nan
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "zeros.mp3").write_bytes(b"ID3" + bytes(2000))
    assert reason(written("nan.wav", holes)) == "not finite (NaN or infinite samples)"
    assert reason(written("loud.wav", noise * np.float32(1e12))) == "samples beyond 1e+10"
    assert reason(written("empty.wav", noise[:0])) == "no samples"
    assert reason(written("slow.wav", noise, 10)) == "sample rate of 10 Hz"
    assert reason(tmp_path / "text.wav") == "cannot be decoded (Format not recognised)"
    assert reason(tmp_path / "zeros.mp3") == "cannot be decoded (no valid MP3 frame)"
    assert reason(tmp_path / "none.wav") == "no such file"


def test_less_than_a_window_is_too_short(tmp_path, paper):
    for num_samples in (399, 400):
        soundfile.write(tmp_path / f"{num_samples}.wav", np.zeros(num_samples), 16_000)
    assert len(log_mel(read_audio(tmp_path / "400.wav", paper), paper)) == 1
    with pytest.raises(UnusableAudio, match="too short"):
        read_audio(tmp_path / "399.wav", paper)


def test_the_exception_crosses_processes(tmp_path):
    error = UnusableAudio(tmp_path / "a.wav", "no samples")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.reason, str(copy)) == (error.path, error.reason, str(error))


def test_damaged_mp3s_print_nothing_in_a_muted_process(tmp_path):
    (tmp_path / "zeros.mp3").write_bytes(b"ID3" + bytes(2000))
    script = (
        "import sys; from pathlib import Path\n"
        "from matpac.signal.audio import UnusableAudio, decode, mute_c_libraries\n"
        "mute_c_libraries()\n"
        "try: decode(Path(sys.argv[1]))\n"
        "except UnusableAudio: print('rejected', file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "zeros.mp3"]
    assert subprocess.run(command, capture_output=True, text=True).stderr == "rejected\n"


def test_workers_start_without_heavy_imports():
    script = (
        "import sys, matpac.signal.audio, matpac.signal.logmel\n"
        "print({'torch', 'librosa', 'prefect', 'webdataset', 'sklearn'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert found == "set()\n"


def test_strange_real_files(audio_folder, paper, recwarn):
    """Headers that lie, 20 channels, 64-bit floats, 192 kHz, containers nobody here can open."""
    folder = audio_folder / "odd"
    with (folder / "labels.csv").open(newline="") as table:
        paths = [folder / row["path"] for row in csv.DictReader(table)]
    reasons = []
    for path in paths:
        try:
            frames = log_mel(read_audio(path, paper), paper)
        except UnusableAudio as error:
            reasons.append(error.reason)
        else:
            assert len(frames) > 0
            assert np.isfinite(frames).all()
    assert (len(paths) - len(reasons), len(reasons)) == (94, 50)
    assert reasons.count("no samples") == 9
    assert not recwarn.list
