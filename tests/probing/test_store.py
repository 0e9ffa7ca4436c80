import hashlib
import tracemalloc
import warnings

import numpy as np
import pytest
import xarray
import zarr

from matpac import files
from matpac.clip import Task
from matpac.encoder.zarr import CLIPS_PER_CHUNK, check_whole
from matpac.probing.store import FEATURES, EmbeddedClips, read_clips, read_feature, write_embeddings
from tests.files import files_end_at


def three_clips(**changes):
    values = {
        "dataset": "birds",
        "checkpoint": "abc",
        "task": Task(classes=("robin", "Rotkehlchen-ü"), multi_label=True, metric="mAP", num_folds=3),
        "ids": ["a", "bb", "ccc"],
        "splits": ["", "", ""],
        "folds": np.array([1, 2, 3]),
        "labels": np.array([[1, 0], [0, 0], [1, 1]], dtype=np.uint8),
        "observed": np.array([[1, 0], [1, 1], [1, 1]], dtype=np.uint8),
    }
    return EmbeddedClips(**{**values, **changes})


def features(num_clips=3):
    return {
        name: np.arange(num_clips * dim, dtype=np.float32).reshape(num_clips, dim)
        for dim, name in enumerate(FEATURES, start=4)
    }


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_is_written_is_read(tmp_path):
    written = three_clips()
    write_embeddings(tmp_path / "birds", written, features())
    read = read_clips(tmp_path / "birds")
    assert (read.dataset, read.checkpoint, read.task) == ("birds", "abc", written.task)
    assert (read.ids, read.splits) == (written.ids, written.splits)
    assert np.array_equal(read.folds, written.folds)
    assert np.array_equal(read.labels, written.labels)
    assert np.array_equal(read.observed, written.observed)
    for name, values in features().items():
        assert np.array_equal(read_feature(tmp_path / "birds", name), values)
        assert np.array_equal(read_feature(tmp_path / "birds", name, np.array([0, 2])), values[[0, 2]])


def many_clips(num_clips):
    return three_clips(
        ids=[str(clip) for clip in range(num_clips)],
        splits=[""] * num_clips,
        folds=np.ones(num_clips, dtype=np.int64),
        labels=np.zeros((num_clips, 2), dtype=np.uint8),
        observed=np.ones((num_clips, 2), dtype=np.uint8),
    )


@pytest.mark.parametrize("num_clips", [CLIPS_PER_CHUNK, 2 * CLIPS_PER_CHUNK + 5])
def test_rows_that_come_one_by_one_are_stored_in_order_as_those_of_an_array(tmp_path, num_clips):
    write_embeddings(tmp_path / "whole", many_clips(num_clips), features(num_clips))
    rows = {name: iter(values) for name, values in features(num_clips).items()}
    write_embeddings(tmp_path / "streamed", many_clips(num_clips), rows)
    assert digests(tmp_path / "streamed") == digests(tmp_path / "whole")
    for name, values in features(num_clips).items():
        assert np.array_equal(read_feature(tmp_path / "streamed", name), values)


def test_no_more_rows_are_in_memory_than_a_chunk_holds(tmp_path):
    """64 MB pass through; at most a quarter of that is in memory at once."""
    num_clips, dim = 8 * CLIPS_PER_CHUNK, 2048
    rows = (np.full(dim, clip, dtype=np.float32) for clip in range(num_clips))
    tracemalloc.start()
    write_embeddings(tmp_path / "birds", many_clips(num_clips), {"pretrained": rows})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * CLIPS_PER_CHUNK * dim * 4
    assert np.array_equal(read_feature(tmp_path / "birds", "pretrained")[:, 7], np.arange(num_clips))


def test_the_store_opens_in_zarr_and_xarray_without_a_warning(tmp_path):
    write_embeddings(tmp_path / "birds", three_clips(), features())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(zarr.open_group(tmp_path / "birds", mode="r")["ids"][:]) == ["a", "bb", "ccc"]
        dataset = xarray.open_zarr(tmp_path / "birds").load()
    assert dataset.ids.values.tolist() == ["a", "bb", "ccc"]
    assert dataset.pretrained.dims[0] == dataset.labels.dims[0] == "clip"
    assert dataset.observed.dims == dataset.labels.dims
    assert dataset.attrs["classes"] == ["robin", "Rotkehlchen-ü"]


def test_the_same_values_give_the_same_bytes_and_replace_what_was_there(tmp_path):
    write_embeddings(tmp_path / "one", three_clips(), features())
    write_embeddings(tmp_path / "two", three_clips(ids=["x", "y", "z"]), features())
    assert digests(tmp_path / "one") != digests(tmp_path / "two")
    write_embeddings(tmp_path / "two", three_clips(), features())
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_values_that_are_not_finite_are_refused_by_clip(tmp_path):
    broken = features()
    broken["pretrained"][1, 2] = np.nan
    with pytest.raises(ValueError, match="birds: pretrained: need finite values, got others for clip bb"):
        write_embeddings(tmp_path / "birds", three_clips(), broken)
    assert not (tmp_path / "birds").exists()


def test_arrays_of_other_lengths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="splits: need 3 clips, got 1"):
        write_embeddings(tmp_path / "birds", three_clips(splits=["train"]), features())
    three_columns = np.zeros((3, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="labels: need a column for each of 2 classes, got 3"):
        write_embeddings(
            tmp_path / "birds", three_clips(labels=three_columns, observed=three_columns), features()
        )
    with pytest.raises(ValueError, match="pretrained: need 3 clips, got 2"):
        write_embeddings(tmp_path / "birds", three_clips(), features(2))


def test_an_id_that_occurs_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="birds: need ids that occur once, got a twice"):
        write_embeddings(tmp_path / "birds", three_clips(ids=["a", "bb", "a"]), features())


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing: need a store of embeddings"):
        read_clips(tmp_path / "nothing")


def test_another_process_that_writes_in_between_leaves_no_hole(tmp_path, monkeypatch):
    """Two writers of one store once shared a partial folder; one moved it away under the other."""

    def rows(values):
        yield from values[:2]
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "getpid", lambda: 1)
            write_embeddings(tmp_path / "birds", three_clips(), features())
        yield from values[2:]

    found = features() | {"pretrained": rows(features()["pretrained"])}
    write_embeddings(tmp_path / "birds", three_clips(), found)
    assert [path.name for path in tmp_path.iterdir()] == ["birds"]
    assert read_clips(tmp_path / "birds").ids == ["a", "bb", "ccc"]
    for name, values in features().items():
        assert np.array_equal(read_feature(tmp_path / "birds", name), values)


@pytest.mark.parametrize("name", ["ids/c/0", "labels/c/0/0", "pretrained/c/1/0"])
def test_a_store_with_a_hole_is_not_published(tmp_path, name):
    num_clips = CLIPS_PER_CHUNK + 1
    store = tmp_path / "birds"
    write_embeddings(store, many_clips(num_clips), features(num_clips))
    check_whole(store, FEATURES)
    (store / name).unlink()
    array = name.partition("/")[0]
    with pytest.raises(RuntimeError, match=f"need the whole array {array}, found a part"):
        check_whole(store, FEATURES)
    with pytest.raises(RuntimeError, match="need the whole array steps, found none"):
        check_whole(store, ["steps"])


def test_a_full_disk_leaves_neither_a_store_nor_a_part(tmp_path):
    with pytest.raises(OSError, match="large"), files_end_at(20_000):
        write_embeddings(tmp_path / "birds", many_clips(2000), features(2000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["zarr.json", "ids/c/0", "random_init/c/0/0"])
def test_a_store_with_a_changed_bit_is_refused_and_its_remedy_named(tmp_path, name):
    write_embeddings(tmp_path / "birds", three_clips(), features())
    path = tmp_path / "birds" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"birds: need .*, found other bytes in {name}\. Make it again: `"):
        read_clips(tmp_path / "birds")
