from io import BytesIO

import numpy as np
import pytest
import soundfile

from matpac.signal.audio import decode
from matpac.signal.mp3 import counts_frames, is_mp3


def mp3(rate_hz, num_channels, bitrate_mode) -> bytes:
    """Noise that fades in: the first frames are small."""
    noise = np.random.default_rng(0).uniform(-1, 1, (5 * rate_hz, num_channels))
    file = BytesIO()
    with soundfile.SoundFile(
        file, "w", rate_hz, num_channels, format="MP3", bitrate_mode=bitrate_mode, compression_level=0.3
    ) as stream:
        stream.write(noise * np.linspace(0, 1, len(noise))[:, None])
    return file.getvalue()


def without_note(data: bytes) -> bytes:
    """The file from its second frame on: the first is the note."""
    second = next(
        position
        for position in range(40, len(data))
        if data[position : position + 2] == data[:2] and data[position + 2] & 12 == data[2] & 12
    )
    return data[second:]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("bitrate_mode", ["CONSTANT", "VARIABLE"])
def test_all_of_a_file_without_a_count_is_decoded(rate_hz, num_channels, bitrate_mode):
    """At most two frames more: the count includes the encoder's padding around the sound."""
    counted = mp3(rate_hz, num_channels, bitrate_mode)
    assert counts_frames(BytesIO(counted), 0)
    uncounted = without_note(counted)
    assert is_mp3(BytesIO(uncounted), 0)
    assert not counts_frames(BytesIO(uncounted), 0)
    expected, _ = decode(counted)
    samples, found_rate_hz = decode(uncounted, reject=("truncated",))
    assert found_rate_hz == rate_hz
    assert 0 <= len(samples) - len(expected) < 2 * 1_152
    shifts = [np.abs(samples[shift:][: len(expected)] - expected).max() for shift in range(600)]
    assert min(shifts) < 1e-3


@pytest.mark.parametrize("data", [b"", b"\xff\xfb", b"RIFF", b"\xff\xff\xff\xff", b"\xff\xeb\x90\xc4" * 10])
def test_other_files_are_no_mp3(data):
    assert not is_mp3(BytesIO(data), 0)
