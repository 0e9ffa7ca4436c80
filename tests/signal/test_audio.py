import os
import pickle
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from matpac.clip import UnusableAudio, phrase_of
from matpac.signal.audio import decode, read_audio
from matpac.signal.logmel import log_mel
from matpac.signal.mel import mel_filters

RATE_HZ = 22_050


@pytest.fixture
def noise():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (RATE_HZ // 2, 3)).astype(np.float32)


def reason(path, reject=()) -> str:
    with pytest.raises(UnusableAudio) as caught:
        decode(path, reject=reject)
    assert caught.value.path == path
    assert phrase_of(caught.value.reason)
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
    """Several blocks of at most 2 ** 18 samples."""
    num_frames = 2**19 // num_channels + 12_345
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


def test_a_header_with_too_many_channels_costs_nothing(noise):
    file = BytesIO()
    soundfile.write(file, noise[:, 0], RATE_HZ, format="WAV", subtype="PCM_16")
    data = bytearray(file.getvalue())
    data[22:24] = b"\xff\xff"
    with pytest.raises(UnusableAudio, match="cannot be decoded"):
        decode(bytes(data))


def test_reasons(tmp_path, noise):
    def written(name, samples, rate_hz=RATE_HZ):
        soundfile.write(tmp_path / name, samples, rate_hz, subtype="FLOAT")
        return tmp_path / name

    holes = noise[:, 0].copy()
    holes[100] = np.nan
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "zeros.mp3").write_bytes(b"\xff\xfb\x90\xc4" + bytes(2000))
    (tmp_path / "nothing.flac").touch()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    assert reason(written("nan.wav", holes)) == "not finite (NaN or infinite samples)"
    assert reason(written("loud.wav", noise * np.float32(1e12))) == "implausible (samples beyond 1e+10)"
    assert reason(written("empty.wav", noise[:0])) == "no samples"
    assert (
        reason(written("slow.wav", noise, 10))
        == "sample rate out of range (found 10 Hz, need 1,000 to 1,000,000 Hz)"
    )
    assert reason(tmp_path / "text.wav") == "cannot be decoded (Format not recognised)"
    assert reason(tmp_path / "zeros.mp3") == "cannot be decoded (no valid MP3 frame)"
    assert reason(tmp_path / "nothing.flac") == "cannot be decoded (the file is empty)"
    assert reason(tmp_path / "none.wav") == "cannot be read (no such file)"
    assert reason(tmp_path) == "cannot be read (a folder, not a file)"
    assert reason(tmp_path / "loop.wav") == "cannot be read (a link to nothing, or to itself)"
    assert reason(Path("/proc/self/mem")) == "cannot be read (Input/output error)"
    assert reason(tmp_path / ("a" * 300)) == "cannot be read (File name too long)"


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_one_channel_keeps_its_samples(tmp_path, noise, subtype):
    soundfile.write(tmp_path / "a.wav", noise[:, 0], RATE_HZ, subtype=subtype)
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert decode(tmp_path / "a.wav")[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("place", [0, 300_000])
def test_silence_ends_with_one_sample_wherever_it_is(tmp_path, place):
    samples = np.zeros(400_000)
    samples[place] = 0.5
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ)
    assert len(decode(tmp_path / "a.wav", reject=("silent",))[0]) == 400_000


@pytest.mark.parametrize("level", [0, 0.25])
def test_silence_is_refused_on_demand(tmp_path, level):
    """Constant samples are silence. One different sample is sound."""
    path = tmp_path / "a.wav"
    samples = np.full((1_000, 2), float(level))
    soundfile.write(path, samples, 16_000)
    assert len(decode(path)[0]) == 1_000
    assert reason(path, reject=("silent",)) == f"silent (every sample is {level:g})"
    samples[500] = 0.5
    soundfile.write(path, samples, 16_000)
    assert len(decode(path, reject=("silent",))[0]) == 1_000


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_24"),
        ("WAV", "FLOAT"),
        ("WAV", "GSM610"),
        ("RF64", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
    ],
)
def test_bytes_give_the_samples_of_their_file_under_any_name(tmp_path, noise, container, subtype):
    rate_hz = 8_000 if subtype == "GSM610" else 16_000
    path = tmp_path / "a.raw"
    soundfile.write(tmp_path / "a", noise[:, 0], rate_hz, format=container, subtype=subtype)
    (tmp_path / "a").rename(path)
    expected, _ = soundfile.read(os.open(path, os.O_RDONLY), frames=20_000, dtype="float32")
    of_path, of_bytes = (decode(source, reject=("truncated",)) for source in (path, path.read_bytes()))
    assert of_path[1] == of_bytes[1] == rate_hz
    assert of_path[0].tobytes() == of_bytes[0].tobytes()
    assert of_path[0] == pytest.approx(expected, abs=1e-6)


def test_bytes_are_refused_by_their_name():
    with pytest.raises(UnusableAudio) as caught:
        decode(b"no audio", Path("a.tar/b.flac"))
    assert caught.value.path == Path("a.tar/b.flac")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    path.touch(mode=0o000)
    assert reason(path) == "cannot be read (Permission denied)"


def test_flac_of_unknown_length_is_decoded(noise):
    """Streaming encoders write 0 as the number of samples."""
    file = BytesIO()
    soundfile.write(file, noise[:, 0], RATE_HZ, format="FLAC")
    data = bytearray(file.getvalue())
    expected, _ = decode(bytes(data))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert decode(bytes(data), reject=("truncated",))[0].tobytes() == expected.tobytes()


def test_a_tag_behind_flac_is_no_sound(noise):
    file = BytesIO()
    soundfile.write(file, noise[:, 0], RATE_HZ, format="FLAC")
    tagged = file.getvalue() + b"TAG" + bytes(125)
    assert len(decode(tagged, reject=("truncated",))[0]) == len(noise)


def test_a_hole_in_ogg_is_left_out_not_filled_from_elsewhere():
    file = BytesIO()
    ramp = np.linspace(-1, 1, 200_000) * np.sin(np.arange(200_000) / 20)
    soundfile.write(file, ramp, 16_000, format="OGG", subtype="VORBIS")
    data = bytearray(file.getvalue())
    data[len(data) * 3 // 5] ^= 0xFF
    samples, _ = decode(bytes(data))
    assert 100_000 < len(samples) < 150_000
    with pytest.raises(UnusableAudio, match="truncated"):
        decode(bytes(data), reject=("truncated",))


def test_less_than_a_window_is_too_short(tmp_path, paper):
    for num_samples in (399, 400):
        soundfile.write(tmp_path / f"{num_samples}.wav", np.zeros(num_samples), 16_000)
    assert len(log_mel(read_audio(tmp_path / "400.wav", paper), paper, mel_filters(paper))) == 1
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
        "from matpac.clip import UnusableAudio\n"
        "from matpac.signal.audio import decode, mute_c_libraries\n"
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


def stereo(left, right, rate_hz=16_000) -> bytes:
    file = BytesIO()
    soundfile.write(file, np.stack([left, right], axis=1), rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.mark.parametrize(
    ("remainder", "words"), [(0, "their mean is 0"), (0.02, "their mean is 40 dB below them")]
)
def test_channels_that_cancel_are_a_reason_with_a_way_out(remainder, words):
    noise = np.random.default_rng(0).normal(scale=0.1, size=200_000)
    noise = (2**15 * noise).round() / 2**15
    cancelling = stereo(noise, noise * (remainder - 1))
    with pytest.raises(UnusableAudio) as caught:
        decode(cancelling, reject=("silent",))
    assert caught.value.reason == (f"channels cancel ({words}; shards.channels: left or loudest takes one)")
    assert len(decode(cancelling)[0]) == 200_000
    left, _ = decode(cancelling, reject=("silent",), channels="left")
    np.testing.assert_allclose(left, noise, atol=1e-4)


def test_the_loudest_channel_is_found_at_the_end_of_the_recording(tmp_path):
    noise = np.random.default_rng(0).normal(scale=0.01, size=(300_000, 2)).astype(np.float32)
    noise[-50_000:, 1] *= 20
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, 16_000, subtype="FLOAT")
    for source in (path, path.read_bytes()):
        for channels, expected in (("left", noise[:, 0]), ("loudest", noise[:, 1])):
            np.testing.assert_array_equal(decode(source, channels=channels)[0], expected)
    mono = stereo(noise[:, 0], noise[:, 0])
    assert decode(mono, channels="loudest")[0].tobytes() == decode(mono, channels="left")[0].tobytes()


def test_independent_channels_do_not_cancel_and_silence_is_no_cancellation():
    random = np.random.default_rng(0)
    many = BytesIO()
    soundfile.write(many, random.normal(scale=0.1, size=(20_000, 20)), 16_000, format="WAV")
    assert len(decode(many.getvalue(), reject=("silent",))[0]) == 20_000
    assert len(decode(stereo(random.normal(size=9_000), np.zeros(9_000)), reject=("silent",))[0]) == 9_000
    with pytest.raises(UnusableAudio, match="silent"):
        decode(stereo(np.zeros(9_000), np.zeros(9_000)), reject=("silent",))
