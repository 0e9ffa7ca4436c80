"""finished shards -> data/shards/<dataset>: index, digests, statistics, rejections, notes, task, sums, ..."""

import csv
import math
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from matpac.clip import BY_DESIGN, Note, Rejection, phrase_of, too_many
from matpac.datasets.inventory import PASSED_OVER, read_passed_over
from matpac.digests import Digests, content_of, digests, write_digests
from matpac.files import (
    SUMS,
    checksum,
    move_into_place,
    partial_path,
    read_json,
    seal,
    write_json,
    write_text,
)
from matpac.prepare.build import planned_rows, read_record
from matpac.prepare.plan import Plan, is_listed
from matpac.prepare.workspace import Workspace, link
from matpac.shards.index import IndexWriter, write_index
from matpac.shards.statistics import Statistics
from matpac.shards.tar import TarFrames, tar_name
from matpac.shards.zarr import ZARR_NAME, first_frames, write_zarr
from matpac.walk import PassedOver

NUM_CLASSES_SHOWN = 10
"""Classes that are named from either end of a list."""
NUM_EXAMPLES = 50
"""Number of rejections, and of notes, in a summary; rejected.csv and notes.csv have all."""


class TooManyRejected(ValueError):
    def __init__(self, num_rejected: Mapping[str, int], message: str) -> None:
        super().__init__(message)
        self.num_rejected = num_rejected


class DamagedShards(ValueError):
    """Finished shards were not as they were written, and are dropped: they must be built again."""


@dataclass(frozen=True)
class Summary:
    """The outcome of the stage, for people."""

    num_clips: int
    num_shards: int
    num_frames: int
    duration_s: float
    mean: float
    std: float
    num_rejected: dict[str, int]
    """Number of rejections by the phrase of the reason, most frequent first."""
    examples: tuple[Rejection, ...]
    num_notes: dict[str, int]
    """Number of notes on clips that are used, by phrase, most frequent first."""
    note_examples: tuple[Note, ...]
    official_leaks: tuple[str, ...]
    choices: tuple[str, ...]
    passed_over: PassedOver
    """All as in the plan."""
    num_clips_of_class: dict[str, int]
    """Number of clips by class."""


def publish(plan: Plan, out: Path, show: Callable[[int, int], object] = lambda done, total: None) -> Summary:
    """Assemble the folder of a plan whose shards are all built, seal it, and move it to `out` in one step.

    The shards also stay in the workspace, as hard links: a run after a kill, or with three recordings
    mended, starts from them. So each is compared with its record before it is linked. If several processes
    get here, one assembles and the others use its result.

    Args:
        plan: The plan.
        out: `data/shards/<dataset>`.
        show: Receives the number of shards that have been checked, and their number.

    Raises:
        DamagedShards: Shards have other bytes than their workers wrote; they are dropped.
        TooManyRejected: More clips were rejected than shards.max_rejected_fraction allows.
    """
    with plan.workspace.publishing():
        if not _is_published(plan, out):
            checksums = _checked(plan, show)
            partial = partial_path(plan.workspace.root / "publish")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                _assemble(plan, partial)
                in_tars = {tar_name(number): sha256 for number, sha256 in enumerate(checksums)}
                seal(partial, in_tars if plan.params.format == "webdataset" else None)
                # A kill during the move would leave a part of the old folder.
                plan.workspace.published.unlink(missing_ok=True)
                move_into_place(partial, out)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            write_text(plan.workspace.published, plan.key)
        return read_summary(out)


def _checked(plan: Plan, show: Callable[[int, int], object]) -> list[str]:
    """Compare the tars with their records; return their checksums. Raises DamagedShards."""
    damaged, checksums = [], []
    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda key: _checksums(plan.workspace, key), plan.shards)
        for number, (written, now) in enumerate(found):
            if written != now or not now:
                damaged.append(number)
                plan.workspace.drop(plan.shards[number])
            checksums.append(now)
            show(number + 1, len(plan.shards))
    if damaged:
        names = ", ".join(tar_name(number) for number in damaged[:NUM_EXAMPLES])
        raise DamagedShards(
            f"{plan.workspace.root}: need {len(plan.shards):,} shards as they were written, found others in "
            f"place of {len(damaged):,} ({names}). They are dropped. Run again; the disk may be failing."
        )
    return checksums


def _checksums(workspace: Workspace, key: str) -> tuple[str, str]:
    """Checksum of a finished shard when it was written and now; empty if another process has dropped it."""
    record = read_record(workspace, key)
    return ("", "") if record is None else (record["sha256"], checksum(workspace.tar(key)))


def read_summary(folder: Path) -> Summary:
    """Summary of a finished folder."""
    saved = read_json(folder / "statistics.json")
    return Summary(
        num_clips=saved["num_clips"],
        num_shards=saved["num_shards"],
        num_frames=saved["num_frames"],
        duration_s=saved["duration_s"],
        mean=saved["mean"],
        std=saved["std"],
        num_rejected=saved["num_rejected"],
        examples=tuple(Rejection(**row) for row in _first_rows(folder / "rejected.csv")),
        num_notes=saved["num_notes"],
        note_examples=tuple(Note(**row) for row in _first_rows(folder / "notes.csv")),
        official_leaks=tuple(saved["official_leaks"]),
        choices=tuple(saved["choices"]),
        passed_over=read_passed_over(folder),
        num_clips_of_class=saved["num_clips_of_class"],
    )


def classes_in_words(num_clips_of_class: Mapping[str, int]) -> str:
    """`dog (20), cat (9), ...`: the first and last ten, by number of clips."""
    ordered = sorted(num_clips_of_class.items(), key=lambda item: -item[1])
    shown = [f"{name} ({number:,})" for name, number in ordered]
    if len(shown) > 2 * NUM_CLASSES_SHOWN:
        shown = [*shown[:NUM_CLASSES_SHOWN], "...", *shown[-NUM_CLASSES_SHOWN:]]
    return ", ".join(shown)


def _first_rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(islice(csv.DictReader(file), NUM_EXAMPLES))


def _is_published(plan: Plan, out: Path) -> bool:
    published = plan.workspace.published
    return published.exists() and published.read_text() == plan.key and (out / SUMS).exists()


def _assemble(plan: Plan, folder: Path) -> None:
    statistics, durations_s, num_rejected, num_notes, num_clips_of_class = _gather(plan, folder)
    classes = plan.task.classes if plan.task else ()
    if plan.params.format == "zarr":
        _add_zarr(plan, folder)
    else:
        for number, key in enumerate(plan.shards):
            link(plan.workspace.tar(key), folder / tar_name(number))
    write_json(
        folder / "statistics.json",
        {
            "mean": statistics.mean,
            "std": statistics.std,
            "num_clips": len(durations_s),
            "num_shards": len(plan.shards),
            "num_frames": statistics.num_values // plan.logmel.num_mels,
            "num_rejected": dict(num_rejected.most_common()),
            "num_notes": dict(num_notes.most_common()),
            "duration_s": math.fsum(durations_s),
            "official_leaks": plan.official_leaks,
            "choices": plan.choices,
            "num_clips_of_class": {name: num_clips_of_class[name] for name in classes},
            # Exact sums, so that a mixture of datasets has exact statistics too.
            **asdict(statistics),
        },
    )
    write_json(folder / "task.json", plan.task and asdict(plan.task))
    # Not in statistics.json, which pre-training depends on.
    write_json(folder / PASSED_OVER, asdict(plan.passed_over))
    write_json(folder / "logmel.json", plan.logmel.model_dump(mode="json"))


def _gather(
    plan: Plan, folder: Path
) -> tuple[Statistics, "array[float]", Counter[str], Counter[str], Counter[str]]:
    """Write index.parquet, digests.parquet, rejected.csv and notes.csv.

    One shard's record is in memory at a time; of each clip, only its id and a few numbers stay.
    """
    num_rejected, num_notes = Counter(plan.num_rejected), Counter[str]()
    num_unlisted = Counter[str]()
    num_clips_of_class = Counter[str]()
    durations_s, sums, sums_of_squares = array("d"), array("d"), array("d")
    num_frames = 0
    listed: list[pa.Table] = []
    index = IndexWriter(folder / "index.parquet")
    shutil.copyfile(plan.workspace.planned_rejections(plan.key), folder / "rejected.csv")
    with (
        (folder / "rejected.csv").open("a", newline="", encoding="utf-8") as rejected_file,
        (folder / "notes.csv").open("w", newline="", encoding="utf-8") as notes_file,
    ):
        rejected = csv.writer(rejected_file, lineterminator="\n")
        notes = csv.writer(notes_file, lineterminator="\n")
        notes.writerow(["path", "note"])
        for number, key in enumerate(plan.shards):
            record = read_record(plan.workspace, key)
            assert record is not None, "checked before"
            rows = record["clips"]
            index.add([{**row, "shard": number} for row in rows])
            listed.append(_digests(plan, number, [row["id"] for row in rows]))
            durations_s.extend(row["duration_s"] for row in rows)
            sums.extend(row["sum"] for row in rows)
            sums_of_squares.extend(row["sum_of_squares"] for row in rows)
            num_frames += sum(row["num_frames"] for row in rows)
            num_clips_of_class.update(label for row in rows for label in row["labels"])
            rejected.writerows([row["path"], row["reason"]] for row in record["rejected"])
            num_rejected.update(phrase_of(row["reason"]) for row in record["rejected"])
            num_unlisted.update(_unlisted(plan, number, record["rejected"]))
            notes.writerows([row["path"], row["note"]] for row in record["notes"])
            num_notes.update(phrase_of(row["note"]) for row in record["notes"])
    index.close()
    write_digests(folder, Digests(pa.concat_tables(listed)))
    num_clips = len(durations_s)
    assert num_clips + num_rejected.total() == plan.num_recordings, "recordings in = clips + rejections"
    _check_rejections(plan, num_clips, num_rejected, num_unlisted, folder / "rejected.csv")
    # fsum rounds once, at the end, so the order of the clips cannot matter.
    statistics = Statistics(num_frames * plan.logmel.num_mels, math.fsum(sums), math.fsum(sums_of_squares))
    return statistics, durations_s, num_rejected, num_notes, num_clips_of_class


def _digests(plan: Plan, number: int, ids: list[str]) -> pa.Table:
    """The clips of a shard, with the digests that their recordings had when it was planned.

    The dataset gets no name: the same folder may be found under any.
    """
    planned = planned_rows(plan.workspace.plan(plan.key), number)
    content = {row["id"]: content_of(row["sha256"], row["bytes"]) for row in planned}
    columns = pa.array(ids, pa.string()), pa.array([content[clip] for clip in ids], pa.uint64())
    return digests("", *columns)


def _unlisted(plan: Plan, number: int, rejected: list[dict[str, str]]) -> list[str]:
    """Phrases of rejections in a shard that no label, split or fold names, in a dataset with labels."""
    if plan.task is None or not rejected:
        return []
    listed = {row["path"] for row in planned_rows(plan.workspace.plan(plan.key), number) if is_listed(row)}
    return [phrase_of(row["reason"]) for row in rejected if row["path"] not in listed]


def _check_rejections(
    plan: Plan, num_clips: int, num_rejected: Counter[str], num_unlisted: Counter[str], table: Path
) -> None:
    unusable = num_rejected - num_unlisted if num_clips else num_rejected
    unusable = Counter({reason: number for reason, number in unusable.items() if reason not in BY_DESIGN})
    num_unusable, limit = unusable.total(), plan.params.max_rejected_fraction
    if num_clips and not too_many(num_unusable, num_clips, limit):
        return
    kept = plan.workspace.root / "rejected.csv"
    shutil.copyfile(table, kept)
    counts = ", ".join(f"{number:,} {reason}" for reason, number in unusable.most_common())
    raise TooManyRejected(
        num_rejected,
        f"{num_unusable:,} of {num_clips + num_unusable:,} clips could not be used ({counts}), over the "
        f"limit of {limit:.1%} (shards.max_rejected_fraction in params.yaml). {kept} names them. Mend "
        "them and run again: only their shards are converted anew. (If files are removed, all later shards "
        "are too; a table of labels must not name removed files.)",
    )


def _add_zarr(plan: Plan, folder: Path) -> None:
    """Write the clips of the tars as one array, and their places in it to the index."""
    table: pa.Table = pq.read_table(folder / "index.parquet")
    num_frames = table["num_frames"].to_numpy()
    write_zarr(folder / ZARR_NAME, _clips_in_tars(plan, table), num_frames, plan.logmel.num_mels)
    places = {
        "shard": np.zeros(len(table), dtype=np.int32),
        "offset": first_frames(num_frames)[:-1],
    }
    for name, values in places.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    write_index(folder / "index.parquet", table)


def _clips_in_tars(plan: Plan, table: pa.Table) -> Iterator[NDArray[np.float16]]:
    num_mels = plan.logmel.num_mels
    num_frames = table["num_frames"].to_numpy()
    tars = TarFrames(
        [plan.workspace.tar(key) for key in plan.shards],
        table["shard"].to_numpy(),
        table["offset"].to_numpy(),
        num_frames,
        num_mels,
    )
    for clip, length in enumerate(num_frames.tolist()):
        log_mel = np.empty((length, num_mels), dtype=np.float16)
        tars.read_into(log_mel, clip, 0)
        yield log_mel
