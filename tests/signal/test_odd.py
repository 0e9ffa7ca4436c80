"""Strange real files: headers that lie, 20 channels, 64-bit floats, 192 kHz, containers for FFmpeg alone.

`odd.csv` says of each what is right; it was reviewed row by row. Files named invalid whose samples are all
there (a broken chunk behind them, say) are used.
"""

import csv
from pathlib import Path

import numpy as np
import pytest

from matpac.clip import UnusableAudio, phrase_of
from matpac.signal.audio import decode
from matpac.signal.logmel import log_mel
from matpac.signal.mel import mel_filters
from matpac.signal.resample import resample


def verdict(path, params) -> str:
    try:
        samples, rate_hz = decode(path, reject=("silent", "truncated"))
    except UnusableAudio as error:
        return error.reason
    frames = log_mel(
        resample(samples, rate_hz, params.sample_rate_hz, params.resampler), params, mel_filters(params)
    )
    assert len(frames) > 0
    assert np.isfinite(frames).all()
    return "used"


@pytest.fixture
def expected() -> dict[str, str]:
    with Path(__file__).with_name("odd.csv").open(newline="") as table:
        return {row["path"]: row["verdict"] for row in csv.DictReader(table)}


def test_each_is_used_or_refused_for_the_right_reason(audio_folder, paper, expected, recwarn):
    folder = audio_folder / "odd"
    with (folder / "labels.csv").open(newline="") as table:
        paths = sorted(row["path"] for row in csv.DictReader(table))
    assert {path: verdict(folder / path, paper) for path in paths} == expected
    assert not recwarn.list


def test_the_table_counts(expected):
    verdicts = list(expected.values())
    refused = [phrase_of(reason) for reason in verdicts if reason != "used"]
    assert (len(verdicts), verdicts.count("used")) == (144, 98)
    assert {phrase: refused.count(phrase) for phrase in set(refused)} == {
        "cannot be decoded": 36,
        "no samples": 9,
        "truncated": 1,
    }
