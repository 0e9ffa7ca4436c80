import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from matpac.params import LogMel
from matpac.shards import frames
from matpac.shards.crops import SILENCE, Crops, ReusedMemory, random_bits
from matpac.shards.folder import ShardFolder
from matpac.shards.frames import WITHOUT_WAITING
from tests.recordings import LOGMEL, build, plan_of, write_recordings


def make_folder(where, name="noise", durations_s=(0.5, 0.8, 0.6, 1.1, 0.7), format="webdataset", **changes):
    root = where / f"audio-{name}"
    if not root.exists():
        write_recordings(root, durations_s)
    out = where / f"{format}-{name}"
    build(plan_of(root, where / f"work-{format}-{name}", format=format, clips_per_shard=2, **changes), out)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("shards"))


def crops_of(*folders, crop_frames=32, short_clips="drop", seed=0):
    return Crops(folders, crop_frames, short_clips, seed)


def test_an_epoch_shows_every_clip_once_in_an_order_of_its_own(folder):
    crops = crops_of(folder)
    epochs = [crops.batch(epoch * 5, 5).clips.tolist() for epoch in range(9)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5


def test_a_crop_is_a_run_of_frames_of_its_clip(folder):
    whole = ShardFolder(folder)
    batch = crops_of(folder).batch(0, 50)
    for log_mel, clip in zip(batch.log_mel, batch.clips.tolist(), strict=True):
        frames = whole.read_clip(clip)
        places = range(len(frames) - 32 + 1)
        assert any(np.array_equal(frames[place : place + 32], log_mel) for place in places)


def test_a_batch_follows_from_its_place_in_the_stream_alone(folder):
    whole = crops_of(folder).batch(0, 24)
    pieces = [crops_of(folder).batch(first, 3) for first in range(21, -1, -3)][::-1]
    np.testing.assert_array_equal(np.concatenate([piece.log_mel for piece in pieces]), whole.log_mel)
    np.testing.assert_array_equal(np.concatenate([piece.clips for piece in pieces]), whole.clips)


def test_a_stream_reads_ahead_the_same_batches(folder):
    crops = crops_of(folder)
    for number, batch in enumerate(crops.stream(4, 3, 6, prefetch=2)):
        np.testing.assert_array_equal(batch.log_mel, crops.batch(4 + 3 * number, 3).log_mel)
    assert number == 5


def test_two_processes_share_a_batch(folder):
    crops = crops_of(folder)
    for number, batch in enumerate(crops.stream(4, 6, 5)):
        parts = [crops.batch(4 + 6 * number + first, 3) for first in (0, 3)]
        np.testing.assert_array_equal(np.concatenate([part.log_mel for part in parts]), batch.log_mel)
        np.testing.assert_array_equal(np.concatenate([part.clips for part in parts]), batch.clips)


def test_the_clips_of_a_batch_are_known_without_reading_it(folder):
    crops = crops_of(folder)
    np.testing.assert_array_equal(crops.clips(3, 11), crops.batch(3, 11).clips)


def test_a_batch_is_read_into_memory_of_the_callers(folder):
    crops = crops_of(folder)
    memory = np.zeros((8, 32, 16), dtype=np.float16)
    shapes = []

    def empty(shape):
        shapes.append(shape)
        return memory

    assert crops.batch(5, 8, empty).log_mel is memory
    np.testing.assert_array_equal(memory, crops.batch(5, 8).log_mel)
    for batch in crops.stream(13, 8, 2, empty=empty, prefetch=0):
        assert batch.log_mel is memory
    assert shapes == [(8, 32, 16)] * 3


def test_a_stream_never_reuses_memory_that_somebody_looks_at(folder):
    crops = crops_of(folder)
    looks = {
        "a batch": lambda log_mel: log_mel,
        "a part": lambda log_mel: log_mel[1:2, 3:],
        "a part of a part": lambda log_mel: log_mel[1:][:2].T,
        "other numbers": lambda log_mel: log_mel.view(np.int16),
        "a tensor": torch.from_numpy,
        "a part of a tensor": lambda log_mel: torch.from_numpy(log_mel)[1:, :4],
    }
    for look in looks.values():
        kept = [look(batch.log_mel) for batch in crops.stream(0, 3, 8, prefetch=1)]
        for number, seen in enumerate(kept):
            np.testing.assert_array_equal(seen, look(crops.batch(number * 3, 3).log_mel))


def test_a_stream_reuses_memory_that_nobody_looks_at():
    memory = ReusedMemory()
    first = memory((2, 3, 4))
    place = first.ctypes.data
    part = first[1]
    del first
    assert memory((2, 3, 4)).ctypes.data != place
    del part
    assert memory((2, 3, 4)).ctypes.data == place
    assert memory((3, 3, 4)).shape == (3, 3, 4)


def test_a_stream_may_be_left_early(folder):
    stream = crops_of(folder).stream(0, 3, 1000)
    next(stream)
    stream.close()


def test_both_formats_give_the_same_batches(tmp_path):
    folders = [make_folder(tmp_path, format=format) for format in ("webdataset", "zarr")]
    tar, zarr = (crops_of(folder).batch(3, 40) for folder in folders)
    np.testing.assert_array_equal(tar.log_mel, zarr.log_mel)
    np.testing.assert_array_equal(tar.clips, zarr.clips)


def test_short_clips_are_dropped_or_followed_by_silence(folder):
    dropped = crops_of(folder, crop_frames=64)
    assert dropped.num_clips == 3  # 0.5 s and 0.6 s are 48 and 58 frames.
    assert dropped.num_dropped == 2
    padded = crops_of(folder, crop_frames=64, short_clips="pad")
    assert padded.num_clips == 5
    batch = padded.batch(0, 5)
    [log_mel] = batch.log_mel[batch.clips == 0]
    np.testing.assert_array_equal(log_mel[:48], ShardFolder(folder).read_clip(0))
    assert (log_mel[48:] == SILENCE).all()
    assert np.float16(np.log(1.1920929e-07)) == SILENCE


def test_no_clip_long_enough_is_an_error_that_says_how_long_the_longest_is(folder):
    with pytest.raises(ValueError, match=r"at least 9600 frames.* has 108"):
        crops_of(folder, crop_frames=9600)


def test_a_mixture_holds_all_clips_and_has_their_common_statistics(tmp_path, folder):
    other = make_folder(tmp_path, name="other", durations_s=(0.9, 0.4))
    mixture = crops_of(folder, other)
    assert mixture.num_clips == 7
    batch = mixture.batch(0, 7)
    assert sorted(mixture.ids(batch.clips)) == [
        *(f"webdataset-noise/a00{number}" for number in range(5)),
        "webdataset-other/a000",
        "webdataset-other/a001",
    ]
    shards = [ShardFolder(path) for path in (folder, other)]
    values = np.concatenate(
        [shard.read_clip(clip).ravel() for shard in shards for clip in range(len(shard))]
    ).astype(np.float64)
    assert mixture.statistics.mean == pytest.approx(values.mean(), rel=1e-12)
    assert mixture.statistics.std == pytest.approx(values.std(), rel=1e-12)


def test_a_batch_of_a_mixture_has_the_crops_of_its_clips(tmp_path, folder):
    other = make_folder(tmp_path, name="other", durations_s=(0.9, 0.4), format="zarr")
    mixture = crops_of(folder, other, short_clips="pad", crop_frames=50)
    batch = mixture.batch(0, 21)
    shards = {path.name: ShardFolder(path) for path in (folder, other)}
    for log_mel, name in zip(batch.log_mel, mixture.ids(batch.clips), strict=True):
        dataset, clip = name.split("/")
        frames = shards[dataset].read_clip(int(clip.removeprefix("a")))
        padded = np.concatenate([frames, np.full((max(50 - len(frames), 0), 16), SILENCE)])
        assert any(np.array_equal(padded[place : place + 50], log_mel) for place in range(len(padded) - 49))


def test_shards_of_another_front_end_are_refused_by_the_name_of_the_field(tmp_path, folder):
    changed = LogMel(**{**LOGMEL.model_dump(), "hop_ms": 20})
    other = make_folder(tmp_path, name="other", logmel=changed)
    with pytest.raises(ValueError, match=r"logmel\.hop_ms: need one front end .* found 10\.0 .* and 20\.0"):
        crops_of(folder, other)


def test_a_folder_that_is_not_there_is_an_error_that_says_how_to_make_it(tmp_path):
    with pytest.raises(ValueError, match=r"python -m flows\.shards nowhere"):
        ShardFolder(tmp_path / "nowhere")


def test_starts_are_uniform_and_reach_both_ends():
    clips = np.arange(30_000)
    bits = random_bits(3, "start", np.zeros_like(clips), clips)
    counts = np.bincount((bits % np.uint64(10)).astype(np.int64), minlength=10)
    assert counts.min() > 2_800
    assert counts.max() < 3_200


def test_random_bits_differ_by_seed_purpose_epoch_and_clip():
    clips = np.arange(1000)
    draws = [
        random_bits(seed, purpose, np.full_like(clips, epoch), clips)
        for seed in (0, 1)
        for purpose in ("order", "start")
        for epoch in (0, 1)
    ]
    assert len(np.unique(np.concatenate(draws))) == 8_000


def test_random_bits_are_those_of_splitmix64():
    # First outputs of the reference implementation (prng.di.unimi.it/splitmix64.c) from state 0 and from
    # the states that follow: our four rounds, each fed with the one before.
    def splitmix64(state: int) -> int:
        mask = 2**64 - 1
        z = (state + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    assert splitmix64(0) == 0xE220A8397B1DCDAF
    expected = splitmix64(splitmix64(splitmix64(splitmix64(7) + 1) + 5) + 11)
    [found] = random_bits(7, "start", np.array([5]), np.array([11]))
    assert int(found) == expected


def test_the_sequence_of_samples_is_for_ever(folder):
    """A run that is resumed, and one that is repeated years later, see the same."""
    crops = crops_of(folder, seed=5)
    assert crops.clips(3, 12).tolist() == [2, 0, 3, 4, 0, 1, 2, 2, 4, 3, 1, 0]
    epochs, clips = np.arange(6) // 3, np.arange(6) % 3
    assert (random_bits(5, "start", epochs, clips) % np.uint64(391)).tolist() == [212, 17, 173, 188, 389, 26]


def test_the_loader_needs_neither_torch_nor_a_decoder():
    code = (
        "import sys, matpac.shards.crops; "
        "print([m for m in ('torch', 'soundfile', 'soxr', 'librosa', 'webdataset') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_what_the_page_cache_lacks_is_left_to_the_threads(folder, monkeypatch):
    expected = crops_of(folder).batch(0, 20).log_mel
    read = os.preadv
    flags_seen = set()

    def some_wait_for_the_disk(descriptor, buffers, position, flags=0):
        flags_seen.add(flags)
        if flags and position // 160 % 3 == 0:
            raise BlockingIOError(errno.EAGAIN, "not in memory")
        if flags and position // 160 % 3 == 1:
            return read(descriptor, [buffers[0][:100]], position)
        return read(descriptor, buffers, position)

    monkeypatch.setattr(os, "preadv", some_wait_for_the_disk)
    np.testing.assert_array_equal(crops_of(folder).batch(0, 20).log_mel, expected)
    assert flags_seen == {0, WITHOUT_WAITING}


def test_a_file_system_that_cannot_tell_what_is_cached_gives_the_same_crops(folder, monkeypatch):
    expected = crops_of(folder).batch(0, 20).log_mel
    read = os.preadv

    def without_flags(descriptor, buffers, position, flags=0):
        if flags:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return read(descriptor, buffers, position)

    monkeypatch.setattr(os, "preadv", without_flags)
    np.testing.assert_array_equal(crops_of(folder).batch(0, 20).log_mel, expected)
    monkeypatch.setattr(frames, "WITHOUT_WAITING", None)
    np.testing.assert_array_equal(crops_of(folder).batch(0, 20).log_mel, expected)
