"""Headers that promise less than the file holds, several recordings in a file, MP3s among other bytes."""

import struct
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from matpac.clip import UnusableAudio, phrase_of
from matpac.datasets.inventory import Recording
from matpac.prepare.header_check import check_header
from matpac.signal.audio import Stream, decode_blocks, open_audio
from matpac.signal.mend import mend
from tests.recordings import LOGMEL

RATE_HZ = 16_000
SIZED = ["WAV", "WAVEX", "RF64", "W64", "AIFF", "SVX", "CAF", "AU", "NIST", "AVR", "VOC"]
HTML = b"<html><body>404 Not Found</body></html>\n" * 100
TAGS = {
    "none": b"",
    "ID3v1": b"TAG" + bytes(125),
    "APE": b"APETAGEX\xd0\7\0\0" + b"artist" * 3_000,
    "LIST": b"LIST" + struct.pack("<I", 40_000) + bytes(range(200)) * 200,
    "zeros": bytes(100_000),
    "text": HTML * 10,
}


def recording(container, subtype=None, *, seconds=4, rate_hz=RATE_HZ, seed=0) -> bytes:
    """A tone in noise, in one channel."""
    noise = np.random.default_rng(seed).uniform(-0.3, 0.3, seconds * rate_hz)
    file = BytesIO()
    tone = 0.3 * np.sin(np.arange(len(noise)) / 20)
    soundfile.write(file, tone + noise, rate_hz, subtype, format=container)
    return file.getvalue()


def without_count(mp3: bytes) -> bytes:
    """The file from its second frame on: the first is the encoder's note."""
    kind = mp3[:2]
    return mp3[mp3.index(kind, 40) :]


def heard(data: bytes) -> tuple[float, list[str]]:
    """Seconds, and the phrases of the notes."""
    rate_hz, samples, notes = decode_blocks(data, reject=("silent", "truncated"))
    seconds = sum(map(len, samples)) / rate_hz
    return seconds, [phrase_of(note) for note in notes]


def reason(data: bytes) -> str:
    with pytest.raises(UnusableAudio) as caught:
        heard(data)
    return caught.value.reason


def header_of(tmp_path: Path, data: bytes):
    (tmp_path / "a").write_bytes(data)
    return check_header(tmp_path, Recording("a", len(data), "0", "a"), LOGMEL, ("truncated",))


def overwritten(data: bytes, position: int, new: bytes) -> bytes:
    return data[:position] + new + data[position + len(new) :]


def id3(claimed: int, held: int) -> bytes:
    """A tag that claims to be longer or shorter than it is; its size has seven bits per byte."""
    size = bytes(claimed >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + size + b"TIT2" + bytes(held - 4)


def with_size(container: str, data: bytes, num_bytes: int) -> bytes:
    """The file with another size of its samples in the header."""
    match container:
        case "WAV" | "WAVEX":
            return overwritten(data, data.index(b"data") + 4, struct.pack("<I", num_bytes))
        case "RF64":
            return overwritten(data, data.index(b"ds64") + 16, struct.pack("<Q", num_bytes))
        case "W64":
            return overwritten(data, data.index(b"data\xf3") + 16, struct.pack("<Q", num_bytes + 24))
        case "AIFF":
            return overwritten(data, data.index(b"SSND") + 4, struct.pack(">I", num_bytes + 8))
        case "SVX":
            return overwritten(data, data.index(b"BODY") + 4, struct.pack(">I", num_bytes))
        case "CAF":
            return overwritten(data, data.index(b"data") + 4, struct.pack(">Q", num_bytes + 4))
        case "AU":
            return overwritten(data, 8, struct.pack(">I", num_bytes))
        case "NIST":
            size = b"sample_count -i 64000"
            return data.replace(size, f"sample_count -i {num_bytes // 2}".encode().ljust(len(size)))
        case "AVR":
            return overwritten(data, 26, struct.pack(">I", num_bytes // 2))
    raise KeyError(container)


@pytest.mark.parametrize("container", SIZED)
def test_a_whole_file_has_no_note_and_a_cut_one_is_refused(container, tmp_path):
    whole = recording(container, "PCM_16")
    assert heard(whole) == (4, [])
    assert header_of(tmp_path, whole).notes == ()
    cut = whole[: len(whole) * 2 // 5]
    assert phrase_of(reason(cut)) == "truncated"
    with pytest.raises(UnusableAudio, match="truncated"):
        header_of(tmp_path, cut)


@pytest.mark.parametrize("container", [name for name in SIZED if name != "VOC"])
@pytest.mark.parametrize("num_bytes", [0, RATE_HZ // 5])
def test_all_samples_count_if_the_header_promises_nothing_or_less(container, num_bytes, tmp_path):
    """A recorder that crashed wrote no size, or that of an earlier moment."""
    boastful = with_size(container, recording(container, "PCM_16"), num_bytes)
    assert heard(boastful) == (4, ["longer than its header says"])
    header = header_of(tmp_path, boastful)
    assert header.duration_s == 4
    assert header.notes == decoded_notes(boastful)


def decoded_notes(data: bytes) -> tuple[str, ...]:
    _, samples, notes = decode_blocks(data)
    assert sum(map(len, samples))
    return tuple(notes)


@pytest.mark.parametrize("riff_bytes", [None, 0, 8, 36, 0xFFFF_FFFF])
def test_a_recorder_that_crashed_leaves_three_seconds(riff_bytes):
    crashed = with_size("WAV", recording("WAV", seconds=3), 0)
    if riff_bytes is not None:
        crashed = overwritten(crashed, 4, struct.pack("<I", riff_bytes))
    _, samples, notes = decode_blocks(crashed)
    assert np.concatenate(list(samples)).tobytes() == samples_of(recording("WAV", seconds=3)).tobytes()
    assert notes == ["longer than its header says (the header promises 0.00 s, the file holds 3.00 s)"]


def samples_of(data: bytes):
    return np.concatenate(list(decode_blocks(data).samples))


@pytest.mark.parametrize("container", ["CAF", "RF64", "W64"])
def test_a_size_of_minus_one_means_to_the_end(container):
    """libsndfile refuses it."""
    data = recording(container, "PCM_16")
    whole = with_size(container, data, {"CAF": 2**64 - 5, "RF64": 2**64 - 1, "W64": 2**64 - 25}[container])
    assert heard(whole) == (4, [])


def test_a_size_beyond_four_gigabytes_is_taken_modulo(tmp_path):
    """Only the file's header and its sparse end are read."""
    head = recording("WAV", seconds=1)[:44]
    for num_bytes, num_behind in ((2**32 + 640_000, 0), (2**33 + 640_000, 5_000)):
        path = tmp_path / "long.wav"
        path.write_bytes(with_size("WAV", head, num_bytes % 2**32))
        with path.open("r+b") as file:
            file.truncate(44 + num_bytes + num_behind)
        with open_audio(path, path) as file:
            mended = mend(path, file)
            with Stream(mended.file) as stream:
                assert stream.frames == num_bytes // 2
                [note] = mended.notes_on(stream.frames / RATE_HZ)
        assert note.startswith("longer than its header says (the header promises 20.00 s, the file holds ")


@pytest.mark.parametrize("behind", TAGS)
@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU", "FLAC", "OGG", "MP3", "BARE"])
def test_what_players_and_disks_append_is_no_reason_to_complain(container, behind):
    """Only zeros and text behind an MP3 without a count are noted: nobody knows what they replaced."""
    bare = container == "BARE"
    whole = without_count(recording("MP3")) if bare else recording(container)
    seconds, notes = heard(whole + TAGS[behind])
    assert seconds == pytest.approx(4, abs=0.1)
    assert notes == (["bytes that are no audio"] if bare and behind in ("LIST", "zeros", "text") else [])


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), *((name, "PCM_16") for name in SIZED[:-2])],
)
@pytest.mark.parametrize("second", ["the same", "longer", "shorter"])
def test_several_recordings_in_one_file_are_refused(container, subtype, second):
    first = recording(container, subtype)
    seconds = {"the same": 4, "longer": 6, "shorter": 2}[second]
    glued = first + recording(container, subtype, seconds=seconds, seed=seconds)
    assert phrase_of(reason(glued)) == "more than one recording"
    assert phrase_of(reason(first + glued)) == "more than one recording"


def test_a_header_shows_glued_recordings_unless_it_would_have_to_be_decoded(tmp_path):
    for container in ("WAV", "FLAC", "OGG", "AIFF"):
        first, second = (recording(container, seconds=seconds, seed=seconds) for seconds in (4, 2))
        with pytest.raises(UnusableAudio, match="more than one recording"):
            header_of(tmp_path, first + second)


@pytest.mark.parametrize("between", [b"", id3(300, 300)])
@pytest.mark.parametrize("is_counted", [True, False])
def test_glued_mp3s_are_one_recording(between, is_counted):
    """The format is made for it; a player plays both."""
    parts = [recording("MP3"), recording("MP3", seconds=6, seed=1)]
    if not is_counted:
        parts = [without_count(part) for part in parts]
    seconds, notes = heard(parts[0] + between + parts[1])
    assert seconds == pytest.approx(10, abs=0.3)
    assert notes == (["longer than its header says"] if is_counted else [])


@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize("rates_hz", [(44_100, 22_050), (22_050, 44_100), (48_000, 44_100)])
def test_glued_mp3s_of_two_rates_are_refused(rates_hz, is_counted):
    parts = [recording("MP3", seconds=3, rate_hz=rate_hz) for rate_hz in rates_hz]
    if not is_counted:
        parts = [without_count(part) for part in parts]
    first, second = (f"{rate_hz:,} Hz" for rate_hz in rates_hz)
    assert reason(b"".join(parts)).startswith(f"more than one recording (of {first} and {second}; the second")


@pytest.mark.parametrize("num_bytes", [1, 2, 7, 100, 417, 1_000, 5_000])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("is_counted", [True, False])
def test_an_mp3_may_begin_inside_a_frame(num_bytes, rate_hz, is_counted):
    whole = recording("MP3", rate_hz=rate_hz)
    whole = whole if is_counted else without_count(whole)
    cut = whole[num_bytes:]
    seconds, notes = heard(cut)
    # A frame of a note, a frame that is torn, and the encoder's padding.
    assert seconds == pytest.approx(4 * len(cut) / len(whole), abs=0.3)
    begins_with_a_frame = cut[:2] == whole[:2]
    assert notes == ([] if begins_with_a_frame else ["bytes that are no audio"])
    # Somewhere is the sound of the whole file.
    expected = samples_of(whole)[-rate_hz:][:200]
    found = np.lib.stride_tricks.sliding_window_view(samples_of(cut)[-2 * rate_hz :], 200)
    assert np.abs(found - expected).max(axis=1).min() < 1e-3


@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize(
    ("before", "is_noted"),
    [
        (bytes(1), True),
        (bytes(1_000), True),
        (bytes(50_000), True),
        (b"ICY 200 OK\r\nicy-name: a\r\nContent-Type: audio/mpeg\r\n\r\n", True),
        (HTML, True),
        (id3(300, 300), False),
        (id3(300, 300) + id3(200, 200), False),
        (id3(300, 300) + bytes(700), True),
        (id3(3_001, 300), False),
        (id3(10**6, 300), False),
        (id3(5, 300), True),
        (id3(0, 5_000), True),
    ],
    ids=range(12),
)
def test_an_mp3_begins_with_its_first_frame_whatever_precedes(before, is_noted, is_counted):
    whole = recording("MP3")
    whole = whole if is_counted else without_count(whole)
    seconds, notes = heard(before + whole)
    assert seconds == pytest.approx(4 if is_counted else 4.07, abs=0.01)
    assert notes == (["bytes that are no audio"] if is_noted else [])


@pytest.mark.parametrize("junk", [bytes(5_000), bytes(100_000), HTML, np.random.default_rng(0).bytes(5_000)])
def test_an_mp3_without_a_count_ends_with_its_last_frame(junk):
    bare = without_count(recording("MP3"))
    _, samples, notes = decode_blocks(bare + junk, reject=("truncated",))
    assert np.concatenate(list(samples)).tobytes() == samples_of(bare).tobytes()
    assert notes == [f"bytes that are no audio ({len(junk):,} after the last frame)"]


def test_other_formats_are_not_taken_for_mp3():
    """Random bytes hold what looks like frames, but not three in a row."""
    noise = np.random.default_rng(0).bytes(2**20)
    assert noise.count(b"\xff\xfb") > 5
    for data in (
        noise,
        b"RIFF" + noise,
        b"\0\0\0\x20ftypM4A " + recording("MP3"),
        b"\x1a\x45\xdf\xa3" + noise,
    ):
        assert phrase_of(reason(data)) == "cannot be decoded"


def test_flac_whose_header_promises_less_is_heard_to_its_end():
    whole = recording("FLAC")
    less = overwritten(whole, 22, struct.pack(">I", RATE_HZ))
    assert heard(less) == (4, ["longer than its header says"])


@pytest.mark.parametrize("rate_hz", [250, 500, 999])
def test_a_rate_that_no_mel_band_suits_is_refused_with_the_range(rate_hz, tmp_path):
    """Seismic recordings have such rates, so nothing is damaged."""
    slow = recording("WAV", rate_hz=rate_hz)
    expected = f"sample rate out of range (found {rate_hz} Hz, need 1,000 to 1,000,000 Hz)"
    assert reason(slow) == expected
    with pytest.raises(UnusableAudio) as caught:
        header_of(tmp_path, slow)
    assert caught.value.reason == expected
    # What the meaning of the reason advises.
    assert heard(recording("WAV", rate_hz=16 * 250)) == (4, [])


def test_glued_garbage_never_raises_anything_else():
    generator = np.random.default_rng(0)
    parts = [recording(name)[:3_000] for name in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "W64", "NIST")]
    for _ in range(200):
        first, second = generator.integers(len(parts), size=2)
        damaged = bytearray(parts[first] + bytes(generator.integers(300)) + parts[second])
        for position in generator.integers(100, size=3):
            damaged[position] = generator.integers(256)
        with suppress(UnusableAudio):
            decoded_notes(bytes(damaged))
