import hashlib
import warnings

import numpy as np
import pytest
import xarray
import zarr

from matpac.datasets.clip import Task
from matpac.probing.embeddings import FEATURES, EmbeddingSet, read_embeddings, write_embeddings


def three_clips(**changes):
    values = {
        "dataset": "birds",
        "checkpoint": "abc",
        "task": Task(classes=("robin", "Rotkehlchen-ü"), multi_label=True, metric="mAP", num_folds=3),
        "ids": ["a", "bb", "ccc"],
        "splits": ["", "", ""],
        "folds": np.array([1, 2, 3]),
        "labels": np.array([[1, 0], [0, 0], [1, 1]], dtype=np.uint8),
        "features": {
            name: np.arange(3 * dim, dtype=np.float32).reshape(3, dim)
            for dim, name in enumerate(FEATURES, start=4)
        },
    }
    return EmbeddingSet(**{**values, **changes})


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_is_written_is_read(tmp_path):
    written = three_clips()
    write_embeddings(tmp_path / "birds", written)
    read = read_embeddings(tmp_path / "birds")
    assert (read.dataset, read.checkpoint, read.task) == ("birds", "abc", written.task)
    assert (read.ids, read.splits) == (written.ids, written.splits)
    assert np.array_equal(read.folds, written.folds)
    assert np.array_equal(read.labels, written.labels)
    assert all(np.array_equal(read.features[name], written.features[name]) for name in FEATURES)


def test_the_store_opens_in_zarr_and_xarray_without_a_warning(tmp_path):
    write_embeddings(tmp_path / "birds", three_clips())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(zarr.open_group(tmp_path / "birds", mode="r")["ids"][:]) == ["a", "bb", "ccc"]
        dataset = xarray.open_zarr(tmp_path / "birds").load()
    assert dataset.ids.values.tolist() == ["a", "bb", "ccc"]
    assert dataset.pretrained.dims[0] == dataset.labels.dims[0] == "clip"
    assert dataset.attrs["classes"] == ["robin", "Rotkehlchen-ü"]


def test_the_same_values_give_the_same_bytes_and_replace_what_was_there(tmp_path):
    write_embeddings(tmp_path / "one", three_clips())
    write_embeddings(tmp_path / "two", three_clips(ids=["x", "y", "z"]))
    assert digests(tmp_path / "one") != digests(tmp_path / "two")
    write_embeddings(tmp_path / "two", three_clips())
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_values_that_are_not_finite_are_refused_by_clip(tmp_path):
    features = three_clips().features
    features["pretrained"][1, 2] = np.nan
    with pytest.raises(ValueError, match=r"pretrained: .* 1 of 3 clips; the first is bb"):
        write_embeddings(tmp_path / "birds", three_clips(features=features))
    assert not (tmp_path / "birds").exists()


def test_arrays_of_other_lengths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="splits: need 3 clips, got 1"):
        write_embeddings(tmp_path / "birds", three_clips(splits=["train"]))
    with pytest.raises(ValueError, match="column for each of 2 classes, got 3"):
        write_embeddings(tmp_path / "birds", three_clips(labels=np.zeros((3, 3), dtype=np.uint8)))


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing: need a store of embeddings"):
        read_embeddings(tmp_path / "nothing")
