"""data/raw/<dataset>/recordings.parquet -> a plan: which clips each shard holds, and who is left out at once.

Everything streams: in memory stand eight bytes a clip (is its id unique, its content?) and a key a shard.
"""

import csv
import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matpac.clip import Clip, Rejection, Task, phrase_of
from matpac.datasets.inventory import Recording, Recordings, has_inventory
from matpac.datasets.registry import READERS, recordings_root
from matpac.files import WORK, flush_to_disk, partial_path
from matpac.params import Dataset, LogMel, Public, Shards, digest
from matpac.prepare.build import ROWS, SHARDS_VERSION, ShardJob
from matpac.prepare.repeats import content_of, digest_of, repeated, repeated_contents
from matpac.prepare.workspace import Store
from matpac.shards.leaks import official_leaks, refuse_leaks
from matpac.signal.mel import mel_filters

REPORT_EVERY = 10_000
NUM_NAMED = 3


@dataclass(frozen=True)
class Plan:
    """How a dataset becomes a shard folder."""

    key: str
    """Digest of all that the finished folder depends on."""
    store: Store
    root: Path
    """Of the recordings."""
    task: Task | None
    logmel: LogMel
    params: Shards
    shards: tuple[str, ...]
    """The key of each shard, in their order."""
    num_recordings: int
    num_clips: int
    """In the shards' plans; the other recordings are rejected already."""
    num_rejected: Counter[str]
    """By the phrase of the reason."""
    official_leaks: tuple[str, ...]
    """What official splits or folds put into several of them; it stays there. See matpac/prepare/leaks.py."""

    def job(self, number: int) -> ShardJob:
        """Absolute paths: whoever does it may stand elsewhere."""
        return ShardJob(
            number=number,
            key=self.shards[number],
            plan=self.store.plan(self.key).absolute(),
            mel_filters=self.store.mel_filters(self.key).absolute(),
            root=self.root.absolute(),
            store=Store(self.store.root.absolute()),
            logmel=self.logmel,
            reject=self.params.reject,
            version=SHARDS_VERSION,
        )


def store_of(dataset: str) -> Store:
    return Store(WORK / "shards" / dataset)


def plan_dataset(
    dataset: str,
    source: Dataset,
    raw: Path,
    logmel: LogMel,
    params: Shards,
    report: Callable[[int, int], None] | None = None,
) -> Plan:
    """Read the inventory in the folder `raw` and deal its clips into shards, in their order.

    A clip that turns out unusable later leaves a gap in its own shard only. `report` hears of recordings
    done and 0. Raises ValueError where the inventory is missing or holds no clip, where an id comes twice, or
    where a group or a recording is in several splits or folds and these are not official.
    """
    if not has_inventory(raw):
        raise ValueError(
            f"{raw}: need the inventory of the recordings, found none. "
            f"Make it with `python -m flows.download {dataset}` or `dvc repro`."
        )
    root, reader = recordings_root(dataset, source), READERS[source.kind]
    recordings = Recordings(raw)

    def task_of(census: Census) -> Task | None:
        return reader.task(source, root, census.labels, census.num_folds)

    items = reader.clips(source, root, recordings)
    own = rules_for(source, params)
    return deal(items, recordings, root, store_of(dataset), task_of, logmel, own, report)


def rules_for(source: Dataset, params: Shards) -> Shards:
    """Public datasets stay as they are, copies included: others report scores on their official splits."""
    if not isinstance(source, Public):
        return params
    kept = tuple(reason for reason in params.reject if reason != "duplicate")
    return params.model_copy(update={"reject": kept})


def deal(
    items: Iterable[Clip | Rejection],
    recordings: Iterable[Recording],
    root: Path,
    store: Store,
    task_of: "Callable[[Census], Task | None]",
    logmel: LogMel,
    params: Shards,
    report: Callable[[int, int], None] | None = None,
) -> Plan:
    """Items and recordings belong together one by one; the recordings are gone through twice."""
    census = Census()
    with (
        partial_file(store.plan("new")) as rows,
        partial_file(store.planned_rejections("new")) as rejected,
        partial_file(store.mel_filters("new")) as filters,
    ):
        decided = _without_duplicates(items, recordings, params, census)
        _write_plan(rows, rejected, decided, census, logmel, params, report)
        if census.num_clips == 0:
            example = f" {census.example.path}: {census.example.reason}." if census.example else ""
            raise ValueError(f"{root}: need at least one clip, found none.{example}")
        if equal := repeated(census.id_digests):
            ids = ", ".join(_ids_with(equal, rows)[:NUM_NAMED])
            raise ValueError(f"{root}: need a different id for every clip, found some that are equal: {ids}")
        task = task_of(census)
        in_parts = _in_parts(rows, census.misplaced_copies)
        is_official = task is not None and task.official_split
        if not is_official:
            refuse_leaks(str(root), in_parts)
        leaks = tuple(official_leaks(in_parts)) if is_official else ()
        key = digest(
            census.shards,
            census.left_out.hexdigest(),
            repr(task),
            params.format,
            params.max_rejected_fraction,
            leaks,
        )
        with filters.open("wb") as file:
            np.save(file, mel_filters(logmel))
        places = (store.plan(key), store.planned_rejections(key), store.mel_filters(key))
        for path, place in zip((rows, rejected, filters), places, strict=True):
            # An existing file has the same content, and other processes may be reading it.
            if not place.exists():
                flush_to_disk(path)
                path.replace(place)
    return Plan(
        key=key,
        store=store,
        root=root,
        task=task,
        logmel=logmel,
        params=params,
        shards=tuple(census.shards),
        num_recordings=census.num_recordings,
        num_clips=census.num_clips,
        num_rejected=census.num_rejected,
        official_leaks=leaks,
    )


class Census:
    """What is known of all clips when the last of them has passed by."""

    def __init__(self) -> None:
        self.num_recordings = self.num_clips = 0
        self.shards: list[str] = []
        self.labels: set[str] = set()
        self.num_folds: int | None = None
        self.id_digests = array("Q")
        self.num_rejected: Counter[str] = Counter()
        self.example: Rejection | None = None
        self.left_out = hashlib.sha256()
        self.misplaced_copies: list[dict[str, Any]] = []
        """Rows of clips that are left out as duplicates of one in another split or fold."""

    def count(self, item: Clip | Rejection) -> None:
        self.num_recordings += 1
        if isinstance(item, Rejection):
            self.num_rejected[phrase_of(item.reason)] += 1
            self.example = self.example or item
            self.left_out.update(repr(item).encode())
            return
        self.num_clips += 1
        self.labels.update(item.labels, item.absent or ())
        if item.fold is not None:
            self.num_folds = max(self.num_folds or 0, item.fold)
        self.id_digests.append(digest_of(item.id))


def _ids_with(digests: Set[int], rows: Path) -> list[str]:
    with pa.ipc.open_file(rows) as plan:
        batches = (plan.get_batch(number) for number in range(plan.num_record_batches))
        found = {name for batch in batches for name in batch["id"].to_pylist() if digest_of(name) in digests}
    return sorted(found)


def _in_parts(rows: Path, copies: list[dict[str, Any]]) -> pa.Table:
    """Clips of a plan, and copies that it leaves out, that are in a split or fold.

    Empty and unreadable recordings have no checksum.
    """
    columns = ["path", "split", "fold", "group", "sha256", "bytes"]
    batches = [pa.RecordBatch.from_pylist(copies, ROWS).select(columns)]
    with pa.ipc.open_file(rows) as plan:
        for number in range(plan.num_record_batches):
            clips = plan.get_batch(number).select(columns)
            batches.append(clips.filter(pc.or_(pc.is_valid(clips["split"]), pc.is_valid(clips["fold"]))))
    table = pa.Table.from_batches(batches)
    is_content = pc.and_(pc.greater(table["bytes"], 0), pc.not_equal(table["sha256"], ""))
    content = pc.if_else(is_content, table["sha256"], pa.scalar(None, pa.string()))
    return table.set_column(columns.index("sha256"), "sha256", content)


Decided = Iterator[tuple[Clip | Rejection, Recording]]


def _write_plan(
    rows: Path,
    rejected: Path,
    decided: Decided,
    census: Census,
    logmel: LogMel,
    params: Shards,
    report: Callable[[int, int], None] | None,
) -> None:
    """One record batch a shard: a worker reads the one it needs, wherever it lies in the file."""
    beginning = digest(logmel, sorted(params.reject), SHARDS_VERSION)
    waiting: list[dict[str, Any]] = []

    def close_shard() -> None:
        content = repr([tuple(row.values()) for row in waiting])
        census.shards.append(digest(beginning, content))
        plan.write_batch(pa.RecordBatch.from_pylist(waiting, ROWS))
        waiting.clear()

    with (
        rejected.open("w", newline="", encoding="utf-8") as file,
        pa.ipc.new_file(rows, ROWS, options=pa.ipc.IpcWriteOptions(compression="zstd")) as plan,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "reason"])
        for item, recording in decided:
            census.count(item)
            if isinstance(item, Rejection):
                table.writerow([item.path, item.reason])
                continue
            waiting.append(_row(item, recording))
            if len(waiting) == params.clips_per_shard:
                close_shard()
            if report is not None and census.num_recordings % REPORT_EVERY == 0:
                report(census.num_recordings, 0)
        if waiting:
            close_shard()


def _row(clip: Clip, recording: Recording) -> dict[str, Any]:
    return {
        "id": clip.id,
        "path": clip.path,
        "labels": clip.labels,
        "split": clip.split,
        "fold": clip.fold,
        "group": clip.group,
        "absent": clip.absent,
        "file": recording.file,
        "position": recording.position,
        "bytes": recording.bytes,
        "sha256": recording.sha256,
    }


def _without_duplicates(
    items: Iterable[Clip | Rejection], recordings: Iterable[Recording], params: Shards, census: Census
) -> Decided:
    """Of clips with the same bytes only the first stays. Empty and unreadable files have other reasons.

    A copy in another split or fold is noted in the census: leaving it out mends nothing, since nobody knows
    which of the two is in the wrong place.
    """
    if "duplicate" not in params.reject:
        yield from zip(items, recordings, strict=True)
        return
    suspects = repeated_contents(recordings)
    first_with: dict[str, Clip] = {}
    for item, recording in zip(items, recordings, strict=True):
        if isinstance(item, Clip) and content_of(recording) in suspects:
            first = first_with.setdefault(recording.sha256, item)
            if first is not item:
                place = (item.split, item.fold)
                if place not in ((None, None), (first.split, first.fold)):
                    census.misplaced_copies.append(_row(item, recording) | {"group": None})
                yield Rejection(item.path, f"duplicate (of {first.path})"), recording
                continue
        yield item, recording


@contextmanager
def partial_file(near: Path) -> Iterator[Path]:
    """A path for a file that gets its name when its content is known; gone afterwards, if still there."""
    near.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(near)
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
