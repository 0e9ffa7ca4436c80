"""front end -> mel filterbank, made by librosa."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from matpac.params import LogMel

PAPER = {"sample_rate_hz": 16_000, "window_ms": 25, "num_mels": 80, "fmin_hz": 50, "fmax_hz": 8_000}
PAPER_FILTERS = Path(__file__).with_name("mel_paper.npy")
"""librosa's filterbank for `PAPER`, so that the paper's front end needs no librosa."""


@lru_cache(maxsize=8)
def mel_filters(params: LogMel) -> Float32[np.ndarray, "bin mel"]:
    """Triangles on Slaney's mel scale, each of unit area in Hz.

    Args:
        params: Front end; its hop and resampler make no difference here.

    Returns:
        Weights `[bin, mel]` of the window's power spectrum, one column per mel band. Shared by all
        callers: do not change them.

    Raises:
        ValueError: The front end is not the paper's and librosa is not installed.
    """
    if all(getattr(params, name) == value for name, value in PAPER.items()):
        filters: Float32[np.ndarray, "bin mel"] = np.load(PAPER_FILTERS)
        return filters
    return librosa_filters(params)


def librosa_filters(params: LogMel) -> Float32[np.ndarray, "bin mel"]:
    try:
        from librosa.filters import mel
    except ModuleNotFoundError as error:
        raise ValueError(
            "logmel: need librosa for a front end other than the paper's, found none. "
            "Install it with `pip install 'matpac[pipeline]'`."
        ) from error
    filters = mel(
        sr=params.sample_rate_hz,
        n_fft=params.window_samples,
        n_mels=params.num_mels,
        fmin=params.fmin_hz,
        fmax=params.fmax_hz,
        htk=False,
        norm="slaney",
        # Rounded once, at the end: in float32 librosa would round twice.
        dtype=np.float64,
    )
    return np.ascontiguousarray(filters.T, dtype=np.float32)
