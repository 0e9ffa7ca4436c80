import csv
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import wave
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from flows.summary import describe, page_of
from matpac.clip import NOTES, Rejection, phrase_of
from matpac.files import damage
from matpac.prepare.build import SHARDS_VERSION, build_shard
from matpac.prepare.publish import DamagedShards, publish
from matpac.prepare.workers import Workers
from matpac.shards.folder import ShardFolder, sample
from matpac.signal.audio import mute_c_libraries, read_audio
from matpac.signal.logmel import log_mel
from matpac.signal.mel import mel_filters
from matpac.signal.recording import convert
from matpac.walk import PassedOver
from tests.files import flip_a_bit
from tests.recordings import (
    LOGMEL,
    build,
    digests,
    jobs,
    plan_clips,
    plan_of,
    planned,
    write_noise,
    write_recordings,
)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "audio"
    write_recordings(root, [0.5, 0.3, 0.4, 0.7, 0.2, 0.6, 0.5])
    return root


def test_a_clip_comes_out_as_the_log_mel_of_its_recording(root, tmp_path):
    build(plan_of(root, tmp_path / "work"), tmp_path / "out")
    folder = ShardFolder(tmp_path / "out")
    assert folder.index.column("id") == [f"a00{number}" for number in range(7)]
    assert folder.index.column("labels")[:2] == [["even"], ["odd"]]
    assert folder.index.column("fold") == [1, 2, 3, 1, 2, 3, 1]
    assert folder.index.shard.tolist() == [0, 0, 0, 1, 1, 1, 2]
    for clip, path in enumerate(folder.index.column("path")):
        expected = log_mel(read_audio(root / path, LOGMEL), LOGMEL, mel_filters(LOGMEL)).astype(np.float16)
        np.testing.assert_array_equal(folder.read_clip(clip), expected)


def test_the_folder_explains_itself(root, tmp_path):
    summary = build(plan_of(root, tmp_path / "work"), tmp_path / "out")
    out = tmp_path / "out"
    folder = ShardFolder(out)
    values = np.concatenate([folder.read_clip(clip).ravel() for clip in range(7)]).astype(np.float64)
    statistics = json.loads((out / "statistics.json").read_text())
    assert statistics["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert statistics["std"] == pytest.approx(values.std(), rel=1e-12)
    assert statistics["num_clips"] == summary.num_clips == 7
    assert statistics["num_frames"] * 16 == len(values)
    assert statistics["duration_s"] == pytest.approx(3.2)
    assert json.loads((out / "logmel.json").read_text()) == LOGMEL.model_dump()
    assert json.loads((out / "task.json").read_text())["classes"] == ["even", "odd"]


def test_every_clip_is_in_the_shards_or_among_the_rejected(root, tmp_path):
    (root / "003.wav").write_bytes(b"not audio")
    write_noise(root / "005.wav", 0.01, seed=5)
    soundfile.write(root / "006.wav", np.array([[np.nan]] * 9000), 16000, subtype="FLOAT")
    plan = plan_of(root, tmp_path / "work")
    write_noise(root / "000.wav", 0.5, seed=99)
    (root / "001.wav").unlink()
    summary = build(plan, tmp_path / "out")
    assert summary.num_clips == 2
    with (tmp_path / "out/rejected.csv").open(newline="") as table:
        rejected = {row["path"]: row["reason"] for row in csv.DictReader(table)}
    assert sorted(rejected) == ["000.wav", "001.wav", "003.wav", "005.wav", "006.wav"]
    assert rejected["000.wav"] == "changed (run the download stage again)"
    assert rejected["001.wav"] == "cannot be read (No such file or directory)"
    assert "cannot be decoded" in rejected["003.wav"]
    assert rejected["005.wav"] == "too short (shorter than one window)"
    assert rejected["006.wav"].startswith("not finite")


def test_what_is_used_although_it_is_odd_is_noted(root, tmp_path):
    integers = np.random.default_rng(0).integers(-32_768, 32_768, 8_000).astype(np.float32)
    soundfile.write(root / "003.wav", integers, 16000, subtype="FLOAT")
    summary = build(plan_of(root, tmp_path / "work"), tmp_path / "out")
    assert (summary.num_clips, summary.num_notes) == (7, {"not at full scale": 1})
    [note] = summary.note_examples
    assert note.path == "003.wav"
    assert phrase_of(note.note) == "not at full scale"
    assert (tmp_path / "out/notes.csv").read_text().splitlines()[0] == "path,note"
    line = describe(summary)
    assert "; used, with a note: 1 not at full scale (notes.csv)" in line
    assert f"| not at full scale | 1 | {NOTES['not at full scale']} |" in page_of(
        "a", summary, tmp_path / "out"
    )


def test_a_rejected_clip_leaves_the_other_shards_alone(root, tmp_path):
    build(plan_of(root, tmp_path / "work"), tmp_path / "before")
    (root / "001.wav").write_bytes(b"not audio")
    build(plan_of(root, tmp_path / "work"), tmp_path / "after")
    before, after = digests(tmp_path / "before"), digests(tmp_path / "after")
    changed = [name for name in before if name.endswith(".tar") and before[name] != after[name]]
    assert changed == ["shard-000000.tar"]


def spoil(root: Path, number: int = 3) -> None:
    for path in sorted(root.glob("*.wav"))[1 : number + 1]:
        path.write_bytes(f"no audio in {path.name}".encode())


def test_too_many_rejections_are_an_error_of_one_line_and_cost_no_shard(root, tmp_path):
    spoil(root)
    plan = plan_of(root, tmp_path / "work", max_rejected_fraction=0.1)
    with pytest.raises(
        ValueError, match=r"^3 of 7 clips .*\(3 cannot be decoded\).* 10\.0% .*rejected\.csv names"
    ):
        build(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert all(plan.workspace.tar(key).exists() for key in plan.shards)
    assert (
        (tmp_path / "work/rejected.csv").read_text().splitlines()[1].startswith("001.wav,cannot be decoded")
    )


def test_the_limit_of_rejections_may_be_reached(root, tmp_path):
    spoil(root)
    build(plan_of(root, tmp_path / "work", max_rejected_fraction=3 / 7), tmp_path / "out")


def test_fewer_than_three_rejections_stop_nothing_unless_none_is_allowed(root, tmp_path):
    spoil(root, 2)
    build(plan_of(root, tmp_path / "work", max_rejected_fraction=0.01), tmp_path / "out")
    with pytest.raises(ValueError, match=r"^2 of 7 clips"):
        build(plan_of(root, tmp_path / "work", max_rejected_fraction=0), tmp_path / "out")


def test_rejections_that_no_label_names_do_not_count_against_the_limit(root, tmp_path):
    spoil(root)
    items = [replace(clip, labels=(), fold=None) for clip in plan_clips(root)[1:4]]
    items = [*plan_clips(root)[:1], *items, *plan_clips(root)[4:]]
    summary = build(planned(items, root, tmp_path / "work", max_rejected_fraction=0), tmp_path / "out")
    assert summary.num_rejected == {"cannot be decoded": 3}


def test_what_was_passed_over_stands_beside_the_shards_and_changes_nothing_else(root, tmp_path):
    build(plan_of(root, tmp_path / "work"), tmp_path / "out")
    before = digests(tmp_path / "out")
    plan = plan_of(root, tmp_path / "work", passed_over=PassedOver({".pdf": 3}, {".pdf": ["a.pdf"]}))
    assert build(plan, tmp_path / "out").passed_over.in_words() == "3 files of other kinds: 3 .pdf"
    after = digests(tmp_path / "out")
    assert {name for name in after if before[name] != after[name]} == {"passed_over.json", "SHA256SUMS"}


def test_a_dataset_without_a_usable_clip_is_refused(root, tmp_path):
    for path in root.iterdir():
        path.write_bytes(path.name.encode())
    with pytest.raises(ValueError, match=r"7 of 7 clips could not be used \(7 cannot be decoded"):
        build(plan_of(root, tmp_path / "work"), tmp_path / "out")


def test_what_is_left_out_by_design_does_not_count_against_the_limit(root, tmp_path):
    # Both are in one fold.
    (root / "004.wav").write_bytes((root / "001.wav").read_bytes())
    items = list(plan_clips(root))
    items[6] = Rejection("006.wav", "not listed (in no list)")
    summary = build(planned(items, root, tmp_path / "work", max_rejected_fraction=0), tmp_path / "out")
    assert summary.num_rejected == {"not listed": 1, "duplicate": 1}
    rows = (tmp_path / "out/rejected.csv").read_text().splitlines()
    assert rows == ["path,reason", "004.wav,duplicate (of 001.wav)", "006.wav,not listed (in no list)"]


def test_duplicates_stay_where_they_are_wanted(root, tmp_path):
    # Both are in one fold.
    (root / "004.wav").write_bytes((root / "001.wav").read_bytes())
    assert build(plan_of(root, tmp_path / "work", reject=()), tmp_path / "out").num_clips == 7


def test_a_finished_shard_is_not_built_again(root, tmp_path):
    plan = plan_of(root, tmp_path / "work")
    first = jobs(plan)[0]
    tar, record = plan.workspace.tar(first.key), plan.workspace.record(first.key)
    result = build_shard(first)
    changed = tar.stat().st_mtime_ns
    assert build_shard(first) == result
    assert tar.stat().st_mtime_ns == changed
    record.unlink()
    build_shard(first)
    assert tar.stat().st_mtime_ns != changed


def test_a_mended_recording_costs_one_shard(root, tmp_path):
    intact = (root / "004.wav").read_bytes()
    (root / "004.wav").write_bytes(b"not audio")
    before = plan_of(root, tmp_path / "work")
    assert build(before, tmp_path / "out").num_clips == 6
    (root / "004.wav").write_bytes(intact)
    after = plan_of(root, tmp_path / "work")
    assert [new == old for new, old in zip(after.shards, before.shards, strict=True)] == [True, False, True]
    assert build(after, tmp_path / "out").num_clips == 7


@pytest.mark.parametrize("format", ["webdataset", "zarr"])
def test_a_damaged_shard_is_not_published_and_built_again(root, tmp_path, format):
    plan, out = plan_of(root, tmp_path / "work", format=format), tmp_path / "out"
    with plan.workspace.joined():
        build(plan, out)
        whole = digests(out)
    flip_a_bit(plan.workspace.tar(plan.shards[1]), place=2000)
    with plan.workspace.joined():
        for job in jobs(plan):
            build_shard(job)
        for _ in range(2):  # Another process at work finds that it was dropped.
            with pytest.raises(DamagedShards, match=r"others in place of 1 \(shard-000001\.tar\)"):
                publish(plan, out)
        build(plan, out)
    assert digests(out) == whole
    assert damage(out) is None


@pytest.mark.parametrize("content", [lambda whole: whole[:-9], lambda whole: whole.replace("0.5", "0.6")])
def test_a_shard_whose_record_is_damaged_is_built_again(root, tmp_path, content):
    plan, out = plan_of(root, tmp_path / "work"), tmp_path / "out"
    with plan.workspace.joined():
        build(plan, out)
        whole = digests(out)
    record = plan.workspace.record(plan.shards[0])
    record.write_text(content(record.read_text()))
    with plan.workspace.joined():
        build(plan, out)
    assert digests(out) == whole


def test_each_run_publishes_again_from_shards_that_are_checked(root, tmp_path):
    plan, out = plan_of(root, tmp_path / "work"), tmp_path / "out"
    with plan.workspace.joined():
        build(plan, out)
    whole = digests(out)
    flip_a_bit(out / "index.parquet")
    with plan.workspace.joined():
        publish(plan, out)
    assert digests(out) == whole


@pytest.mark.parametrize("format", ["webdataset", "zarr"])
def test_trouble_that_may_pass_is_tried_again_by_the_next_run(root, tmp_path, format):
    whole, out = tmp_path / "whole", tmp_path / "out"
    build(plan_of(root, tmp_path / "work0", format=format), whole)
    plan = plan_of(root, tmp_path / "work", format=format)
    (root / "001.wav").rename(tmp_path / "away.wav")
    with plan.workspace.joined():
        assert build(plan, out).num_rejected == {"cannot be read": 1}
        (tmp_path / "away.wav").rename(root / "001.wav")
        # A process that joins does not try again: the shard would change while others publish it.
        with plan.workspace.joined():
            assert build(plan, out).num_rejected == {"cannot be read": 1}
    with plan.workspace.joined():
        assert build(plan, out).num_clips == 7
    assert digests(out) == digests(whole)


def test_memory_that_runs_out_costs_one_clip_and_is_tried_again(root, tmp_path, monkeypatch):
    def refusing(source, params, filters, name, *how):
        if name == Path("001.wav"):
            raise MemoryError
        return convert(source, params, filters, name, *how)

    plan = plan_of(root, tmp_path / "work")
    with monkeypatch.context() as patched, plan.workspace.joined():
        patched.setattr("matpac.prepare.build.convert", refusing)
        assert build(plan, tmp_path / "out").num_rejected == {"cannot be read": 1}
    with plan.workspace.joined():
        assert build(plan, tmp_path / "out").num_clips == 7


def test_a_clip_that_cannot_be_held_is_rejected(root, tmp_path, monkeypatch):
    """The limit is 0.65 s; one clip is longer, by its header and by its samples."""
    monkeypatch.setattr("matpac.signal.recording.MOST_BYTES", 65 * 2 * LOGMEL.num_mels)
    assert build(plan_of(root, tmp_path / "work"), tmp_path / "out").num_rejected == {"too long": 1}
    [recording] = [clip for clip in plan_clips(root) if clip.path == "003.wav"]
    assert (tmp_path / "out" / "rejected.csv").read_text().splitlines()[1:] == [
        f"{recording.path},too long (longer than 0.000181 hours)"
    ]


def test_a_folder_of_which_a_kill_left_a_part_is_not_taken_for_whole(root, tmp_path, monkeypatch):
    old, new = plan_of(root, tmp_path / "work"), plan_of(root, tmp_path / "work", clips_per_shard=2)
    build(old, tmp_path / "out")
    whole = digests(tmp_path / "out")

    remove = shutil.rmtree

    def killed_at_old(folder: Path, *, ignore_errors: bool = False) -> None:
        if (folder / "shard-000001.tar").exists():
            (folder / "shard-000001.tar").unlink()
            raise KeyboardInterrupt
        remove(folder, ignore_errors=ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed_at_old)
        with pytest.raises(KeyboardInterrupt):
            build(new, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("shard-*.tar"))) == len(new.shards)
    publish(old, tmp_path / "out")
    assert digests(tmp_path / "out") == whole


def test_a_stricter_limit_holds_for_what_is_published_already(root, tmp_path):
    spoil(root)
    build(plan_of(root, tmp_path / "work", max_rejected_fraction=0.5), tmp_path / "out")
    with pytest.raises(ValueError, match=r"^3 of 7 clips .* 10\.0%"):
        build(plan_of(root, tmp_path / "work", max_rejected_fraction=0.1), tmp_path / "out")


def test_a_shard_that_another_process_builds_is_left_to_it(root, tmp_path):
    plan = plan_of(root, tmp_path / "work")
    first = jobs(plan)[0]
    with plan.workspace.claimed(first.key) as ours:
        assert ours
        assert build_shard(first) is None
    assert build_shard(first) is not None


def test_the_result_is_assembled_once_and_then_taken_over(root, tmp_path):
    plan = plan_of(root, tmp_path / "work")
    summary = build(plan, tmp_path / "out")
    made = (tmp_path / "out/index.parquet").stat().st_ino
    assert publish(plan, tmp_path / "out") == summary
    assert (tmp_path / "out/index.parquet").stat().st_ino == made
    other = plan_of(root, tmp_path / "work", clips_per_shard=2)
    build(other, tmp_path / "out")
    assert (tmp_path / "out/index.parquet").stat().st_ino != made


def test_what_other_plans_left_goes_when_nobody_else_is_at_work(root, tmp_path):
    old, new = plan_of(root, tmp_path / "work"), plan_of(root, tmp_path / "work", clips_per_shard=2)
    build(old, tmp_path / "out")
    with new.workspace.joined(), new.workspace.joined() as users:
        new.workspace.keep_only(new.shards, new.key, users)
        assert old.workspace.tar(old.shards[0]).exists()
    with new.workspace.joined() as users:
        new.workspace.keep_only(new.shards, new.key, users)
    # The last shard of both plans holds the same single clip, so it is one file, which stays.
    assert [path.stem for path in (tmp_path / "work/tars").iterdir()] == [new.shards[-1]] == [old.shards[-1]]
    assert new.workspace.plan(new.key).exists()
    assert not old.workspace.plan(old.key).exists()


def test_a_worker_of_another_version_refuses_the_job(root, tmp_path):
    first = jobs(plan_of(root, tmp_path / "work"))[0]
    with pytest.raises(ValueError, match="need the version of matpac that planned the shards"):
        build_shard(replace(first, version=SHARDS_VERSION + 1))


def test_a_sample_opens_the_shards_of_its_clips_only(root, tmp_path):
    build(plan_of(root, tmp_path / "work"), tmp_path / "out")
    (tmp_path / "out/shard-000001.tar").unlink()
    [(first, log_mel), (last, _)] = sample(tmp_path / "out", 2)
    assert (first, last) == ("a000", "a006")
    assert log_mel.shape == (48, 16)


def test_a_sample_of_an_array_is_the_same(root, tmp_path):
    build(plan_of(root, tmp_path / "work"), tmp_path / "tars")
    build(plan_of(root, tmp_path / "work", format="zarr"), tmp_path / "zarr")
    for (name, frames), (other, same) in zip(
        sample(tmp_path / "tars", 3), sample(tmp_path / "zarr", 3), strict=True
    ):
        assert name == other
        np.testing.assert_array_equal(frames, same)


def test_the_index_is_a_plain_parquet_file(root, tmp_path):
    build(plan_of(root, tmp_path / "work", format="zarr"), tmp_path / "out")
    table = pq.read_table(tmp_path / "out/index.parquet")
    assert table["offset"].to_pylist() == np.cumsum([0, *table["num_frames"].to_pylist()[:-1]]).tolist()
    assert not list((tmp_path / "out").glob("*.tar"))


FRONT_END = LOGMEL.model_copy(update={"num_mels": 80})
"""The paper's: its filterbank is a file, so no version of librosa makes a difference."""
SHARD_OF_VERSION = {3: "a1beeb3effcb7a701f737a52e787e684aed8ac0179c7b764dc01423ccf4b1c7e"}
"""SHA-256 of the recorded shard, with its record, by `SHARDS_VERSION`."""


def noise_of_integers(path: Path, seed: int, num_channels: int, num_samples: int) -> None:
    """The same samples on every machine; white, so no band is weak beside another."""
    samples = []
    for _ in range(num_channels * num_samples):
        seed = (1_664_525 * seed + 1_013_904_223) % 2**32
        samples.append((seed >> 20) - 2048)
    with wave.open(str(path), "wb") as file:
        file.setparams((num_channels, 2, 16_000, 0, "NONE", ""))
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def test_whoever_changes_the_bytes_of_a_shard_raises_their_version(tmp_path):
    root = tmp_path / "audio"
    root.mkdir()
    noise_of_integers(root / "000.wav", 33, num_channels=1, num_samples=400)
    noise_of_integers(root / "001.wav", 339, num_channels=2, num_samples=480)
    noise_of_integers(root / "002.wav", 1843, num_channels=1, num_samples=560)
    first, second, third = plan_clips(root)
    items = [
        first,
        replace(second, group="g", absent=("even",)),
        replace(third, labels=(), fold=None, split="test"),
    ]
    plan = planned(items, root, tmp_path / "work", FRONT_END)
    [job] = jobs(plan)
    build_shard(job)

    # Processors differ in the last bits of Fourier transforms and matrix products, about 1e-6 here. The seeds
    # above were chosen so that no log-mel lies nearer to where its rounding to float16 would change.
    for path in sorted(root.iterdir()):
        exact = log_mel(read_audio(path, FRONT_END), FRONT_END, mel_filters(FRONT_END)).astype(np.float64)
        rounded = exact.astype(np.float16)
        for side in (-np.inf, np.inf):
            neighbor = np.nextafter(rounded, np.float16(side))
            boundary = (rounded.astype(np.float64) + neighbor.astype(np.float64)) / 2
            assert (np.abs(exact - boundary) > 1e-5 * np.abs(exact)).all(), "choose other noise"

    found = hashlib.sha256(
        plan.workspace.tar(job.key).read_bytes() + plan.workspace.record(job.key).read_bytes()
    )
    assert found.hexdigest() == SHARD_OF_VERSION.get(SHARDS_VERSION), (
        "this code makes other shards than were recorded: raise SHARDS_VERSION in matpac/prepare/build.py "
        f"and record {found.hexdigest()} for it here"
    )


SCRIPT = """
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from matpac.prepare.build import build_shard
from matpac.files import damage
from matpac.prepare.publish import DamagedShards, publish
from matpac.prepare.workspace import Workspace
from matpac.prepare.workers import Workers
from matpac.signal.audio import mute_c_libraries
from tests.recordings import jobs, plan_of

def main(root, work, out, format, num_workers):
    with Workspace(Path(work)).joined():
        plan = plan_of(Path(root), Path(work), format=format, clips_per_shard=2)
        workers = Workers(int(num_workers), mute_c_libraries)
        def build(job):
            while workers.run(build_shard, job) is None:
                time.sleep(0.05)
        with ThreadPoolExecutor(int(num_workers)) as threads:
            list(threads.map(build, jobs(plan)))
        workers.close()
        publish(plan, Path(out))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def command(root, work, out, format="webdataset", num_workers=1):
    return [sys.executable, "-c", SCRIPT, *map(str, (root, work, out, format, num_workers))]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["webdataset", "zarr"])
def test_the_bytes_do_not_depend_on_the_number_of_workers(root, tmp_path, format):
    for num_workers in (1, 2):
        work, out = tmp_path / f"work{num_workers}", tmp_path / f"out{num_workers}"
        subprocess.run(command(root, work, out, format, num_workers), check=True)
    assert digests(tmp_path / "out1") == digests(tmp_path / "out2")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["webdataset", "zarr"])
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(tmp_path, format):
    root = tmp_path / "audio"
    write_recordings(root, [0.3 + 0.1 * (number % 5) for number in range(60)])
    build(plan_of(root, tmp_path / "work0", format=format, clips_per_shard=2), tmp_path / "whole")
    out, work = tmp_path / "out", tmp_path / "work"
    moments = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen(command(root, work, out, format, 2))
        time.sleep(moments.uniform(0.3, 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(root, work, out, format, 2), check=True)
    assert digests(out) == digests(tmp_path / "whole")
    assert not list(work.rglob("*.partial"))


@pytest.mark.slow
def test_processes_that_work_on_one_dataset_at_once_give_the_same_bytes(tmp_path):
    root, out = tmp_path / "audio", tmp_path / "out"
    write_recordings(root, [0.3 + 0.1 * (number % 5) for number in range(60)])
    build(plan_of(root, tmp_path / "work0", clips_per_shard=2), tmp_path / "whole")
    together = [subprocess.Popen(command(root, tmp_path / "work", out)) for _ in range(3)]
    assert [process.wait() for process in together] == [0, 0, 0]
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the worker in /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = (
        "import gc, time; from matpac.prepare.workers import Workers; "
        "print(Workers(1, gc.collect).run(eval, '__import__(\"os\").getpid()'), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.slow
def test_workers_that_are_killed_before_they_begin_are_the_same_line():
    with pytest.raises(BrokenProcessPool, match=r"^a worker process was killed.*shards\.num_workers"):
        Workers(1, partial(os._exit, 1))


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced():
    workers = Workers(1, mute_c_libraries)
    with pytest.raises(BrokenProcessPool, match=r"^a worker process was killed.*shards\.num_workers"):
        workers.run(os._exit, 1)
    assert workers.run(abs, -3) == 3
    workers.close()


@pytest.mark.slow
def test_workers_compute_on_one_thread_and_their_parent_on_its_own(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with closing(Workers(1, gc.collect)) as workers:
        assert workers.run(os.getenv, "OMP_NUM_THREADS") == "1"
    assert dict(os.environ) == before


def test_workers_import_neither_prefect_nor_torch_nor_librosa():
    workers = Workers(2, mute_c_libraries)
    workers.run(len, b"")
    modules = workers.run(
        eval,
        "[m for m in ('prefect', 'torch', 'librosa', 'zarr', 'pytest') if m in __import__('sys').modules]",
    )
    workers.close()
    assert modules == []
