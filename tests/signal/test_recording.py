"""Recordings in blocks are what they are as a whole, and memory does not follow what a file says."""

import json
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import soundfile
import soxr

from matpac.clip import UnusableAudio
from matpac.signal import audio, logmel, recording
from matpac.signal import resample as resampling
from matpac.signal.audio import decode, decode_blocks, read_audio
from matpac.signal.logmel import log_mel
from matpac.signal.mel import mel_filters
from matpac.signal.recording import convert, whole_log_mel
from matpac.signal.resample import resample, resample_blocks

RATES_HZ = (1_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000)


def flac(num_samples, rate_hz, seed=0) -> bytes:
    file = BytesIO()
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples)
    soundfile.write(file, noise, rate_hz, format="FLAC")
    return file.getvalue()


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks a second in every step."""
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 5_000)
    monkeypatch.setattr(resampling, "PIECE_SAMPLES", 7_000)
    monkeypatch.setattr(logmel, "FRAMES_AT_ONCE", logmel.BLOCK_FRAMES)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_blocks_give_the_bits_of_the_whole(rate_hz, paper, small_blocks):
    """soxr's own function for whole waveforms is the reference."""
    data = flac(6 * rate_hz + 17, rate_hz)
    samples, _ = decode(data)
    waveform = samples if rate_hz == 16_000 else soxr.resample(samples, rate_hz, 16_000, quality="HQ")
    expected = log_mel(waveform, paper, mel_filters(paper))
    converted = convert(data, paper, mel_filters(paper))
    blocks = list(converted.blocks)
    assert len(blocks) == 3
    assert np.concatenate(blocks).tobytes() == expected.tobytes()
    assert (converted.native_rate_hz, converted.num_samples) == (rate_hz, 6 * rate_hz + 17)
    assert whole_log_mel(blocks).tobytes() == expected.astype(np.float16).tobytes()


@pytest.mark.parametrize("method", ["soxr_hq", "kaiser_best"])
@pytest.mark.parametrize("rate_hz", [1_000, 11_025, 22_050, 44_100, 48_000])
def test_pieces_are_resampled_as_the_whole(rate_hz, method, monkeypatch):
    samples = np.random.default_rng(0).standard_normal(rate_hz + 5).astype(np.float32)
    whole = resample(samples, rate_hz, 16_000, method)
    for length in (4_096, rate_hz):
        pieces = (samples[first : first + length] for first in range(0, len(samples), length))
        joined = np.concatenate(list(resample_blocks(pieces, rate_hz, 16_000, method)))
        assert joined.tobytes() == whole.tobytes()
    monkeypatch.setattr(resampling, "PIECE_SAMPLES", 10_000)
    assert resample(samples, rate_hz, 16_000, method).tobytes() == whole.tobytes()


@pytest.mark.parametrize("num_samples", [1, 399, 400, 559, 560, 41_359, 41_360, 41_361, 82_320])
def test_no_frame_is_lost_between_blocks(num_samples, paper, small_blocks):
    waveform = np.random.default_rng(0).standard_normal(num_samples).astype(np.float32)
    cut = (waveform[first : first + 997] for first in range(0, num_samples, 997))
    blocks = list(logmel.log_mel_blocks(cut, paper, mel_filters(paper)))
    joined = np.concatenate([np.empty((0, 80), np.float32), *blocks])
    assert joined.tobytes() == log_mel(waveform, paper, mel_filters(paper)).tobytes()


def test_a_hop_may_be_longer_than_a_window(paper, small_blocks):
    params = paper.model_copy(update={"hop_ms": 40.0})
    waveform = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    blocks = logmel.log_mel_blocks(np.split(waveform, 8), params, mel_filters(params))
    assert np.concatenate(list(blocks)).tobytes() == log_mel(waveform, params, mel_filters(params)).tobytes()


def reason(blocks) -> str:
    with pytest.raises(UnusableAudio) as caught:
        list(blocks)
    return caught.value.reason


def test_what_cannot_be_held_is_refused_by_its_length_after_resampling(paper, monkeypatch):
    """The limit here is 0.001 hours, 3.6 s: 360 frames of 80 values, two bytes each."""
    monkeypatch.setattr(recording, "MOST_BYTES", 360 * 80 * 2)
    for rate_hz in (1_000, 8_000, 48_000):
        held = convert(flac(int(3.6 * rate_hz), rate_hz), paper, mel_filters(paper)).blocks
        assert sum(map(len, held)) == 358
        longer = convert(flac(4 * rate_hz, rate_hz), paper, mel_filters(paper)).blocks
        assert reason(longer) == "too long (longer than 0.001 hours)"


def test_the_limit_holds_while_a_recording_is_read(paper, monkeypatch, small_blocks):
    """Nothing is decoded beyond it, though the header tells no length."""
    monkeypatch.setattr(recording, "MOST_BYTES", 360 * 80 * 2)
    data = bytearray(flac(160_000, 16_000))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    converted = convert(bytes(data), paper, mel_filters(paper))
    assert reason(converted.blocks) == "too long (longer than 0.001 hours)"
    assert converted.num_samples < 100_000


def test_nothing_is_decoded_if_the_header_tells_that_it_is_too_long(paper, monkeypatch):
    monkeypatch.setattr(recording, "MOST_BYTES", 360 * 80 * 2)
    whole = flac(160_000, 16_000)
    with pytest.raises(UnusableAudio, match=r"too long \(longer than 0.001 hours\)"):
        convert(whole, paper, mel_filters(paper))
    with pytest.raises(UnusableAudio, match="truncated"):
        convert(whole[: len(whole) // 2], paper, mel_filters(paper))


def test_a_waveform_is_refused_by_its_length_after_resampling(tmp_path, paper, monkeypatch):
    monkeypatch.setattr(audio, "MOST_SAMPLES", 16_000)
    for rate_hz in (1_000, 16_000, 48_000):
        (tmp_path / "a.flac").write_bytes(flac(rate_hz, rate_hz))
        assert len(read_audio(tmp_path / "a.flac", paper)) == 16_000
        (tmp_path / "a.flac").write_bytes(flac(rate_hz + rate_hz // 10, rate_hz))
        with pytest.raises(UnusableAudio, match=r"too long \(longer than 0.000278 hours\)"):
            read_audio(tmp_path / "a.flac", paper)


def test_damage_is_found_where_it_lies(paper, small_blocks):
    data = bytearray(flac(200_000, 16_000))
    for at in range(len(data) * 2 // 3, len(data)):
        data[at] = 0
    converted = convert(bytes(data), paper, mel_filters(paper), reject=("truncated",))
    assert len(next(converted.blocks)) == 256
    assert reason(converted.blocks).startswith(("truncated", "cannot be decoded"))
    silent = BytesIO()
    soundfile.write(silent, np.zeros(50_000), 16_000, format="WAV")
    assert reason(decode_blocks(silent.getvalue(), reject=("silent",)).samples) == (
        "silent (every sample is 0)"
    )


CONVERT = """
import json, resource, sys
from pathlib import Path
from matpac.params import LogMel
from matpac.shards.statistics import statistics_of
from matpac.shards.tar import StoredClip, write_tar
from matpac.signal.mel import mel_filters
from matpac.signal.recording import convert, whole_log_mel
path, params = Path(sys.argv[1]), LogMel(**json.loads(sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
log_mel = whole_log_mel(convert(path, params, mel_filters(params)).blocks)
statistics_of(log_mel)
write_tar(path.with_suffix(".tar"), [StoredClip("a", log_mel, {})])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(log_mel), 1024 * before, 1024 * after]))
"""


def peak_of(path, params) -> tuple[int, int]:
    """Frames, and bytes of memory that a fresh process needed besides its start."""
    command = [sys.executable, "-c", CONVERT, path, params.model_dump_json()]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    num_frames, before, after = json.loads(found.stdout)
    return num_frames, after - before


def hours_of_tone(path, hours, rate_hz) -> None:
    """A tone as a small FLAC file."""
    second = (np.sin(2 * np.pi * 100 * np.arange(rate_hz) / rate_hz) * 8_000).astype(np.int16)
    with soundfile.SoundFile(path, "w", rate_hz, 1, format="FLAC") as file:
        for _ in range(int(hours * 60)):
            file.write(np.tile(second, 60))


@pytest.mark.slow
def test_memory_follows_the_log_mel_not_the_samples(tmp_path, paper):
    """Two hours at 1 kHz, which become 460 MB of samples and 920 MB as float64 log-mel."""
    hours_of_tone(tmp_path / "long.flac", 2, 1_000)
    num_frames, peak = peak_of(tmp_path / "long.flac", paper)
    assert num_frames == 2 * 360_000 - 2
    assert peak < 2 * 80 * num_frames + 150e6


REFUSE = """
import resource, sys, time
from pathlib import Path
from matpac.clip import UnusableAudio
from matpac.datasets.inventory import Recording
from matpac.prepare.header_check import check_header
from matpac.signal.audio import read_waveform
from matpac.signal.mel import mel_filters
from matpac.signal.recording import convert
from tests.recordings import LOGMEL
path, params = Path(sys.argv[1]), LOGMEL.model_copy(update={"num_mels": 80})
filters = mel_filters(params)
ways = (
    lambda: list(convert(path, params, filters).blocks),
    lambda: read_waveform(path, 16_000, "soxr_hq"),
    lambda: check_header(path.parent, Recording(path.name, 1, "0", path.name), params, ()),
)
before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
for way in ways:
    try:
        way()
    except UnusableAudio as error:
        print(error.reason.split(" (")[0])
print(time.process_time() - begin < 1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000)
"""


@pytest.mark.slow
def test_hours_are_refused_at_once_in_little_memory(tmp_path, project):
    """Twenty hours at 1 kHz in 0.4 MB: as a waveform, 4.6 GB."""
    path = tmp_path / "long.flac"
    hour = np.zeros(3_600_000, dtype=np.int16)
    hour[0] = 1
    with soundfile.SoundFile(path, "w", 1_000, 1, format="FLAC") as file:
        for _ in range(20):
            file.write(hour)
    assert path.stat().st_size < 2**20
    command = [sys.executable, "-c", REFUSE, path]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=project).stdout
    assert found.splitlines() == ["too long"] * 3 + ["True True"]
