"""finished shards -> data/shards/<dataset>: index, statistics, rejections, task, front end."""

import csv
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from matpac.files import move_into_place, read_json, whole_file, write_json
from matpac.shards.build import Rejection
from matpac.shards.index import table_of, write_index
from matpac.shards.plan import Plan
from matpac.shards.statistics import Statistics, combined
from matpac.shards.tar import TarFrames
from matpac.shards.zarr_store import ZARR_NAME, first_frames, write_zarr


@dataclass(frozen=True)
class Summary:
    """What the stage did, for a person to read."""

    num_clips: int
    num_shards: int
    num_frames: int
    duration_s: float
    mean: float
    std: float
    rejections: tuple[Rejection, ...]

    @property
    def num_by_reason(self) -> dict[str, int]:
        """Most frequent first."""
        return dict(Counter(rejection.reason for rejection in self.rejections).most_common())


def finish(plan: Plan, out: Path) -> Summary:
    """Assemble the folder of a plan whose shards are all built, and move it to `out` in one step.

    Raises ValueError where more clips were rejected than shards.max_rejected_fraction allows; the finished
    shards stay where they are, and the next run starts from them.
    """
    folder = plan.finished
    folder.mkdir(parents=True, exist_ok=True)
    table, statistics, rejections = gather_records(plan)
    assert len(table) + len(rejections) == plan.num_clips, "clips in = clips out + rejections"
    write_rejections(folder / "rejected.csv", rejections)
    check_rejections(rejections, plan.num_clips, plan.params.max_rejected_fraction)
    if len(table) == 0:
        raise ValueError(f"None of {plan.num_clips} clips could be used: {rejections[0].reason}.")

    if plan.params.format == "zarr":
        table = move_into_zarr(plan, table)
    summary = Summary(
        num_clips=len(table),
        num_shards=len(plan.shards),
        num_frames=statistics.num_values // plan.logmel.num_mels,
        duration_s=math.fsum(table["duration_s"].to_numpy()),
        mean=statistics.mean,
        std=statistics.std,
        rejections=tuple(rejections),
    )
    write_index(folder / "index.parquet", table)
    write_statistics(folder / "statistics.json", summary, statistics)
    write_json(folder / "task.json", plan.task and asdict(plan.task))
    write_json(folder / "logmel.json", plan.logmel.model_dump(mode="json"))
    move_into_place(folder, out)
    shutil.rmtree(plan.work)
    return summary


def gather_records(plan: Plan) -> tuple[pa.Table, Statistics, list[Rejection]]:
    """Shard by shard: only one record is in memory as Python objects."""
    tables: list[pa.Table] = []
    parts: list[Statistics] = []
    rejections: list[Rejection] = []
    for shard in plan.shards:
        record = read_json(shard.record)
        tables.append(table_of(record["clips"]))
        rejections += (Rejection(**row) for row in record["rejected"])
        parts += (
            Statistics(row["num_frames"] * plan.logmel.num_mels, row["sum"], row["sum_of_squares"])
            for row in record["clips"]
        )
    return pa.concat_tables(tables), combined(parts), rejections


def check_rejections(rejections: Sequence[Rejection], num_clips: int, limit: float) -> None:
    if len(rejections) > limit * num_clips:
        first = rejections[0]
        raise ValueError(
            f"{len(rejections)} of {num_clips} clips could not be used, over the limit of "
            f"{limit:.1%} (shards.max_rejected_fraction in params.yaml). "
            f"The first is {first.path}: {first.reason}."
        )


def write_rejections(path: Path, rejections: Sequence[Rejection]) -> None:
    with (
        whole_file(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "reason"])
        table.writerows([rejection.path, rejection.reason] for rejection in rejections)


def write_statistics(path: Path, summary: Summary, statistics: Statistics) -> None:
    """The sums are there so that a mixture of datasets has exact statistics too."""
    write_json(
        path,
        {
            "mean": summary.mean,
            "std": summary.std,
            "num_clips": summary.num_clips,
            "num_frames": summary.num_frames,
            "num_rejected": len(summary.rejections),
            "duration_s": summary.duration_s,
            **asdict(statistics),
        },
    )


def move_into_zarr(plan: Plan, table: pa.Table) -> pa.Table:
    """Copy the clips of the tars into a store; returns their index with the places they have there.

    Started anew where an earlier run was killed in the middle.
    """
    unfinished = plan.work / "unfinished.zarr"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    num_frames = table["num_frames"].to_numpy()
    write_zarr(unfinished, _clips_in_tars(plan, table), num_frames, plan.logmel.num_mels)
    move_into_place(unfinished, plan.finished / ZARR_NAME)
    places = {
        "shard": np.zeros(len(table), dtype=np.int32),
        "offset": first_frames(num_frames)[:-1],
    }
    for name, values in places.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    return table


def _clips_in_tars(plan: Plan, table: pa.Table) -> Iterator[NDArray[np.float16]]:
    num_mels = plan.logmel.num_mels
    num_frames = table["num_frames"].to_numpy()
    tars = TarFrames(
        [shard.tar for shard in plan.shards],
        table["shard"].to_numpy(),
        table["offset"].to_numpy(),
        num_frames,
        num_mels,
    )
    for clip, length in enumerate(num_frames.tolist()):
        log_mel = np.empty((length, num_mels), dtype=np.float16)
        tars.read_into(log_mel, clip, 0)
        yield log_mel
