"""embeddings over time <-> ragged arrays in the store"""

import tracemalloc
import warnings

import numpy as np
import pytest
import xarray
import zarr

from matpac.encoder.over_time import OverTime
from matpac.files import SUMS
from matpac.probing import steps as module
from matpac.probing.steps import STEPS_PER_FILE, Steps
from matpac.probing.store import read_clips, read_feature, write_embeddings
from tests.probing.test_store import digests, many_clips


def ragged(lengths, dim=6):
    random = np.random.default_rng(0)
    clips = [random.normal(size=(length, dim)).astype(np.float32) for length in lengths]
    return [OverTime(steps.mean(0), steps.std(0), steps) for steps in clips]


def written(folder, rows):
    write_embeddings(folder, many_clips(len(rows)), {"pretrained": iter(rows)})
    return Steps(folder, "pretrained")


@pytest.fixture
def small_files(monkeypatch):
    """Small chunks and files, so that clips cross their borders."""
    monkeypatch.setattr(module, "STEPS_PER_CHUNK", 4)
    monkeypatch.setattr(module, "STEPS_PER_FILE", 16)


@pytest.mark.parametrize("lengths", [[1], [5, 1, 9], [16, 16], [3, 40, 1, 17, 31]])
def test_what_is_written_is_read_in_any_order_and_followed_by_zeros(tmp_path, small_files, lengths):
    rows = ragged(lengths)
    stored = written(tmp_path / "birds", rows)
    assert stored.num_steps.tolist() == lengths
    order = np.arange(len(rows))[::-1].copy()
    steps, present = stored.padded(order)
    assert steps.shape == (len(rows), max(lengths), 6)
    for clip, found, here in zip(order, steps, present, strict=True):
        assert np.array_equal(found[: lengths[clip]], rows[clip].steps.astype(np.float16))
        assert not found[lengths[clip] :].any()
        assert here.tolist() == [step < lengths[clip] for step in range(max(lengths))]
    assert np.array_equal(
        read_feature(tmp_path / "birds", "pretrained"), np.stack([row.mean for row in rows])
    )
    together = np.concatenate([row.steps for row in rows]).astype(np.float16)
    assert np.array_equal(zarr.open_group(tmp_path / "birds", mode="r")["pretrained_steps"][:], together)


def test_the_same_steps_give_the_same_bytes_and_means_need_none(tmp_path, small_files):
    rows = ragged([7, 30, 2])
    written(tmp_path / "one", rows)
    written(tmp_path / "two", rows)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    write_embeddings(tmp_path / "means", many_clips(3), {"pretrained": [row.mean for row in rows]})
    means = {
        path: digest
        for path, digest in digests(tmp_path / "means").items()
        if path.name not in ("zarr.json", SUMS)
    }
    assert means.items() < digests(tmp_path / "one").items()
    assert read_clips(tmp_path / "means").ids == read_clips(tmp_path / "one").ids


def test_a_store_without_steps_says_what_to_set(tmp_path):
    write_embeddings(tmp_path / "birds", many_clips(3), {"pretrained": np.ones((3, 6), dtype=np.float32)})
    with pytest.raises(ValueError, match=r"birds: need embeddings over time .* Set embed.over_time: true"):
        Steps(tmp_path / "birds", "pretrained")


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-70_000.0, "70,000")])
def test_steps_that_float16_cannot_hold_are_refused_by_clip(tmp_path, value, shown):
    rows = ragged([3, 2, 4])
    rows[1].steps[1, 0] = value
    with pytest.raises(ValueError, match=f"^embed.over_time: pretrained: .* got {shown} for clip 1"):
        written(tmp_path / "birds", rows)
    assert not (tmp_path / "birds").exists()


def test_writing_and_reading_hold_a_small_part_in_memory(tmp_path):
    """60 MB of steps pass through; writing needs a few copies of a file of 4 MB."""
    dim, num_clips = 256, 2000
    rows = (
        OverTime(*np.ones((2, dim), np.float32), np.full((60, dim), clip % 7, np.float32))
        for clip in range(num_clips)
    )
    file_bytes = STEPS_PER_FILE * dim * 2
    tracemalloc.start()
    write_embeddings(tmp_path / "birds", many_clips(num_clips), {"pretrained": rows})
    stored = Steps(tmp_path / "birds", "pretrained")
    for first in range(0, num_clips, 50):
        steps, _ = stored.padded(np.arange(first, first + 50))
        assert np.array_equal(steps[:, 7, 3], np.arange(first, first + 50) % 7)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 7 * file_bytes


def test_the_store_opens_in_xarray_without_a_warning(tmp_path):
    written(tmp_path / "birds", ragged([5, 1, 9]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(tmp_path / "birds").load()
    assert dataset.pretrained_num_steps.dims == ("clip",)
    assert dataset.pretrained_steps.dims == ("pretrained_step", "pretrained_dim")
    assert dataset.sizes["pretrained_step"] == 15
