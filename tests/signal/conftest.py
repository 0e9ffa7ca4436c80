import pytest

from matpac.params import LogMel


@pytest.fixture
def paper() -> LogMel:
    return LogMel(
        sample_rate_hz=16_000,
        window_ms=25,
        hop_ms=10,
        num_mels=80,
        fmin_hz=50,
        fmax_hz=8_000,
        resampler="soxr_hq",
    )
