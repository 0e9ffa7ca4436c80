import copy
import threading
import time
from contextlib import closing

import numpy as np
import pytest
import torch

from matpac.encoder import batches
from matpac.encoder.encoder import AudioEncoder
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.signal.mel import mel_filters
from matpac.weights.released import AUDIOSET, PAPER_LOGMEL


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    patches, encoder = Patches(80, 64, 16).eval(), Encoder(16, 2, 2).eval()
    return AudioEncoder(patches, encoder, PAPER_LOGMEL, mel_filters(PAPER_LOGMEL), AUDIOSET, 64)


@pytest.fixture(scope="module")
def log_mels():
    """600 clips of 1 to 149 frames: several windows, and up to three chunks a clip."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 150, 600)
    return [random.normal(AUDIOSET.mean, AUDIOSET.std, (length, 80)).astype(np.float16) for length in lengths]


@pytest.fixture
def cores(monkeypatch):
    return lambda number: monkeypatch.setattr(batches, "num_workers", lambda _: number)


def test_embeddings_have_the_same_bits_on_any_number_of_cores(encoder, log_mels, cores):
    cores(1)
    expected = list(encoder.embed_log_mels_in_time(log_mels, layers=True))
    cores(3)
    found = list(encoder.embed_log_mels_in_time(log_mels, layers=True))
    assert len(found) == len(log_mels)
    for clip, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(clip.mean, other.mean)
        np.testing.assert_array_equal(clip.steps, other.steps)


def test_a_clip_has_the_same_embedding_alone_and_among_others(encoder, log_mels, cores):
    cores(2)
    together = list(encoder.embed_log_mels(log_mels[:40]))
    for log_mel, expected in zip(log_mels[:40], together, strict=True):
        [alone] = encoder.embed_log_mels([log_mel])
        # Up to rounding: with AVX-512, matrix products of other sizes add in another order.
        np.testing.assert_allclose(alone, expected, atol=1e-5, rtol=0)


def test_moments_are_those_of_the_steps_of_all_chunks(encoder, log_mels):
    few = log_mels[:60]
    pooled = encoder.embed_log_mels(few, pooling="mean_and_deviation")
    without_steps = encoder.moments_of_log_mels(few)
    for over_time, both, moments in zip(
        encoder.embed_log_mels_in_time(few), pooled, without_steps, strict=True
    ):
        expected = over_time.steps.astype(np.float64).std(axis=0)
        np.testing.assert_allclose(over_time.deviation, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(both, np.concatenate([over_time.mean, over_time.deviation]))
        np.testing.assert_array_equal(both, np.concatenate([moments.mean, moments.deviation]))


def test_moments_of_the_pieces_of_a_clip_are_those_of_the_whole(encoder):
    log_mel = np.random.default_rng(1).normal(AUDIOSET.mean, AUDIOSET.std, (5 * encoder.chunk_frames + 7, 80))
    cut = 2 * encoder.chunk_frames
    pieces = [(0, log_mel[:cut]), (0, log_mel[cut:])]
    [(_, found)] = encoder.embed_pieces(pieces, in_time=False, pooling="mean_and_deviation")
    [whole] = encoder.embed_log_mels([log_mel], pooling="mean_and_deviation")
    np.testing.assert_array_equal(found[0], whole)


def test_every_core_computes_batches_of_its_own_in_a_single_thread(encoder, log_mels, cores, monkeypatch):
    both, seen = threading.Barrier(2, timeout=20), []
    forward = AudioEncoder._forward

    def met(*arguments, **kinds):
        if len(seen) < 2:
            seen.append((threading.get_ident(), torch.get_num_threads()))
            both.wait()
        return forward(*arguments, **kinds)

    monkeypatch.setattr(AudioEncoder, "_forward", met)
    cores(2)
    torch.set_num_threads(2)
    try:
        list(encoder.embed_log_mels(log_mels[:64]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    (first, threads), (second, others) = seen
    assert first != second
    assert threads == others == 1


def test_a_wide_encoder_shares_the_operations_of_few_chunks(encoder, log_mels, cores, monkeypatch):
    expected, here = next(iter(encoder.embed_log_mels(log_mels[:1]))), threading.get_ident()
    idents = []
    forward = AudioEncoder._forward

    def noted(*arguments, **kinds):
        idents.append(threading.get_ident())
        return forward(*arguments, **kinds)

    monkeypatch.setattr(AudioEncoder, "_forward", noted)
    monkeypatch.setattr("matpac.encoder.encoder.WIDE", 16)
    cores(8)
    [found] = encoder.embed_log_mels(log_mels[:1])
    assert set(idents) == {here}
    np.testing.assert_array_equal(found, expected)
    assert len(list(encoder.embed_log_mels(log_mels))) == len(log_mels)


def test_clips_are_read_while_earlier_ones_are_computed_but_not_all_of_them(encoder, cores):
    read = []

    def clips():
        for number in range(20 * batches.CLIPS_AT_ONCE):
            read.append(number)
            yield np.full((16, 80), AUDIOSET.mean, np.float32)

    cores(1)
    with closing(encoder.embed_log_mels(clips())) as embeddings:
        next(embeddings)
    windows = len(read) / batches.CLIPS_AT_ONCE
    assert 2 <= windows <= 4


def test_an_error_of_the_clips_is_raised_and_no_thread_stays(encoder, log_mels, cores):
    def broken():
        yield from log_mels
        raise OSError("disk gone")

    cores(2)
    before = threading.active_count()
    with pytest.raises(OSError, match="disk gone"):
        list(encoder.embed_log_mels(broken()))
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_bfloat16_turns_an_embedding_by_less_than_a_degree(encoder, log_mels):
    half = copy.copy(encoder)
    half.precision = "bfloat16"
    assert half.digest() == encoder.digest()
    whole, rounded = (np.stack(list(one.embed_log_mels(log_mels[:20]))) for one in (encoder, half))
    cosines = (whole * rounded).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(rounded, axis=1)
    assert 0 < np.degrees(np.arccos(cosines.clip(max=1))).max() < 1
    assert rounded.dtype == np.float32
