import numpy as np
import pytest
import xarray
import zarr

from matpac.shards import zarr as zarr_store
from matpac.shards.frames import TruncatedShard
from matpac.shards.zarr import ZarrFrames, first_frames, write_zarr

LENGTHS = np.array([5, 70, 1, 33, 20], dtype=np.int64)


@pytest.fixture
def log_mels(monkeypatch):
    # 129 frames in files of 32: clips cross borders of chunks and of files.
    monkeypatch.setattr(zarr_store, "FRAMES_PER_CHUNK", 8)
    monkeypatch.setattr(zarr_store, "CHUNKS_PER_FILE", 4)
    generator = np.random.default_rng(0)
    log_mels = [generator.normal(size=(length, 16)).astype(np.float16) for length in LENGTHS]
    log_mels[1][:] = 0  # Zarr's fill value: these chunks must be written all the same.
    return log_mels


def test_zarr_and_xarray_open_the_store(tmp_path, log_mels):
    path = tmp_path / "logmel.zarr"
    write_zarr(path, log_mels, LENGTHS, 16)
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(group["log_mel"], np.concatenate(log_mels))
    np.testing.assert_array_equal(group["offsets"], [0, 5, 75, 76, 109, 129])
    dataset = xarray.open_zarr(path)
    assert dataset["log_mel"].dims == ("frame", "mel")
    np.testing.assert_array_equal(dataset["log_mel"], np.concatenate(log_mels))


def test_crops_cross_the_borders_of_files(tmp_path, log_mels):
    path = tmp_path / "logmel.zarr"
    write_zarr(path, log_mels, LENGTHS, 16)
    frames = ZarrFrames(path, first_frames(LENGTHS)[:-1])
    for clip, log_mel in enumerate(log_mels):
        for first in range(len(log_mel)):
            crop = np.empty((len(log_mel) - first, 16), dtype=np.float16)
            frames.read_into(crop, clip, first)
            np.testing.assert_array_equal(crop, log_mel[first:])


def test_the_same_clips_give_the_same_bytes(tmp_path, log_mels):
    for name in ("a", "b"):
        write_zarr(tmp_path / name, log_mels, LENGTHS, 16)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*")]
    assert len(files) > 5
    for file in files:
        if (tmp_path / "a" / file).is_file():
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_file_that_was_cut_off_is_an_error_that_names_it(tmp_path, log_mels):
    write_zarr(tmp_path, log_mels, LENGTHS, 16)
    file = tmp_path / "log_mel/c/2/0"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TruncatedShard, match="log_mel/c/2/0 ends before"):
        ZarrFrames(tmp_path, first_frames(LENGTHS)[:-1])


def test_a_store_of_another_layout_is_refused(tmp_path):
    packed = zarr.create_array(
        tmp_path / "log_mel", shape=(129, 16), chunks=(8, 16), shards=(160, 16), dtype=np.float16
    )
    packed[:] = np.random.default_rng(0).normal(size=(129, 16))
    with pytest.raises(ValueError, match="need uncompressed chunks"):
        ZarrFrames(tmp_path, first_frames(LENGTHS)[:-1])
