"""one job -> one shard.

Runs in spawned workers that must start at once, so nothing here imports torch, librosa, Zarr or Prefect.
"""

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from matpac.clip import Note, Rejection, UnusableAudio, phrase_of
from matpac.datasets.inventory import SCHEMA as RECORDING_SCHEMA
from matpac.datasets.inventory import Recording, unchanged
from matpac.files import checksum, read_json, write_json, write_text
from matpac.params import Channels, LogMel, digest
from matpac.prepare.workspace import Workspace
from matpac.shards.index import ABOUT, CLIP_COLUMNS
from matpac.shards.statistics import statistics_of
from matpac.shards.tar import StoredClip, write_tar
from matpac.signal.recording import NO_MEMORY, convert, whole_log_mel

PLAN_SCHEMA = pa.schema(
    CLIP_COLUMNS
    | {name: RECORDING_SCHEMA.field(name).type for name in ("file", "position", "bytes", "sha256", "trouble")}
)
"""Columns of a plan, which has a record batch a shard and a row a clip: the clip and its recording."""
SHARDS_VERSION = 3
"""Part of every shard's key. Raise it with any change that makes other bytes, or another record, from the
same recordings; shards of older versions are then built again. A recorded shard in
tests/prepare/test_build.py guards it."""
PASSING = ("cannot be read", "changed")
"""Reasons that may be gone tomorrow. The next run builds shards with such rejections again."""


@dataclass(frozen=True)
class ShardJob:
    """Everything needed to make one shard, on any machine and at any time."""

    number: int
    """Number of the shard's record batch in the plan."""
    key: str
    """Digest of everything that determines the shard's bytes."""
    plan: Path
    mel_filters: Path
    """Path of the mel filterbank `[bin, mel]`, float32."""
    root: Path
    """Path of the recordings."""
    workspace: Workspace
    logmel: LogMel
    reject: tuple[str, ...]
    channels: Channels
    version: int
    """`SHARDS_VERSION` of the code that planned the shard."""


@dataclass(frozen=True)
class ShardResult:
    num_clips: int
    """Number of clips in the shard."""
    num_rejected: int


def build_shard(job: ShardJob) -> ShardResult | None:
    """Write the tar of a job, then its record, unless both are there.

    Returns None if another process is building the shard at this moment. Raises ValueError if another
    version of the code planned the shard, on another machine perhaps.
    """
    if job.version != SHARDS_VERSION:
        raise ValueError(
            f"{platform.node()}: need the version of matpac that planned the shards, found another. "
            "Install the same version on all machines."
        )
    with job.workspace.claimed(job.key) as ours:
        if not ours:
            return None
        record = read_record(job.workspace, job.key) or _build(job)
    return ShardResult(len(record["clips"]), len(record["rejected"]))


def read_record(workspace: Workspace, key: str) -> dict[str, Any] | None:
    """Checksum of a finished shard (`sha256`), its rows of the index (`clips`), what was `rejected`, `notes`.

    None if the shard is not finished, or its record is damaged.
    """
    path = workspace.record(key)
    if not (path.exists() and workspace.tar(key).exists()):
        return None
    try:
        record = read_json(path)
    except ValueError:
        return None
    written = record.pop("digest", None) if isinstance(record, dict) else None
    return record if digest(record) == written else None


def _build(job: ShardJob) -> dict[str, Any]:
    """Write tar and record; return the record."""
    planned = planned_rows(job.plan, job.number)
    rows: list[dict[str, Any]] = []
    rejections: list[Rejection] = []
    notes: list[Note] = []
    offsets = write_tar(job.workspace.tar(job.key), _usable_clips(planned, job, rows, rejections, notes))
    for row, offset in zip(rows, offsets, strict=True):
        row["offset"] = offset
    assert len(rows) + len(rejections) == len(planned), "clips in = clips out + rejections"
    if any(phrase_of(item.reason) in PASSING for item in rejections):
        write_text(job.workspace.again(job.key), "")
    record = {
        "sha256": checksum(job.workspace.tar(job.key)),
        "clips": rows,
        "rejected": [asdict(item) for item in rejections],
        "notes": [asdict(item) for item in notes],
    }
    write_json(job.workspace.record(job.key), record | {"digest": digest(record)})
    return record


def planned_rows(plan: Path, number: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _opened(plan).get_batch(number).to_pylist()
    return rows


def recording_of(row: dict[str, Any]) -> Recording:
    """The recording of a planned clip."""
    names = ("path", "bytes", "sha256", "file", "position", "trouble")
    return Recording(**{name: row[name] for name in names})


@lru_cache(maxsize=2)
def _opened(plan: Path) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(plan)))


@lru_cache(maxsize=2)
def _mel_filters(path: Path) -> Float32[np.ndarray, "bin mel"]:
    filters: Float32[np.ndarray, "bin mel"] = np.load(path)
    return filters


def _usable_clips(
    planned: list[dict[str, Any]],
    job: ShardJob,
    rows: list[dict[str, Any]],
    rejections: list[Rejection],
    notes: list[Note],
) -> Iterator[StoredClip]:
    """Convert clip by clip; append a row and perhaps notes for each, or a rejection."""
    for row in planned:
        try:
            stored, result, odd = _convert(row, job)
        except UnusableAudio as error:
            rejections.append(Rejection(row["path"], error.reason))
        except MemoryError:
            rejections.append(Rejection(row["path"], NO_MEMORY))
        else:
            rows.append(result)
            notes += [Note(row["path"], note) for note in odd]
            yield stored
            # A long recording fits into memory once, not beside the next one.
            del stored


def _convert(row: dict[str, Any], job: ShardJob) -> tuple[StoredClip, dict[str, Any], list[str]]:
    """The clip, its row of the index, and what is odd about its recording."""
    recording = recording_of(row)
    source = unchanged(recording, job.root)
    filters = _mel_filters(job.mel_filters)
    converted = convert(source, job.logmel, filters, Path(recording.path), job.reject, job.channels)
    frames = whole_log_mel(converted.blocks)
    about = {name: row[name] for name in ABOUT}
    about |= {"native_rate_hz": converted.native_rate_hz, "duration_s": converted.duration_s}
    result = {"id": row["id"], "num_frames": len(frames), **about, **asdict(statistics_of(frames))}
    return StoredClip(row["id"], frames, about), result, converted.notes
