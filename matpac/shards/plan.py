"""data/raw/<dataset>/recordings.csv -> a plan for every shard."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matpac.datasets import READERS
from matpac.datasets.clip import Clip, Task
from matpac.datasets.recordings import (
    TABLE,
    Recording,
    content_digest,
    read_recordings,
    recordings_root,
)
from matpac.files import WORK
from matpac.params import Dataset, LogMel, Shards, digest
from matpac.shards.build import ShardPlan


@dataclass(frozen=True)
class Plan:
    """How a dataset becomes a shard folder."""

    work: Path
    """Unfinished work; named after the digest of all that the result depends on."""
    task: Task | None
    logmel: LogMel
    params: Shards
    shards: tuple[ShardPlan, ...]

    @property
    def num_clips(self) -> int:
        return sum(len(shard.clips) for shard in self.shards)

    @property
    def finished(self) -> Path:
        """The folder that will be moved into place."""
        return self.work / "finished"


def plan_dataset(dataset: str, source: Dataset, raw: Path, logmel: LogMel, params: Shards) -> Plan:
    """Read the inventory in the folder `raw` and deal its clips into shards.

    Raises ValueError where the inventory is missing or holds no clip.
    """
    if not (raw / TABLE).exists():
        raise ValueError(
            f"{raw / TABLE}: need the inventory of the recordings, found none. "
            f"Make it with `python -m flows.download {dataset}` or `dvc repro`."
        )
    recordings = {recording.path: recording for recording in read_recordings(raw)}
    root = recordings_root(dataset, source)
    reader = READERS[source.kind]
    clips = list(reader.clips(source, root, list(recordings)))
    if not clips:
        raise ValueError(f"datasets.{dataset}: need at least one clip in {root}, found none.")
    inventory = content_digest(recordings.values())
    key = digest(source, inventory, annotations(clips), logmel, params.format, params.clips_per_shard)
    work = WORK / "shards" / f"{dataset}-{key}"
    return deal(clips, recordings, root, work, reader.task(source, clips), logmel, params)


def annotations(clips: Iterable[Clip]) -> str:
    """Digest of labels, splits, folds and groups, which shards hold and a table can change."""
    whole = hashlib.sha256()
    for clip in clips:
        whole.update(repr(clip).encode())
    return whole.hexdigest()


def deal(
    clips: Sequence[Clip],
    recordings: Mapping[str, Recording],
    root: Path,
    work: Path,
    task: Task | None,
    logmel: LogMel,
    params: Shards,
) -> Plan:
    """In their order; a clip that turns out unusable leaves a gap in its own shard only."""
    if len({clip.id for clip in clips}) < len(clips):
        raise ValueError(f"{root}: need a different id for every clip, found some that are equal.")
    # The tars of a Zarr store are a step on the way: they never lie in the finished folder.
    tars = work / ("finished" if params.format == "webdataset" else "tars")
    firsts = range(0, len(clips), params.clips_per_shard)
    parts = [tuple(clips[first : first + params.clips_per_shard]) for first in firsts]
    shards = tuple(
        ShardPlan(
            number=number,
            clips=part,
            recordings=tuple(recordings.get(clip.path) for clip in part),
            root=root,
            logmel=logmel,
            tars=tars,
            records=work / "records",
        )
        for number, part in enumerate(parts)
    )
    return Plan(work, task, logmel, params, shards)


def clear_leftovers(work: Path) -> None:
    """Remove what a killed process was writing; what it had finished stays."""
    for partial in work.rglob(".*.partial"):
        partial.unlink()
