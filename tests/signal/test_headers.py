import struct
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import soundfile

from matpac.clip import UnusableAudio, phrase_of
from matpac.signal.audio import decode
from matpac.signal.headers import is_cut, promised_s

RATE_HZ = 16_000
FORMATS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AIFF", "FLOAT"),
    ("AU", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def recording(container, subtype="PCM_16", *, endian="FILE", seconds=10, channels=2) -> bytes:
    """A tone in noise."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (seconds * RATE_HZ, channels))
    tone = 0.3 * np.sin(np.arange(len(noise)) / 20)
    file = BytesIO()
    soundfile.write(file, tone[:, None] + noise, RATE_HZ, subtype, endian, container)
    return file.getvalue()


def overwritten(data: bytes, position: int, new: bytes) -> bytes:
    return data[:position] + new + data[position + len(new) :]


def seconds_of(data: bytes) -> float:
    samples, rate_hz = decode(data, reject=("truncated",))
    return len(samples) / rate_hz


def is_refused(data: bytes) -> bool:
    """Whether the file is refused as truncated; any other refusal fails the test."""
    try:
        decode(data, reject=("truncated",))
    except UnusableAudio as error:
        if phrase_of(error.reason) == "truncated":
            return True
        raise
    return False


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_a_cut_recording_is_refused_and_a_whole_one_is_not(container, subtype):
    whole = recording(container, subtype)
    assert seconds_of(whole) == pytest.approx(10, abs=0.1)
    for share in (0.2, 0.5, 0.9, 0.97):
        assert is_refused(whole[: int(len(whole) * share)])


@pytest.mark.parametrize(("container", "subtype"), [item for item in FORMATS if item[0] != "FLAC"])
def test_what_is_there_of_a_cut_recording_can_be_had(container, subtype):
    """Without FLAC: libsndfile gives up on it in the middle of a frame."""
    whole = recording(container, subtype)
    samples, rate_hz = decode(whole[: len(whole) // 2])
    assert 2 < len(samples) / rate_hz < 6


@pytest.mark.parametrize(
    ("container", "subtype"), [item for item in FORMATS if item[0] in ("WAV", "AIFF", "AU")]
)
def test_the_reason_says_how_much_is_missing(container, subtype):
    whole = recording(container, subtype)
    with pytest.raises(
        UnusableAudio, match=r"^<bytes>: truncated \(the header promises 10\.\d\d s"
    ) as caught:
        decode(whole[: len(whole) // 4], reject=("truncated",))
    assert float(caught.value.reason.split()[-2]) == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize("container", ["WAV", "RF64", "AIFF", "AU"])
def test_a_last_frame_may_be_missing(container):
    """A tenth of a second at most; of a short recording, a tenth of it."""
    whole = recording(container)
    assert not is_refused(whole[: -int(0.09 * RATE_HZ) * 4])
    assert is_refused(whole[: -int(0.12 * RATE_HZ) * 4])
    short = recording(container, seconds=1)[:-4]
    assert not is_refused(short)


def test_a_tenth_of_a_short_recording_is_missed():
    file = BytesIO()
    soundfile.write(file, np.linspace(-1, 1, RATE_HZ // 5), RATE_HZ, format="WAV")
    assert not is_refused(file.getvalue()[: -int(0.015 * RATE_HZ) * 2])
    assert is_refused(file.getvalue()[: -int(0.025 * RATE_HZ) * 2])


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_F000, 0x7F00_0000])
def test_writers_that_cannot_go_back_promise_nothing(size):
    wav, aiff, au = (recording(container) for container in ("WAV", "AIFF", "AU"))
    assert seconds_of(overwritten(wav, wav.index(b"data") + 4, struct.pack("<I", size))) == 10
    assert seconds_of(overwritten(aiff, aiff.index(b"SSND") + 4, struct.pack(">I", size))) == 10
    assert seconds_of(overwritten(au, 8, struct.pack(">I", size))) == 10


def test_only_the_size_of_the_samples_counts():
    """The size of the whole RIFF is often wrong; a last odd chunk may lack its padding."""
    wav = recording("WAV")
    assert seconds_of(overwritten(wav, 4, struct.pack("<I", 2**30))) == 10
    assert seconds_of(wav + b"junk" + struct.pack("<I", 3) + b"abc") == 10
    assert seconds_of(wav + b"junk" + struct.pack("<I", 3_000) + b"abc") == 10
    chunk = b"junk" + struct.pack("<I", 3) + b"abc\0"
    assert seconds_of(wav[:12] + chunk + wav[12:]) == 10
    assert is_refused(wav[:12] + chunk + wav[12 : len(wav) // 2])


@pytest.mark.parametrize(("container", "endian"), [("WAV", "BIG"), ("AIFF", "LITTLE"), ("AU", "LITTLE")])
def test_both_orders_of_bytes(container, endian):
    whole = recording(container, endian=endian)
    assert seconds_of(whole) == 10
    assert is_refused(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")]
)
def test_a_tag_in_front_changes_nothing(container, subtype):
    """ID3 writes its size with seven bits per byte."""
    tag = b"ID3\4\0\0" + bytes([0, 0, 2, 1]) + bytes(2 * 128 + 1)
    whole = tag + recording(container, subtype)
    assert seconds_of(whole) == pytest.approx(10, abs=0.1)
    assert is_refused(whole[: len(whole) // 2])


def test_flac_cut_between_two_frames_is_refused_too():
    """libsndfile stops at the hole without a word."""
    whole = recording("FLAC", channels=1)
    frames = [
        position for position in range(100, len(whole)) if whole[position : position + 2] == b"\xff\xf8"
    ]
    num_samples = []
    for frame in frames:
        assert is_refused(whole[:frame])
        with suppress(UnusableAudio):
            num_samples.append(len(decode(whole[:frame])[0]))
    assert len(num_samples) > 30, "decoded without the check"
    assert max(num_samples) < 10 * RATE_HZ


@pytest.mark.parametrize("num_samples", [4_097, 20_000, 40_961])
def test_flac_that_ends_in_silence_is_whole(num_samples):
    """Its last frame is shorter than the longest header of a frame."""
    file = BytesIO()
    soundfile.write(file, np.zeros(num_samples), RATE_HZ, format="FLAC")
    assert not is_refused(file.getvalue())
    assert not is_cut(file)


def test_damage_in_the_middle_of_flac_is_not_called_a_cut():
    """The last frame is there, and says so."""
    whole = recording("FLAC")
    damaged = overwritten(whole, len(whole) // 2, bytes(50))
    assert not is_cut(BytesIO(damaged))
    with pytest.raises(UnusableAudio, match="cannot be decoded"):
        decode(damaged)


def test_flac_of_unknown_length_promises_nothing():
    whole = recording("FLAC")
    unknown = overwritten(whole, 21, bytes([whole[21] & 0xF0]) + bytes(4))
    assert seconds_of(unknown) == 10
    assert not is_cut(BytesIO(unknown[: len(unknown) // 2]))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_must_end_with_a_whole_page(subtype):
    whole = recording("OGG", subtype)
    last = whole.rindex(b"OggS")
    assert whole[last + 5] & 4, "the mark 'end of stream'"
    assert not is_refused(whole + b"TAG" + bytes(125))
    assert is_refused(whole[:-1])
    assert is_refused(whole[: last + 20])
    assert is_refused(overwritten(whole, len(whole) - 100, bytes(50)))
    assert is_refused(whole[:last] + bytes(len(whole) - last))
    assert is_refused(whole[: len(whole) // 4] + bytes(100_000))
    # A cut between pages looks like a recorder that was stopped.
    assert not is_refused(whole[:last])


def test_mp3_without_the_encoders_count_promises_nothing():
    whole = recording("MP3", "MPEG_LAYER_III")
    note = whole.index(b"Xing")
    uncounted = overwritten(whole, note + 4, bytes(4))
    assert is_refused(whole[: len(whole) // 2])
    assert not is_refused(uncounted[: len(uncounted) // 2])


def test_headers_of_garbage_promise_nothing_or_something_but_never_raise():
    generator = np.random.default_rng(0)
    starts = [
        b"RIFF",
        b"RIFX",
        b"RF64",
        b"FORM",
        b".snd",
        b"dns.",
        b"OggS\0",
        b"fLaC",
        b"ID3",
        b"\xff\xfb\x90\xc4",
    ]
    chunks = [b"data", b"SSND", b"ds64", b"Xing", b"\xff\xf8", b"\xff\xff\xff\xff" * 2, bytes(8), b"OggS\0"]
    for number in range(5_000):
        parts = [starts[number % len(starts)], generator.bytes(number % 40)]
        for _ in range(number % 5):
            parts += [chunks[generator.integers(len(chunks))], generator.bytes(generator.integers(40))]
        file = BytesIO(b"".join(parts))
        assert promised_s(file, 1.0, 1.0) >= 1
        assert is_cut(file) in (True, False)
    assert not is_cut(BytesIO(b""))


class CountingFile(BytesIO):
    num_read = 0

    def read(self, size=-1):
        found = super().read(size)
        self.num_read += len(found)
        return found


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_a_few_bytes_are_enough(container, subtype):
    file = CountingFile(recording(container, subtype, seconds=30, channels=1))
    promised_s(file, 30.0, 30.0)
    is_cut(file)
    assert file.num_read < 300_000
