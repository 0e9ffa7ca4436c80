import sys

import numpy as np
import pytest

from matpac.signal.mel import librosa_filters, mel_filters


def test_the_shipped_filterbank_is_librosas(paper):
    np.testing.assert_array_equal(mel_filters(paper), librosa_filters(paper))


def test_a_filter_has_unit_area(paper):
    # Sampled at the bins, so wide triangles come close; a bin of 400 samples at 16 kHz is 40 Hz wide.
    assert 40 * mel_filters(paper)[:, 40:].sum(axis=0) == pytest.approx(1, rel=0.04)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_mels": 32, "fmin_hz": 0.0, "window_ms": 64},
        {"sample_rate_hz": 44_100, "fmax_hz": 22_050.0},
    ],
)
def test_other_front_ends_get_librosas_too(paper, changes):
    librosa = pytest.importorskip("librosa")
    params = paper.model_copy(update=changes)
    theirs = librosa.filters.mel(
        sr=params.sample_rate_hz,
        n_fft=params.window_samples,
        n_mels=params.num_mels,
        fmin=params.fmin_hz,
        fmax=params.fmax_hz,
    )
    ours = mel_filters(params).T
    assert ours == pytest.approx(theirs, abs=1e-7)


def test_hop_and_resampler_make_no_difference(paper):
    other = paper.model_copy(update={"hop_ms": 5.0, "resampler": "kaiser_best"})
    np.testing.assert_array_equal(mel_filters(other), mel_filters(paper))


def test_no_filter_is_empty(paper):
    bins = (mel_filters(paper) > 0).sum(axis=0)
    assert (bins.min(), bins.max()) == (1, 14)


def test_only_other_front_ends_need_librosa(paper, monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)
    monkeypatch.setitem(sys.modules, "librosa.filters", None)
    mel_filters.cache_clear()
    assert mel_filters(paper).shape == (201, 80)
    with pytest.raises(ValueError, match=r"^logmel: need librosa .*pip install 'matpac\[pipeline\]'"):
        mel_filters(paper.model_copy(update={"num_mels": 40}))
