"""Files read ahead of the encoder: in order, within a bound, the long ones in pieces."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
import soundfile

from matpac.clip import UnusableAudio
from matpac.encoder import reading, rows
from matpac.encoder.encoder import load_encoder
from matpac.encoder.files import embed_files
from matpac.encoder.reading import Room, begin, read_ahead
from matpac.signal import logmel
from tests.checkpoints import untrained_checkpoint

RATE = 16_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return load_encoder(checkpoint)


@pytest.fixture
def recordings(tmp_path):
    """Of 0.5 to 12 s."""
    root = tmp_path / "recordings"
    root.mkdir()
    for number, length_s in enumerate([0.5, 12, 3, 8.5, 0.7, 11]):
        noise = np.random.default_rng(number).normal(scale=0.1, size=int(length_s * RATE))
        soundfile.write(root / f"{number}.wav", noise, RATE)
    return root


@pytest.fixture
def long_from_three_seconds(monkeypatch):
    monkeypatch.setattr(logmel, "FRAMES_AT_ONCE", logmel.BLOCK_FRAMES)
    monkeypatch.setattr(reading, "FRAMES_AT_THE_BEGINNING", 300)


@pytest.mark.parametrize("in_time", [False, True])
def test_long_files_have_the_embeddings_of_the_whole(
    recordings, checkpoint, tmp_path, monkeypatch, in_time, request
):
    embed_files([recordings], checkpoint, tmp_path / "whole.npz", in_time=in_time)
    request.getfixturevalue("long_from_three_seconds")
    monkeypatch.setattr(rows, "ROW_BYTES", 1)
    embed_files([recordings], checkpoint, tmp_path / "pieces.npz", in_time=in_time)
    whole, pieces = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "pieces.npz")
    assert pieces["paths"].tolist() == whole["paths"].tolist()
    # Other batches round otherwise; the weights of this checkpoint let that grow tenfold.
    np.testing.assert_allclose(pieces["embeddings"], whole["embeddings"], rtol=0, atol=5e-5)
    if in_time:
        assert pieces["time_ms"].tobytes() == whole["time_ms"].tobytes()


def test_pieces_are_whole_chunks(recordings, encoder, long_from_three_seconds):
    for path in sorted(recordings.iterdir()):
        num_frames, reading = begin(path, encoder.logmel, encoder.mel_filters, encoder.chunk_frames)
        *others, last = reading.pieces
        assert all(len(piece) % encoder.chunk_frames == 0 for piece in others)
        assert num_frames <= 512
        assert sum(map(len, [*others, last])) == (soundfile.info(path).frames - 400) // 160 + 1


def test_one_file_is_embedded_like_many(recordings, encoder, long_from_three_seconds):
    log_mel = encoder.log_mel(soundfile.read(recordings / "1.wav", dtype="float32")[0], RATE)
    [expected] = encoder.embed_log_mels([log_mel])
    np.testing.assert_allclose(encoder.embed_file(recordings / "1.wav"), expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("in_time", [False, True])
def test_a_long_file_that_is_damaged_at_its_end_leaves_no_rows(
    recordings, checkpoint, tmp_path, long_from_three_seconds, in_time
):
    noise = np.random.default_rng(9).normal(scale=0.1, size=12 * RATE).astype(np.float32)
    noise[-100:] = np.nan
    soundfile.write(recordings / "2 damaged.wav", noise, RATE, subtype="FLOAT")
    soundfile.write(recordings / "9 damaged.wav", noise, RATE, subtype="FLOAT")
    embed_files([recordings], checkpoint, tmp_path / "e.npz", in_time=in_time)
    (recordings / "2 damaged.wav").unlink()
    (recordings / "9 damaged.wav").unlink()
    embed_files([recordings], checkpoint, tmp_path / "without.npz", in_time=in_time)
    found, without = np.load(tmp_path / "e.npz"), np.load(tmp_path / "without.npz")
    assert [path[-13:] for path in found["left_out"]] == ["2 damaged.wav", "9 damaged.wav"]
    np.testing.assert_allclose(found["embeddings"], without["embeddings"], rtol=0, atol=5e-5)


def ahead(paths, encoder, num_threads=4):
    return closing(read_ahead(paths, encoder.logmel, encoder.mel_filters, encoder.chunk_frames, num_threads))


def test_no_more_is_read_than_there_is_room_for(recordings, encoder, monkeypatch):
    monkeypatch.setattr(reading, "FRAMES_AHEAD", 1)
    begun = []

    def counted(path, *about):
        begun.append(path)
        return begin(path, *about)

    monkeypatch.setattr(reading, "begin", counted)
    paths = [recordings / "1.wav"] * 40
    with ahead(paths, encoder) as found:
        for taken, of_file in enumerate(found, start=1):
            time.sleep(0.01)
            # The one in hand, and one a reader that found room at the same moment.
            assert len(begun) <= taken + 4
            assert sum(map(len, of_file.pieces)) == 1198
    assert begun == paths


def test_who_waits_for_room_goes_when_nobody_reads_on(recordings, encoder, monkeypatch):
    monkeypatch.setattr(reading, "FRAMES_AHEAD", 1)
    before = threading.active_count()
    with ahead([recordings / "1.wav"] * 40, encoder) as found:
        next(found)
    assert threading.active_count() == before


def test_the_next_file_goes_on_without_room():
    room = Room(10)
    room.wait(1)
    room.fill(20)  # a later file was faster
    room.wait(0)
    waiting = threading.Thread(target=room.wait, args=(2,))
    waiting.start()
    room.fill(5)
    room.empty(5)
    assert waiting.is_alive()
    room.empty(20)
    waiting.join(timeout=1)
    assert not waiting.is_alive()


def test_memory_that_runs_out_costs_one_file(recordings, encoder, monkeypatch):
    def refusing(path, *about, **how):
        if path.name == "3.wav":
            raise MemoryError
        return convert(path, *about, **how)

    convert = reading.convert
    monkeypatch.setattr(reading, "convert", refusing)
    outcomes = []
    with ahead(sorted(recordings.iterdir()), encoder) as found:
        for of_file in found:
            try:
                outcomes.append(sum(map(len, of_file.pieces)) > 0)
            except UnusableAudio as error:
                outcomes.append(error.reason)
    assert outcomes == [True, True, True, "cannot be read (not enough memory is free)", True, True]
