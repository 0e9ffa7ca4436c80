import math

import numpy as np
import pytest

from matpac.signal.resample import KAISER_BETA, ROLLOFF, ZERO_CROSSINGS, resample

METHODS = ("soxr_hq", "kaiser_best")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 44_100, 48_000, 192_000])
def test_length_is_rounded_up(method, rate_hz):
    for num_samples in (1, 2, 440, 441, 442, 4_410):
        resampled = resample(np.ones(num_samples, np.float32), rate_hz, 16_000, method)
        assert len(resampled) == math.ceil(num_samples * 16_000 / rate_hz)
        assert resampled.dtype == np.float32


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_099, 48_000])
def test_a_tone_stays_what_it_is(method, rate_hz):
    def tone(rate_hz):
        return np.sin(2 * np.pi * 1_234 * np.arange(rate_hz) / rate_hz).astype(np.float32)

    resampled = resample(tone(rate_hz), rate_hz, 16_000, method)
    middle = slice(1_000, 15_000)
    assert resampled[middle] == pytest.approx(tone(16_000)[middle], abs=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_fit_below_the_new_nyquist_is_gone(method):
    tone = np.sin(2 * np.pi * 9_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(resample(tone, 48_000, 16_000, method)[1_000:-1_000]).max() < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_the_same_rate_changes_nothing(method):
    samples = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    assert resample(samples, 16_000, 16_000, method) is samples


def test_long_recordings_have_no_seams():
    """Blocks of the matrix product: 44.1 kHz needs a second block after about 3 s."""
    samples = np.random.default_rng(0).standard_normal(44_100 * 40).astype(np.float32)
    whole = resample(samples, 44_100, 16_000, "kaiser_best")
    part = resample(samples[44_100 * 20 : 44_100 * 35], 44_100, 16_000, "kaiser_best")
    inside = slice(16_000, 16_000 * 14)
    assert whole[16_000 * 20 :][inside] == pytest.approx(part[inside], abs=1e-5)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_kaiser_best_is_the_sum_it_stands_for(rate_hz):
    """A row of the matrix product holds a part of a period, a whole period, or many."""
    samples = np.random.default_rng(0).uniform(-1, 1, rate_hz // 4).astype(np.float32)
    resampled = resample(samples, rate_hz, 16_000, "kaiser_best")
    cutoff = min(1, 16_000 / rate_hz) * ROLLOFF
    for place in (0, 1, 159, 160, 1_234, len(resampled) - 1):
        crossings = cutoff * (np.arange(len(samples)) - place * rate_hz / 16_000)
        near = np.abs(crossings) < ZERO_CROSSINGS
        window = np.i0(KAISER_BETA * np.sqrt(1 - (crossings[near] / ZERO_CROSSINGS) ** 2)) / np.i0(
            KAISER_BETA
        )
        expected = samples[near] @ (cutoff * np.sinc(crossings[near]) * window)
        assert resampled[place] == pytest.approx(expected, abs=3e-5)
