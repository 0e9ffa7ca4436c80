import math

import numpy as np
import pytest

from matpac.signal.logmel import FLOOR, hann, log_mel, num_frames
from matpac.signal.mel import mel_filters


@pytest.mark.parametrize(
    ("num_samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (160_000, 998)]
)
def test_a_frame_starts_at_every_hop_and_ends_inside(paper, num_samples, frames):
    assert num_frames(num_samples, paper) == frames
    assert log_mel(np.zeros(num_samples, np.float32), paper, mel_filters(paper)).shape == (frames, 80)


def test_silence_is_the_floor(paper):
    silence = log_mel(np.zeros(16_000, np.float32), paper, mel_filters(paper))
    assert silence == pytest.approx(math.log(FLOOR))


def test_a_tone_is_loudest_in_the_band_around_it(paper):
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    # 80 bands share 44.47 mels from 50 Hz (0.75) to 8 kHz (45.25); 1 kHz is 15 mels.
    band = (15 - 0.75) / ((45.245 - 0.75) / 81) - 1
    assert log_mel(tone, paper, mel_filters(paper)).argmax(axis=1) == pytest.approx(round(band))


def test_the_energy_of_a_tone_by_hand(paper):
    # Window of weight 200 over a tone on bin 25: |X| = 100; its neighbours have half of that.
    tone = np.sin(2 * np.pi * 1_000 * np.arange(400) / 16_000).astype(np.float32)
    energies = np.zeros(201)
    energies[24:27] = np.square([50, 100, 50])
    by_hand = np.log(energies @ mel_filters(paper) + FLOOR)
    assert log_mel(tone, paper, mel_filters(paper))[0, 25] == pytest.approx(by_hand[25], abs=1e-4)


def test_blocks_leave_no_seams(paper):
    noise = np.random.default_rng(0).standard_normal(16_000 * 10).astype(np.float32)
    whole = log_mel(noise, paper, mel_filters(paper))
    for first in (0, 255, 256, 700):
        start = first * 160
        alone = log_mel(noise[start : start + 400], paper, mel_filters(paper))[0]
        assert alone == pytest.approx(whole[first], abs=1e-5)


def test_the_window_is_periodic():
    window = hann(4)
    assert window == pytest.approx([0, 0.5, 1, 0.5])
