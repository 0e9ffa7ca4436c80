import pytest

from matpac.clip import UnusableAudio, phrase_of
from matpac.datasets.inventory import Recording, take_inventory
from matpac.prepare.header_check import check_header
from matpac.signal.audio import decode
from tests.recordings import LOGMEL


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
