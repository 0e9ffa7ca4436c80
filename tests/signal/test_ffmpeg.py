"""Media files that libsndfile cannot open, made by PyAV's own encoders."""

import gc
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from matpac.clip import REJECT, UnusableAudio
from matpac.signal import ffmpeg
from matpac.signal.audio import decode, decode_blocks
from tests.media import KINDS, media, tone

CUT = "truncated (the file ends before its last frame)"
LENGTHS = {
    **dict.fromkeys(("m4a", "mp4", "mov", "3gp", "webm", "mka", "wv", "tta"), 1.0),
    # Frames are whole, or the priming of the encoder is noted nowhere.
    **dict.fromkeys(("aac", "flv", "ts"), 45 * 1024 / 44_100),
    **dict.fromkeys(("ac3", "eac3"), 32 * 1536 / 48_000),
    **dict.fromkeys(("avi", "mpg"), 39 * 1152 / 44_100),
    "mkv": 44 * 1024 / 44_100,
    "wma": 21 * 2048 / 44_100,
    "amr": 51 * 160 / 8_000,
    "caf": 1.0 - 956 / 44_100,  # FFmpeg removes the padding of a short last frame, where there is none.
}
"""What a second of sound becomes."""


def reason(source):
    with pytest.raises(UnusableAudio) as caught:
        decode(source, reject=REJECT)
    return caught.value.reason


def num_children():
    return len(ffmpeg._IDLE)


@pytest.fixture
def new_child():
    """Children before and after a test are ended, so that it sees its own."""
    ffmpeg._end_all()
    yield
    gc.collect()
    ffmpeg._end_all()


@pytest.fixture
def impostor(tmp_path, monkeypatch, new_child):
    """Puts another script in place of the one that decodes."""

    def replace(code):
        script = tmp_path / "impostor.py"
        script.write_text(code)
        monkeypatch.setattr(ffmpeg, "CHILD", script)

    return replace


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_of_a_tone_is_a_second_of_a_tone(kind):
    samples, rate_hz = decode(media(kind), reject=REJECT)
    assert rate_hz == KINDS[kind][2]
    assert len(samples) == round(LENGTHS[kind] * rate_hz)
    spectrum = np.abs(np.fft.rfft(samples[:rate_hz]))
    assert spectrum.argmax() * rate_hz / min(len(samples), rate_hz) == pytest.approx(440, abs=1)
    assert samples.std() == pytest.approx(0.3 / 2**0.5, rel=0.25)


def test_samples_without_loss_are_the_same_as_in_a_wav():
    expected = (tone(44_100, 1.0) * 32_767).astype(np.int16).astype(np.float32) / 2**15
    samples, _ = decode(media("mov"))
    np.testing.assert_array_equal(samples, np.dot(expected, np.float32([0.5, 0.5])))


def test_a_video_gives_its_audio(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(media("mp4", has_video=True))
    samples, rate_hz = decode(path, reject=REJECT)
    assert (len(samples), rate_hz) == (44_100, 44_100)
    assert len(decode(path.read_bytes())[0]) == 44_100


def test_a_video_without_audio_says_so():
    data = media("mp4", has_video=True, has_audio=False)
    assert reason(data) == "no samples (a video without an audio stream)"


def test_six_channels_are_averaged():
    samples = tone(48_000, 1.0, 6)
    mean, _ = decode(media("ac3", samples), reject=REJECT)
    assert mean.std() == pytest.approx(samples.mean(1).std(), rel=0.05)


def test_the_loudest_channel_can_be_taken():
    loud = tone(44_100, 1.0, 2) * np.float32([0.1, 1.0])
    samples, _ = decode(media("mov", loud), channels="loudest")
    np.testing.assert_allclose(samples, loud[:, 1], atol=1e-4)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"wv", "caf", "wma", "mpg"}))
def test_a_file_that_was_cut_is_refused(kind):
    data = media(kind)
    assert reason(data[: int(0.73 * len(data))]).startswith("truncated (")


def test_a_cut_file_with_its_index_in_front_is_refused():
    data = media("m4a", movflags="faststart")
    assert len(decode(data, reject=REJECT)[0]) == 44_100
    assert reason(data[:-100]) == CUT


def test_fragments_are_read_to_their_end():
    """Nothing in them tells that the encoder begins with a frame of its own."""
    data = media("m4a", movflags="frag_keyframe+empty_moov", frag_duration="200000")
    assert len(decode(data, reject=REJECT)[0]) == 44_100 + 1024
    assert reason(data[: data.rindex(b"mfra") - 100]) == CUT


@pytest.mark.parametrize("kind", ["m4a", "aac", "mkv", "wma", "ac3", "wv", "flv"])
def test_damage_in_the_middle_is_refused(kind):
    data = bytearray(media(kind, duration_s=2.0))
    data[len(data) // 2 :][:3000] = b""
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    assert reason(bytes(data)).startswith("cannot be decoded (damaged after ")


def test_a_tag_behind_bare_frames_is_no_damage():
    data = media("aac")
    assert len(decode(data + b"TAG" + bytes(125), reject=REJECT)[0]) == len(decode(data)[0])


@pytest.mark.parametrize("kind", ["m4a", "mka", "flv"])
def test_tags_may_be_of_any_encoding(kind):
    data = media(kind)
    assert b"Lavf" in data
    assert len(decode(data.replace(b"Lavf", b"L\xe9vf"), reject=REJECT)[0]) == len(decode(data)[0])


def test_what_libsndfile_finds_damaged_is_not_tried_again(new_child):
    assert reason(b"RIFF\x24\0\0\0WAVEfmt \x02\0\0\0\1\0").startswith("cannot be decoded (Error in WAV")
    assert reason(b"OggS" + bytes(24) + b"\x01vorbis").startswith(("cannot", "truncated"))
    assert num_children() == 0


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{other}'\n",
        "<html><body>404</body></html>",
        "PK\x03\x04",
        "[playlist]\nFile1=http://127.0.0.1:1/a.mp3\n",
    ],
)
def test_playlists_pages_and_archives_never_reach_ffmpeg(tmp_path, content, new_child):
    other = tmp_path / "other.m4a"
    other.write_bytes(media("m4a"))
    path = tmp_path / "a.m4a"
    path.write_text(content.format(other=other))
    assert reason(path) == "cannot be decoded (Format not recognised)"
    assert num_children() == 0


@pytest.mark.parametrize(
    ("demuxer", "content"),
    [
        ("hls", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n"),
        ("concat", "ffconcat version 1.0\nfile '{other}'\n"),
    ],
)
def test_ffmpeg_opens_no_file_that_another_names(tmp_path, demuxer, content, monkeypatch):
    """Even if a playlist got there."""
    other = tmp_path / "other.ts"
    other.write_bytes(media("ts"))
    path = tmp_path / "a.m4a"
    path.write_text(content.format(other=other.name))
    monkeypatch.chdir(tmp_path)
    container = ffmpeg.Container("Playlist", demuxer)
    with path.open("rb") as file, pytest.raises((ffmpeg.FFmpegError, UnusableAudio)):
        ffmpeg.FFmpegStream(path, file, 0, container)


def test_without_the_extra_files_are_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(ffmpeg, "find_spec", lambda _: None)
    assert reason(media("m4a")) == "cannot be read (MP4 needs FFmpeg: pip install 'matpac[formats]')"


def test_importing_and_reading_wav_does_not_import_pyav(project):
    script = (
        "import io, sys, numpy, soundfile, matpac.prepare.build; from matpac.signal.audio import decode;"
        "file = io.BytesIO(); soundfile.write(file, numpy.ones(100), 8000, format='WAV');"
        "decode(file.getvalue()); assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=project, check=True)


def test_a_child_serves_many_files_and_an_abandoned_one_ends(new_child):
    data = media("mov", duration_s=20.0)
    for _ in range(2):
        decode(data)
        [child] = ffmpeg._IDLE
    blocks = decode_blocks(data)
    next(blocks.samples)
    assert num_children() == 0
    del blocks
    gc.collect()
    assert not child.is_alive()
    assert len(decode(data)[0]) == 20 * 44_100


def test_threads_decode_at_the_same_time():
    data = media("webm")
    with ThreadPoolExecutor(4) as pool:
        lengths = [len(samples) for samples, _ in pool.map(decode, [data] * 12)]
    assert lengths == [48_000] * 12


def test_endless_computing_ends_and_is_held_against_the_file(impostor, monkeypatch):
    monkeypatch.setattr(ffmpeg, "COMPUTES_S", 0.2)
    impostor(
        "import signal, socket, sys\n"
        "connection = socket.socket(fileno=int(sys.argv[1]))\n"
        "signal.setitimer(signal.ITIMER_PROF, float(sys.argv[2]))\n"
        "while True: pass\n"
    )
    assert reason(media("m4a")) == "cannot be decoded (FFmpeg did not answer for 0.2 s)"


def test_a_child_that_waits_is_ended_and_the_file_may_come_again(impostor, monkeypatch):
    monkeypatch.setattr(ffmpeg, "ANSWERS_S", 0.2)
    impostor("import time; time.sleep(60)")
    assert reason(media("m4a")) == "cannot be read (FFmpeg did not answer for 0.2 s)"


def test_a_crash_is_a_rejection_and_the_next_file_gets_another_child(impostor, monkeypatch):
    script = ffmpeg.CHILD
    impostor("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert reason(media("m4a")) == "cannot be decoded (FFmpeg crashes)"
    monkeypatch.setattr(ffmpeg, "CHILD", script)
    assert len(decode(media("m4a"))[0]) == 44_100


def test_a_child_killed_between_two_files_is_replaced(new_child):
    decode(media("m4a"))
    [child] = ffmpeg._IDLE
    os.kill(child._process.pid, signal.SIGKILL)
    child._process.wait()
    assert len(decode(media("m4a"))[0]) == 44_100


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_child_does_not_outlive_its_parent(tmp_path, project):
    path = tmp_path / "a.mov"
    path.write_bytes(media("mov", duration_s=20.0))
    script = (
        "import os, signal, sys; from pathlib import Path; from matpac.signal import ffmpeg;"
        "from matpac.signal.audio import decode, decode_blocks; path = Path(sys.argv[1]); decode(path);"
        "print(ffmpeg._IDLE[0]._process.pid, flush=True); blocks = decode_blocks(path); next(blocks.samples);"
        "decode(path); print(ffmpeg._IDLE[0]._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    pids = set(done.stdout.split())
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(Path("/proc", pid).exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_fork_uses_no_child_of_its_parent(new_child):
    data = media("m4a")
    decode(data)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if not ffmpeg._IDLE and len(decode(data)[0]) == 44_100 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(decode(data)[0]) == 44_100
