"""recordings -> shards, one at a time.

Runs in spawned workers that must start at once: nothing here imports torch, Zarr or Prefect.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matpac.datasets.clip import Clip
from matpac.datasets.recordings import Recording
from matpac.files import read_json, write_json
from matpac.params import LogMel
from matpac.shards.statistics import statistics_of
from matpac.shards.tar import StoredClip, tar_name, write_tar
from matpac.signal.audio import UnusableAudio, decode
from matpac.signal.logmel import log_mel
from matpac.signal.resample import resample


@dataclass(frozen=True)
class ShardPlan:
    """All that it takes to make one shard, anywhere and at any time."""

    number: int
    clips: tuple[Clip, ...]
    recordings: tuple[Recording | None, ...]
    """What the inventory says about the file of each clip."""
    root: Path
    """Of the recordings."""
    logmel: LogMel
    tars: Path
    """Folder of the tars."""
    records: Path
    """Folder of the records: what became of each clip. A shard is finished when its record is there."""

    @property
    def tar(self) -> Path:
        return self.tars / tar_name(self.number)

    @property
    def record(self) -> Path:
        return self.records / f"{tar_name(self.number)}.json"


@dataclass(frozen=True)
class Rejection:
    path: str
    """Relative to the root of the recordings."""
    reason: str


@dataclass(frozen=True)
class ShardResult:
    number: int
    num_clips: int
    """In the shard."""
    num_rejected: int


def build_shard(plan: ShardPlan) -> ShardResult:
    """Write the tar of a plan, then its record; nothing, where both are there already."""
    if not (plan.tar.exists() and plan.record.exists()):
        rows: list[dict[str, Any]] = []
        rejections: list[Rejection] = []
        offsets = write_tar(plan.tar, _usable_clips(plan, rows, rejections))
        for row, offset in zip(rows, offsets, strict=True):
            row["offset"] = offset
        rejected = [asdict(rejection) for rejection in rejections]
        write_json(plan.record, {"clips": rows, "rejected": rejected})
    record = read_json(plan.record)
    result = ShardResult(plan.number, len(record["clips"]), len(record["rejected"]))
    assert result.num_clips + result.num_rejected == len(plan.clips)
    return result


def _usable_clips(
    plan: ShardPlan, rows: list[dict[str, Any]], rejections: list[Rejection]
) -> Iterator[StoredClip]:
    """Convert clip by clip; what happens to each is appended to `rows` or to `rejections`."""
    for clip, recording in zip(plan.clips, plan.recordings, strict=True):
        try:
            stored, row = _convert(clip, recording, plan)
        except UnusableAudio as error:
            rejections.append(Rejection(clip.path, error.reason))
        else:
            rows.append(row)
            yield stored


def _convert(clip: Clip, recording: Recording | None, plan: ShardPlan) -> tuple[StoredClip, dict[str, Any]]:
    path = plan.root / clip.path
    _check_unchanged(path, recording)
    samples, native_rate_hz = decode(path)
    waveform = resample(samples, native_rate_hz, plan.logmel.sample_rate_hz, plan.logmel.resampler)
    frames = log_mel(waveform, plan.logmel)
    if len(frames) == 0:
        raise UnusableAudio(path, "too short (shorter than one window)")
    stored = frames.astype(np.float16)
    if not np.isfinite(stored).all():
        raise UnusableAudio(path, "not finite (the log-mel overflows)")
    about = {
        "labels": clip.labels,
        "split": clip.split,
        "fold": clip.fold,
        "group": clip.group,
        "path": clip.path,
        "native_rate_hz": native_rate_hz,
        "duration_s": len(samples) / native_rate_hz,
    }
    sums = asdict(statistics_of(stored))
    row = {"id": clip.id, "shard": plan.number, "num_frames": len(stored), **about, **sums}
    return StoredClip(clip.id, stored, about), row


def _check_unchanged(path: Path, recording: Recording | None) -> None:
    """A shard must follow from the inventory, which the pipeline tracks, and not from later edits."""
    if recording is None:
        raise UnusableAudio(path, "missing (not in the inventory)")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnusableAudio(path, f"cannot be read ({error.strerror})") from error
    if found != recording.sha256:
        raise UnusableAudio(path, "changed since the inventory (run the download stage again)")
