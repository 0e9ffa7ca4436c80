import io
import tarfile

import numpy as np
import pytest
import webdataset

from matpac.shards.frames import TruncatedShard
from matpac.shards.tar import NPY_HEADER_BYTES, StoredClip, TarFrames, npy_header, write_tar


def clips(num_clips: int = 3, num_mels: int = 16) -> list[StoredClip]:
    generator = np.random.default_rng(0)
    return [
        StoredClip(
            f"clip-{number}",
            generator.normal(size=(5 + number, num_mels)).astype(np.float16),
            {"labels": ["é"], "fold": number},
        )
        for number in range(num_clips)
    ]


def frames_of(path, written, offsets, num_mels: int = 16) -> TarFrames:
    return TarFrames(
        [path],
        np.zeros(len(written), dtype=np.int32),
        np.array(offsets, dtype=np.int64),
        np.array([len(clip.log_mel) for clip in written], dtype=np.int64),
        num_mels,
    )


def test_a_header_of_numpy_has_one_length_for_every_shape():
    for shape in [(1, 16), (123_456_789, 128)]:
        header = npy_header(shape)
        assert len(header) == NPY_HEADER_BYTES
        file = io.BytesIO(header)
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == (shape, False, np.dtype("<f2"))


def test_the_same_clips_give_the_same_bytes(tmp_path):
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, clips())
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "")}


# WebDataset leaves closing the file to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_opens_a_shard(tmp_path):
    path = tmp_path / "shard-000000.tar"
    written = clips()
    write_tar(path, written)
    empty = tmp_path / "shard-000001.tar"  # All its clips were rejected.
    write_tar(empty, [])
    samples = list(webdataset.WebDataset([str(path), str(empty)], shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [clip.id for clip in written]
    for sample, clip in zip(samples, written, strict=True):
        assert sample["npy"].dtype == np.float16
        np.testing.assert_array_equal(sample["npy"], clip.log_mel)
        assert sample["json"] == clip.about


def test_a_crop_is_read_from_its_place(tmp_path):
    written = clips()
    offsets = write_tar(tmp_path / "a.tar", written)
    frames = frames_of(tmp_path / "a.tar", written, offsets)
    crop = np.empty((4, 16), dtype=np.float16)
    frames.read_into(crop, clip=2, first_frame=3)
    np.testing.assert_array_equal(crop, written[2].log_mel[3:7])


def test_a_shard_that_was_cut_off_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "shard-000007.tar"
    written = clips()
    offsets = write_tar(path, written)
    frames = frames_of(path, written, offsets)
    content = path.read_bytes()
    path.write_bytes(content[: offsets[-1] + 10])
    with pytest.raises(TruncatedShard, match=r"shard-000007\.tar ends before"):
        frames_of(path, written, offsets)
    with pytest.raises(TruncatedShard, match=r"shard-000007\.tar ends before"):
        frames.read_into(np.empty((7, 16), dtype=np.float16), clip=2, first_frame=0)
