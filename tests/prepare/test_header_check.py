import pytest

from matpac.clip import UnusableAudio, phrase_of
from matpac.datasets.inventory import Recording, take_inventory
from matpac.prepare.header_check import check_header
from matpac.signal import ffmpeg
from matpac.signal.audio import decode
from tests.media import media
from tests.recordings import LOGMEL, recording_of
from tests.signal.test_mp3 import mp3, without_note


def test_a_header_is_refused_only_if_decoding_fails_too(audio_folder):
    """The converse does not hold: silence and NaN show up only in the samples."""
    root, reject = audio_folder / "odd", ("truncated",)
    by_header = {
        recording.path: reason(check_header, root, recording, LOGMEL, reject)
        for recording in take_inventory(root)
    }
    by_decoding = {path: reason(decode, root / path, None, reject) for path in by_header}
    # Decoding knows nothing of windows.
    refused = {path: phrase for path, phrase in by_header.items() if phrase not in (None, "too short")}
    assert refused.items() <= by_decoding.items()
    assert len(refused) > 40


def reason(act, *arguments) -> str | None:
    try:
        act(*arguments)
    except UnusableAudio as error:
        return phrase_of(error.reason)
    return None


def test_no_header_is_read_of_a_recording_that_could_not_be_listed(tmp_path):
    with pytest.raises(UnusableAudio, match="cannot be read"):
        check_header(tmp_path, Recording("a.wav", 0, "", "a.wav"), LOGMEL, ())


@pytest.mark.parametrize(
    ("kind", "format", "num_samples"),
    [
        ("m4a", "MP4 aac (FFmpeg)", 44_100),
        ("mka", "Matroska opus (FFmpeg)", 48_384),
        ("ac3", "AC-3 ac3 (FFmpeg)", None),
    ],
)
def test_media_files_have_headers_too(tmp_path, kind, format, num_samples):
    """As their containers tell: Matroska counts what the encoder adds; bare frames tell nothing."""
    (tmp_path / f"a.{kind}").write_bytes(media(kind))
    header = check_header(tmp_path, recording_of(tmp_path, f"a.{kind}"), LOGMEL, ("truncated",))
    assert (header.num_channels, header.format, header.num_samples) == (2, format, num_samples)


def test_without_pyav_the_reason_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "find_spec", lambda _: None)
    (tmp_path / "a.m4a").write_bytes(media("m4a"))
    with pytest.raises(UnusableAudio, match=r"cannot be read \(MP4 needs FFmpeg: pip install"):
        check_header(tmp_path, recording_of(tmp_path, "a.m4a"), LOGMEL, ())


@pytest.mark.parametrize("tag_bytes", [0, 20_000])
def test_the_length_of_an_mp3_without_a_count_is_estimated_without_its_tag(tmp_path, tag_bytes):
    uncounted = without_note(mp3(44_100, 1, "CONSTANT"))
    size = bytes([0, 0, tag_bytes >> 7, tag_bytes & 127])
    tag = b"ID3\3\0\0" + size + bytes(tag_bytes) if tag_bytes else b""
    (tmp_path / "a.mp3").write_bytes(tag + uncounted)
    header = check_header(tmp_path, recording_of(tmp_path, "a.mp3"), LOGMEL, ())
    assert header.duration_s == pytest.approx(len(decode(uncounted)[0]) / 44_100, abs=0.1)
