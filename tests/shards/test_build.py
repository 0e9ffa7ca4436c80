import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from matpac.datasets.clip import Clip
from matpac.shards.build import Rejection, build_shard
from matpac.shards.finish import check_rejections
from matpac.shards.folder import ShardFolder
from matpac.shards.plan import deal
from matpac.shards.workers import Workers
from matpac.signal.audio import mute_c_libraries, read_audio
from matpac.signal.logmel import log_mel
from tests.shards.conftest import LOGMEL, build, digests, plan_of, write_noise, write_recordings


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
        expected = log_mel(read_audio(root / path, LOGMEL), LOGMEL).astype(np.float16)
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
    assert not (tmp_path / "work").exists()


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
    assert rejected["000.wav"] == "changed since the inventory (run the download stage again)"
    assert rejected["001.wav"] == "cannot be read (No such file or directory)"
    assert "cannot be decoded" in rejected["003.wav"]
    assert rejected["005.wav"] == "too short (shorter than one window)"
    assert "NaN" in rejected["006.wav"]


def test_a_rejected_clip_leaves_the_other_shards_alone(root, tmp_path):
    build(plan_of(root, tmp_path / "work"), tmp_path / "before")
    (root / "001.wav").write_bytes(b"not audio")
    build(plan_of(root, tmp_path / "work"), tmp_path / "after")
    before, after = digests(tmp_path / "before"), digests(tmp_path / "after")
    changed = [name for name in before if name.endswith(".tar") and before[name] != after[name]]
    assert changed == ["shard-000000.tar"]


def test_too_many_rejections_are_an_error_of_one_line_and_cost_no_shard(root, tmp_path):
    (root / "001.wav").write_bytes(b"not audio")
    plan = plan_of(root, tmp_path / "work", max_rejected_fraction=0.1)
    with pytest.raises(ValueError, match=r"1 of 7 clips .* 10\.0% .* The first is 001\.wav: cannot be"):
        build(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert all(shard.tar.exists() for shard in plan.shards)


def test_the_limit_of_rejections_may_be_reached():
    check_rejections([Rejection("a.wav", "no samples")], num_clips=100, limit=0.01)


def test_a_dataset_without_a_usable_clip_is_refused(root, tmp_path):
    for path in root.iterdir():
        path.write_bytes(b"not audio")
    with pytest.raises(ValueError, match="None of 7 clips could be used: cannot be decoded"):
        build(plan_of(root, tmp_path / "work"), tmp_path / "out")


def test_a_finished_shard_is_not_built_again(root, tmp_path):
    [first, *_] = plan_of(root, tmp_path / "work").shards
    result = build_shard(first)
    changed = first.tar.stat().st_mtime_ns
    assert build_shard(first) == result
    assert first.tar.stat().st_mtime_ns == changed
    first.record.unlink()
    build_shard(first)
    assert first.tar.stat().st_mtime_ns != changed


def test_two_clips_of_one_id_are_refused(root, tmp_path):
    clips = [Clip(id="same", path="000.wav"), Clip(id="same", path="001.wav")]
    params = plan_of(root, tmp_path / "work").params
    with pytest.raises(ValueError, match="a different id for every clip"):
        deal(clips, {}, root, tmp_path / "work", None, LOGMEL, params)


def test_the_index_is_a_plain_parquet_file(root, tmp_path):
    build(plan_of(root, tmp_path / "work", "zarr"), tmp_path / "out")
    table = pq.read_table(tmp_path / "out/index.parquet")
    assert table["offset"].to_pylist() == np.cumsum([0, *table["num_frames"].to_pylist()[:-1]]).tolist()
    assert not list((tmp_path / "out").glob("*.tar"))


SCRIPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from matpac.files import exclusive
from matpac.shards.build import build_shard
from matpac.shards.finish import finish
from matpac.shards.plan import clear_leftovers
from matpac.shards.workers import Workers
from matpac.signal.audio import mute_c_libraries
from tests.shards.conftest import plan_of

def main(root, work, out, format, num_workers):
    with exclusive(Path(work)):
        clear_leftovers(Path(work))
        plan = plan_of(Path(root), Path(work), format, clips_per_shard=2)
        workers = Workers(int(num_workers), mute_c_libraries)
        with ThreadPoolExecutor(int(num_workers)) as threads:
            list(threads.map(lambda shard: workers.run(build_shard, shard), plan.shards))
        workers.close()
        finish(plan, Path(out))

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
    build(plan_of(root, tmp_path / "work0", format, clips_per_shard=2), tmp_path / "whole")
    out, work = tmp_path / "out", tmp_path / "work"
    moments = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen(command(root, work, out, format, 2))
        time.sleep(moments.uniform(0.3, 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(root, work, out, format, 2), check=True)
    assert digests(out) == digests(tmp_path / "whole")
    assert not work.exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the worker in /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = (
        "import gc, time; from matpac.shards.workers import Workers; "
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
def test_a_worker_that_dies_is_replaced():
    workers = Workers(1, mute_c_libraries)
    with pytest.raises(BrokenProcessPool):
        workers.run(os._exit, 1)
    assert workers.run(abs, -3) == 3
    workers.close()


@pytest.mark.slow
def test_workers_import_neither_prefect_nor_torch():
    workers = Workers(2, mute_c_libraries)
    workers.run(len, b"")
    modules = workers.run(
        eval, "[m for m in ('prefect', 'torch', 'zarr', 'pytest') if m in __import__('sys').modules]"
    )
    workers.close()
    assert modules == []
