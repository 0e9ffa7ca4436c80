"""data/raw/<dataset>/recordings.parquet -> a plan: the clips of each shard, and the recordings left out.

Everything streams. Memory grows by 16 bytes a recording (to find equal ids and contents) and a key a
shard; clips in a split or fold are then checked for leaks as one Arrow table.
"""

import csv
import hashlib
import io
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matpac.clip import Clip, Rejection, Task, digest64, phrase_of
from matpac.datasets.inventory import Recording, Recordings, has_inventory, read_passed_over
from matpac.datasets.own.doubts import doubts_about
from matpac.datasets.registry import READERS, recordings_root
from matpac.files import WORK, flush_to_disk, partial_path
from matpac.params import Dataset, LogMel, Public, Shards, digest
from matpac.prepare.build import PLAN_SCHEMA, SHARDS_VERSION, ShardJob
from matpac.prepare.workspace import Workspace
from matpac.shards.index import CLIP_COLUMNS
from matpac.shards.leaks import official_leaks, refuse_leaks
from matpac.signal.mel import mel_filters
from matpac.walk import PassedOver

REPORT_EVERY = 10_000
NUM_EXAMPLES = 3
NO_CONTENT = 0
"""Stands for the content of empty and unreadable recordings, which are no copies of each other."""


@dataclass(frozen=True)
class Plan:
    """How a dataset becomes a shard folder."""

    key: str
    """Digest of everything that the finished folder depends on."""
    workspace: Workspace
    root: Path
    """Path of the recordings."""
    task: Task | None
    logmel: LogMel
    params: Shards
    shards: tuple[str, ...]
    """Keys of the shards, in their order."""
    num_recordings: int
    num_clips: int
    """Number of clips in the shards' plans; the other recordings are rejected already."""
    num_rejected: Counter[str]
    """Number of rejected recordings by the phrase of the reason."""
    official_leaks: tuple[str, ...]
    """Groups and recordings that official splits put into several parts, in words."""
    choices: tuple[str, ...] = ()
    """What is taken for labels and splits of own recordings, in words."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    """Files and folders that are no recordings, or that could not be read."""

    def job(self, number: int) -> ShardJob:
        """The job of one shard, with absolute paths: a worker may run in another folder."""
        return ShardJob(
            number=number,
            key=self.shards[number],
            plan=self.workspace.plan(self.key).absolute(),
            mel_filters=self.workspace.mel_filters(self.key).absolute(),
            root=self.root.absolute(),
            workspace=Workspace(self.workspace.root.absolute()),
            logmel=self.logmel,
            reject=self.params.reject,
            channels=self.params.channels,
            version=SHARDS_VERSION,
        )


class Census:
    """Counts over all clips of a plan, and what is needed to check it."""

    def __init__(self) -> None:
        self.num_recordings = self.num_clips = 0
        self.shards: list[str] = []
        """Keys of the shards."""
        self.labels: set[str] = set()
        self.num_folds: int | None = None
        self.num_rejected: Counter[str] = Counter()
        """Number of rejected recordings by the phrase of the reason."""
        self.rejected_examples: defaultdict[str, list[Rejection]] = defaultdict(list)
        self.rejected_digest = hashlib.sha256()
        self.doubtful_copies: list[dict[str, Any]] = []
        """Rows of duplicates that differ from the copy that stays in split, fold or labels."""
        self._id_digests = array("Q")

    def count(self, item: Clip | Rejection) -> None:
        self.num_recordings += 1
        if isinstance(item, Rejection):
            phrase = phrase_of(item.reason)
            self.num_rejected[phrase] += 1
            if len(self.rejected_examples[phrase]) < NUM_EXAMPLES:
                self.rejected_examples[phrase].append(item)
            self.rejected_digest.update(repr(item).encode())
            return
        self.num_clips += 1
        self.labels.update(item.labels, item.absent or ())
        if item.fold is not None:
            self.num_folds = max(self.num_folds or 0, item.fold)
        self._id_digests.append(digest64(item.id))

    def repeated_ids(self) -> Set[int]:
        """Digests of the ids that several clips have."""
        return repeated(self._id_digests)


def workspace_of(dataset: str) -> Workspace:
    return Workspace(WORK / "shards" / dataset)


def plan_dataset(
    dataset: str,
    source: Dataset,
    raw: Path,
    logmel: LogMel,
    params: Shards,
    report: Callable[[int, int], None] | None = None,
) -> Plan:
    """Plan the shards of a dataset from the inventory in the folder `raw`.

    `report` receives the number of recordings done, and 0.

    Raises ValueError if the inventory is missing or holds no clip, if two clips have the same id, or if a
    group or a recording is in several splits or folds that are not official.
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
    own, passed_over = rules_for(source, params), read_passed_over(raw)
    choices = reader.choices(source, root, recordings)
    workspace = workspace_of(dataset)
    return plan_shards(items, recordings, root, workspace, task_of, logmel, own, report, choices, passed_over)


def rules_for(source: Dataset, params: Shards) -> Shards:
    """The same parameters, but public datasets keep copies: scores are reported on their official splits."""
    if not isinstance(source, Public):
        return params
    kept = tuple(reason for reason in params.reject if reason != "duplicate")
    return params.model_copy(update={"reject": kept})


def plan_shards(
    items: Iterable[Clip | Rejection],
    recordings: Iterable[Recording],
    root: Path,
    workspace: Workspace,
    task_of: Callable[[Census], Task | None],
    logmel: LogMel,
    params: Shards,
    report: Callable[[int, int], None] | None = None,
    choices: tuple[str, ...] = (),
    passed_over: PassedOver | None = None,
) -> Plan:
    """Plan the shards of clips and rejections, one item a recording.

    `recordings` is iterated over twice. Clips keep their order: one that turns out unusable when shards are
    built leaves a gap in its own shard only. Raises ValueError as `plan_dataset` does.
    """
    with (
        partial_file(workspace.plan("new")) as rows,
        partial_file(workspace.planned_rejections("new")) as rejected,
        partial_file(workspace.mel_filters("new")) as filters,
    ):
        census = write_plan(items, recordings, rows, rejected, logmel, params, report)
        if census.num_clips == 0:
            first = next((few[0] for few in census.rejected_examples.values()), None)
            example = f" {first.path}: {first.reason}." if first else ""
            raise ValueError(f"{root}: need at least one clip, found none.{example}")
        if equal := census.repeated_ids():
            ids = ", ".join(_ids_with(equal, rows)[:NUM_EXAMPLES])
            raise ValueError(f"{root}: need a different id for every clip, found some that are equal: {ids}")
        task, passed_over = task_of(census), passed_over or PassedOver()
        if task is not None and choices:
            choices = (*choices, *doubts_about(task))
        clips = clips_in_parts(rows, census)
        is_official = task is not None and task.official_split
        if not is_official:
            refuse_leaks(str(root), clips, workspace.root / "leaks.csv")
        leaks = tuple(official_leaks(clips)) if is_official else ()
        key = digest(
            census.shards,
            census.rejected_digest.hexdigest(),
            repr(task),
            params.format,
            params.max_rejected_fraction,
            leaks,
            choices,
            repr(passed_over),
        )
        content = io.BytesIO()  # NumPy does not say that a disk is full.
        np.save(content, mel_filters(logmel))
        filters.write_bytes(content.getvalue())
        places = (workspace.plan(key), workspace.planned_rejections(key), workspace.mel_filters(key))
        for path, place in zip((rows, rejected, filters), places, strict=True):
            # An existing file has the same content, and other processes may be reading it.
            if not place.exists():
                flush_to_disk(path)
                path.replace(place)
    return Plan(
        key=key,
        workspace=workspace,
        root=root,
        task=task,
        logmel=logmel,
        params=params,
        shards=tuple(census.shards),
        num_recordings=census.num_recordings,
        num_clips=census.num_clips,
        num_rejected=census.num_rejected,
        official_leaks=leaks,
        choices=choices,
        passed_over=passed_over,
    )


def write_plan(
    items: Iterable[Clip | Rejection],
    recordings: Iterable[Recording],
    rows: Path,
    rejected: Path,
    logmel: LogMel,
    params: Shards,
    report: Callable[[int, int], None] | None = None,
) -> Census:
    """Write clips to `rows` (Arrow) and rejections to `rejected` (CSV), one item a recording.

    `rows` has one record batch a shard, so a worker reads only the batch of its shard.
    """
    census = Census()
    beginning = digest(logmel, sorted(params.reject), params.channels, SHARDS_VERSION)
    waiting: list[dict[str, Any]] = []

    def close_shard() -> None:
        content = repr([tuple(row.values()) for row in waiting])
        census.shards.append(digest(beginning, content))
        plan.write_batch(pa.RecordBatch.from_pylist(waiting, PLAN_SCHEMA))
        waiting.clear()

    with (
        rejected.open("w", newline="", encoding="utf-8") as file,
        pa.ipc.new_file(rows, PLAN_SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as plan,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "reason"])
        for item, recording in _without_duplicates(items, recordings, params, census):
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
    return census


def _without_duplicates(
    items: Iterable[Clip | Rejection], recordings: Iterable[Recording], params: Shards, census: Census
) -> Iterator[tuple[Clip | Rejection, Recording]]:
    """Reject clips with the bytes of an earlier one, if the parameters say so.

    Copies in another split or fold, or with other labels, are noted in the census: leaving one out mends
    nothing, because nobody knows which of the two is right.
    """
    if "duplicate" not in params.reject:
        yield from zip(items, recordings, strict=True)
        return
    suspects = repeated(array("Q", map(_content_of, recordings)))
    first_with: dict[str, Clip] = {}
    for item, recording in zip(items, recordings, strict=True):
        if isinstance(item, Clip) and _content_of(recording) in suspects:
            first = first_with.setdefault(recording.sha256, item)
            if first is not item:
                if _annotation(item) != _annotation(first) and is_in_part(item):
                    census.doubtful_copies.append(_row(item, recording) | {"group": None})
                yield Rejection(item.path, f"duplicate (of {first.path})"), recording
                continue
        yield item, recording


def is_listed(row: Mapping[str, Any]) -> bool:
    """Whether a table or a folder says something about the clip of a planned row: label, split or fold."""
    return bool(row["labels"]) or row["split"] is not None or row["fold"] is not None


def is_in_part(clip: Clip) -> bool:
    return clip.split is not None or clip.fold is not None


def _annotation(clip: Clip) -> tuple[object, ...]:
    return clip.split, clip.fold, sorted(clip.labels)


def _row(clip: Clip, recording: Recording) -> dict[str, Any]:
    return {name: getattr(clip if name in CLIP_COLUMNS else recording, name) for name in PLAN_SCHEMA.names}


def batches_of(rows: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of a plan, in the order of the shards."""
    with pa.ipc.open_file(rows) as plan:
        for number in range(plan.num_record_batches):
            yield plan.get_batch(number)


def _ids_with(digests: Set[int], rows: Path) -> list[str]:
    ids = (name for batch in batches_of(rows) for name in batch["id"].to_pylist())
    return sorted({name for name in ids if digest64(name) in digests})


def clips_in_parts(rows: Path, census: Census, extra_columns: Sequence[str] = ()) -> pa.Table:
    """Clips of a plan that are in a split or fold, and doubtful copies that it leaves out.

    The columns are those that `refuse_leaks` needs, and extra ones; `sha256` is null without content.
    """
    columns = ["path", "split", "fold", "group", "sha256", "bytes", *extra_columns]
    batches = [pa.RecordBatch.from_pylist(census.doubtful_copies, PLAN_SCHEMA).select(columns)]
    for batch in batches_of(rows):
        clips = batch.select(columns)
        batches.append(clips.filter(pc.or_(pc.is_valid(clips["split"]), pc.is_valid(clips["fold"]))))
    table = pa.Table.from_batches(batches)
    has_content = pc.and_(pc.greater(table["bytes"], 0), pc.not_equal(table["sha256"], ""))
    content = pc.if_else(has_content, table["sha256"], pa.scalar(None, pa.string()))
    return table.set_column(columns.index("sha256"), "sha256", content)


def _content_of(recording: Recording) -> int:
    return int(recording.sha256[:16], 16) if recording.sha256 and recording.bytes else NO_CONTENT


def repeated(values: "array[int]") -> Set[int]:
    """Values that occur more than once."""
    ordered = np.sort(np.frombuffer(values, dtype=np.uint64))
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist()) - {NO_CONTENT}


@contextmanager
def partial_file(near: Path) -> Iterator[Path]:
    """Path of a new file beside `near`, to be renamed once its name is known; removed if it is not."""
    near.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(near)
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
