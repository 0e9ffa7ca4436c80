"""Steps that are closer in time than the encoder's own."""

import numpy as np
import pytest
import torch

from matpac.encoder import shifts
from tests.encoder.test_module import RATE, noise, tiny_encoder


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


UP_TO_ROUNDING = {"atol": 3e-5, "rtol": 0}
"""With AVX-512, matrix products of other sizes add in another order."""
FRAMES = [1, 3, 4, 5, 16, 17, 63, 64, 65, 200]
"""At the edges of hops, patches and chunks of 64."""


@pytest.mark.parametrize("hop_ms", [80, 40, 20, 10])
@pytest.mark.parametrize("frames", FRAMES)
def test_steps_coincide_with_the_plain_ones(encoder, hop_ms, frames):
    clip = noise(400 + 160 * (frames - 1)).numpy()
    [plain] = encoder.embed_in_time(clip, RATE)
    [fine] = encoder.embed_in_time(clip, RATE, hop_ms=hop_ms)
    every = int(160 / hop_ms)
    assert fine.embeddings.shape == (-(-10 * frames // hop_ms), encoder.dim)
    np.testing.assert_allclose(fine.embeddings[::every], plain.embeddings, **UP_TO_ROUNDING)
    np.testing.assert_array_equal(fine.centers_ms[::every], plain.centers_ms)
    np.testing.assert_allclose(np.diff(fine.centers_ms), hop_ms)


def test_the_others_are_the_plain_steps_of_a_clip_that_begins_later(encoder):
    clip = noise(30_000).numpy()
    [fine] = encoder.embed_in_time(clip, RATE, hop_ms=40)
    for shift in (1, 2, 3):
        [later] = encoder.embed_in_time(clip[shift * 640 :], RATE)
        np.testing.assert_allclose(fine.embeddings[shift::4], later.embeddings, **UP_TO_ROUNDING)


@pytest.mark.parametrize(
    "options", [{}, {"layers": True}, {"patches": True}, {"layers": True, "patches": True}]
)
def test_layers_and_patches_have_their_usual_shapes(encoder, options):
    clips = [noise(20_000).numpy(), noise(5000).numpy()]
    fine = encoder.embed_in_time(clips, RATE, hop_ms=80, **options)
    for plain, closer in zip(encoder.embed_in_time(clips, RATE, **options), fine, strict=True):
        np.testing.assert_allclose(closer.embeddings[..., ::2, :], plain.embeddings, **UP_TO_ROUNDING)


def test_long_clips_are_cut_for_memory_with_the_same_result(encoder, monkeypatch):
    log_mel = encoder.log_mel(noise(100_000).numpy(), RATE)
    [whole] = encoder.embed_log_mels_in_time([log_mel], hop_ms=40)
    monkeypatch.setattr(shifts, "FRAMES_AT_ONCE", 2 * 64 * 4)
    [cut] = encoder.embed_log_mels_in_time([log_mel], hop_ms=40)
    np.testing.assert_allclose(cut.steps, whole.steps, **UP_TO_ROUNDING)
    np.testing.assert_allclose(cut.mean, whole.mean, **UP_TO_ROUNDING)
    plain = next(encoder.embed_log_mels_in_time([log_mel]))
    np.testing.assert_allclose(cut.mean, plain.mean, **UP_TO_ROUNDING)
    # In pieces that end where the next one has fewer frames than the last shift needs.
    pieces = [(0, log_mel[:128]), (0, log_mel[128:192]), (0, log_mel[192:197]), (7, log_mel[:30])]
    found = [(number, steps) for number, steps in encoder.embed_pieces(pieces, in_time=True, hop_ms=40)]
    [first, second] = encoder.embed_log_mels_in_time([log_mel[:197], log_mel[:30]], hop_ms=40)
    of_first = np.concatenate([steps for number, steps in found if number == 0])
    np.testing.assert_allclose(of_first, first.steps, **UP_TO_ROUNDING)
    np.testing.assert_allclose(found[-1][1], second.steps, **UP_TO_ROUNDING)


@pytest.mark.parametrize("frames", FRAMES)
def test_the_module_gives_the_same_steps(encoder, frames):
    clips = noise(2, 400 + 160 * (frames - 1))
    expected = np.stack([clip.embeddings for clip in encoder.embed_in_time(clips, RATE, hop_ms=40)])
    found = encoder(clips, hop_ms=40, layers=True)
    torch.testing.assert_close(found.steps, torch.from_numpy(expected), **UP_TO_ROUNDING)
    torch.testing.assert_close(found.layers[:, -1], found.steps, atol=0, rtol=0)
    assert found.mask.all()
    lengths = torch.tensor([clips.shape[1], 500])
    found = encoder(clips, lengths, hop_ms=40)
    [short] = encoder.embed_in_time(clips[1, :500], RATE, hop_ms=40)
    num_steps = min(len(short.embeddings), found.steps.shape[1])
    assert found.mask[1].sum() == num_steps
    expected = torch.from_numpy(short.embeddings[:num_steps])
    torch.testing.assert_close(found.steps[1, :num_steps], expected, **UP_TO_ROUNDING)


@pytest.mark.parametrize("hop_ms", [50, 0, -40, 30, 320, 5, "40", True, float("nan")])
def test_another_hop_is_refused_in_one_line(encoder, hop_ms):
    with pytest.raises(
        ValueError, match=r"^hop_ms: need one that divides 160 ms \(160, 80, 40, 20, 10\), got "
    ):
        encoder.shifts.__wrapped__(encoder, hop_ms)
