"""Tiny recordings, shards made of them without a dataset reader, and networks to train on them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from matpac.clip import Clip, Rejection, Task
from matpac.datasets.inventory import Recording
from matpac.params import LogMel, Shards
from matpac.prepare.build import ShardJob, build_shard
from matpac.prepare.plan import Plan, plan_shards
from matpac.prepare.publish import Summary, publish
from matpac.prepare.workspace import Workspace
from matpac.walk import PassedOver

LOGMEL = LogMel(
    sample_rate_hz=16000,
    window_ms=25,
    hop_ms=10,
    num_mels=16,
    fmin_hz=50,
    fmax_hz=8000,
    resampler="soxr_hq",
)

NETWORKS = {
    "encoder_dim": 16,
    "encoder_depth": 1,
    "encoder_heads": 2,
    "predictor_dim": 16,
    "predictor_depth": 1,
    "predictor_heads": 2,
    "head_hidden": 16,
    "head_bottleneck": 8,
}
"""`model.custom` of runs in which only their course counts."""


def write_noise(path: Path, duration_s: float, seed: int, rate_hz: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=int(duration_s * rate_hz))
    soundfile.write(path, noise, rate_hz, subtype="PCM_16")


def write_recordings(root: Path, durations_s: Sequence[float]) -> None:
    for number, duration_s in enumerate(durations_s):
        write_noise(root / f"{number:03d}.wav", duration_s, seed=number)


def recording_of(root: Path, path: str) -> Recording:
    content = (root / path).read_bytes()
    return Recording(path, len(content), hashlib.sha256(content).hexdigest(), path)


def shards_params(**changes: Any) -> Shards:
    values = {
        "format": "webdataset",
        "clips_per_shard": 3,
        "reject": ("silent", "truncated", "duplicate"),
        "channels": "mean",
        "max_rejected_fraction": 1.0,
        "runner": "threads",
        "num_workers": 1,
        "dask_address": None,
    }
    return Shards(**values | changes)


def plan_of(root: Path, work: Path, logmel: LogMel = LOGMEL, **changes: Any) -> Plan:
    """A plan for all WAV files of a folder; clip `a<name>`, labels by parity, folds 1 to 3."""
    return planned(plan_clips(root), root, work, logmel, **changes)


def plan_clips(root: Path) -> list[Clip | Rejection]:
    paths = sorted(path.name for path in root.glob("*.wav"))
    return [
        Clip(
            id=f"a{path.removesuffix('.wav')}",
            path=path,
            labels=("even" if number % 2 == 0 else "odd",),
            fold=number % 3 + 1,
        )
        for number, path in enumerate(paths)
    ]


def planned(
    items: Sequence[Clip | Rejection],
    root: Path,
    work: Path,
    logmel: LogMel = LOGMEL,
    passed_over: PassedOver | None = None,
    **changes: Any,
) -> Plan:
    recordings = [recording_of(root, item.path) for item in items]
    task = Task(("even", "odd"), multi_label=False, metric="accuracy", num_folds=3)
    own = shards_params(**changes)
    return plan_shards(
        items, recordings, root, Workspace(work), lambda _: task, logmel, own, passed_over=passed_over
    )


def jobs(plan: Plan) -> list[ShardJob]:
    return [plan.job(number) for number in range(len(plan.shards))]


def build(plan: Plan, out: Path) -> Summary:
    for job in jobs(plan):
        assert build_shard(job) is not None
    return publish(plan, out)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
