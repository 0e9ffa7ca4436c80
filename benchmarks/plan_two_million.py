"""Plan and index AudioSet's size: python -m benchmarks.plan_two_million [--clips 2000000]

Synthetic recordings of AudioSet, as many rows in the official lists, are planned into shards, and
the index is put together from records of shards as a conversion leaves them. Only the log-mels are
missing (0.3 TB): the tars are empty. Every step runs in a process of its own, whose time and peak
memory are taken.

Peer, of memory only: the same clips as a list of Python objects, as a manifest is usually held.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from benchmarks.claims import Claim, as_text
from benchmarks.fresh import fresh
from matpac.datasets.inventory import Recording, read_recordings, write_recordings
from matpac.params import AudioSet, LogMel, Shards, digest
from matpac.prepare.build import planned_rows
from matpac.prepare.plan import plan_dataset
from matpac.prepare.publish import publish
from matpac.shards.index import Index

RESULTS = Path(__file__).parent / "results"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SOURCE = AudioSet(kind="audioset", source="audio")
LOGMEL = LogMel(
    sample_rate_hz=16000, window_ms=25, hop_ms=10, num_mels=80, fmin_hz=50, fmax_hz=8000, resampler="soxr_hq"
)
SHARDS = Shards(
    format="webdataset",
    clips_per_shard=256,
    reject=("silent", "truncated", "duplicate"),
    max_rejected_fraction=0.01,
    runner="threads",
    num_workers=2,
    dask_address=None,
)
RAW, OUT = Path("data/raw/audioset"), Path("data/shards/audioset")


def ids(number: int) -> Iterator[str]:
    """Identifiers like YouTube's, sorted as a folder lists them."""
    generator = random.Random(0)
    yield from sorted({"".join(generator.choices(LETTERS, k=11)) for _ in range(number)})


def make_recordings(number: int) -> None:
    Path("audio").mkdir()
    classes = [f"/m/{index:05d}" for index in range(527)]
    with Path("audio/class_labels_indices.csv").open("w") as table:
        table.write("index,mid,display_name\n")
        table.writelines(f'{index},{mid},"Class {index}"\n' for index, mid in enumerate(classes))
    generator = random.Random(1)
    lists = {
        name: Path(f"audio/{name}_segments.csv").open("w")  # noqa: SIM115
        for name in ("eval", "balanced_train", "unbalanced_train")
    }
    for table in lists.values():
        table.write("# a\n# b\n# YTID, start_seconds, end_seconds, positive_labels\n")
    for index, name in enumerate(ids(number)):
        which = "eval" if index % 100 == 0 else "balanced_train" if index % 100 == 1 else "unbalanced_train"
        labels = ",".join(generator.sample(classes, generator.randint(1, 4)))
        lists[which].write(f'{name}, 30.000, 40.000, "{labels}"\n')
    for table in lists.values():
        table.close()
    recordings = (
        Recording(f"{name}.flac", 300_000 + index % 1000, digest(name) * 4, f"{name}.flac")
        for index, name in enumerate(ids(number))
    )
    write_recordings(RAW, recordings)


def plan() -> None:
    planned = plan_dataset("audioset", SOURCE, RAW, LOGMEL, SHARDS)
    Path("plan.json").write_text(json.dumps({"key": planned.key, "shards": len(planned.shards)}))


def pretend_to_convert() -> None:
    planned = plan_dataset("audioset", SOURCE, RAW, LOGMEL, SHARDS)
    planned.workspace.tar("x").parent.mkdir(parents=True)
    planned.workspace.record("x").parent.mkdir(parents=True)
    for number, key in enumerate(planned.shards):
        rows = [
            {
                **{name: row[name] for name in ("id", "labels", "split", "fold", "group", "absent", "path")},
                "num_frames": 998,
                "native_rate_hz": 48000,
                "duration_s": 10.0,
                "sum": -7.1 * 998 * 80,
                "sum_of_squares": 70.2 * 998 * 80,
                "offset": 512 + place * 161_792,
            }
            for place, row in enumerate(planned_rows(planned.workspace.plan(planned.key), number))
        ]
        planned.workspace.tar(key).touch()
        planned.workspace.record(key).write_text(json.dumps({"clips": rows, "rejected": []}))


def index() -> float:
    """Seconds without planning, which is measured above."""
    planned = plan_dataset("audioset", SOURCE, RAW, LOGMEL, SHARDS)
    started = time.monotonic()
    publish(planned, OUT)
    return time.monotonic() - started


def load() -> None:
    assert len(Index(OUT / "index.parquet")) > 0


def as_objects() -> None:
    """The peer: a list with a dictionary per clip."""
    held = [{"path": item.path, "bytes": item.bytes, "sha256": item.sha256} for item in read_recordings(RAW)]
    assert held


def nothing() -> None:
    """Cost of the imports."""


def measure(number: int) -> list[Claim]:
    """Write the inputs into the working directory, which is empty."""
    make_recordings(number)
    imports = fresh(nothing)
    objects = fresh(as_objects)
    planned = fresh(plan)
    again = fresh(plan)
    fresh(pretend_to_convert)
    indexed = fresh(index)
    loaded = fresh(load)

    def seconds(what: str, ours: float, goal: float | None = None) -> Claim:
        return Claim(f"{number:,} clips, {what}", "s", ours, goal=goal, less_is_better=True)

    def memory(what: str, ours: float, theirs: float | None = None, goal: float | None = None) -> Claim:
        peer = None if theirs is None else "list of objects"
        return Claim(f"{number:,} clips, {what}", "MB", ours, peer, theirs, goal, less_is_better=True)

    return [
        memory("imports alone", imports.peak_megabytes),
        seconds("planned from the lists", planned.seconds),
        seconds("planned again", again.seconds),
        memory("planned", planned.peak_megabytes, objects.peak_megabytes),
        seconds("index assembled", indexed.result),
        memory("index assembled", indexed.peak_megabytes, objects.peak_megabytes),
        seconds("index loaded", loaded.seconds, goal=3),
        memory("index loaded", loaded.peak_megabytes, goal=500),
        memory("index file", (OUT / "index.parquet").stat().st_size / 1e6),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, default=2_000_000)
    number = parser.parse_args().clips
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        claims = measure(number)
        os.chdir("/")
    sys.stdout.write(f"{as_text(claims)}\n")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps([claim.as_json() for claim in claims], indent=2)
    (RESULTS / f"{date.today()}-plan_two_million.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
