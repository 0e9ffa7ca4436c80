"""Tiny recordings, and shards made of them without a dataset reader."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from matpac.datasets.clip import Clip, Task
from matpac.datasets.recordings import Recording
from matpac.params import LogMel, Shards
from matpac.shards.build import build_shard
from matpac.shards.finish import Summary, finish
from matpac.shards.plan import Plan, deal

LOGMEL = LogMel(
    sample_rate_hz=16000,
    window_ms=25,
    hop_ms=10,
    num_mels=16,
    fmin_hz=50,
    fmax_hz=8000,
    resampler="soxr_hq",
)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_noise(path: Path, duration_s: float, seed: int, rate_hz: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=int(duration_s * rate_hz))
    soundfile.write(path, noise, rate_hz, subtype="PCM_16")


def write_recordings(root: Path, durations_s: Sequence[float]) -> None:
    for number, duration_s in enumerate(durations_s):
        write_noise(root / f"{number:03d}.wav", duration_s, seed=number)


def recording_of(root: Path, path: str) -> Recording:
    content = (root / path).read_bytes()
    return Recording(path, len(content), hashlib.sha256(content).hexdigest())


def plan_of(
    root: Path, work: Path, format: str = "webdataset", clips_per_shard: int = 3, **changes: Any
) -> Plan:
    """A plan for all WAV files of a folder; clip `a<name>`, labels by parity, folds 1 to 3."""
    paths = sorted(path.name for path in root.glob("*.wav"))
    clips = [
        Clip(
            id=f"a{path.removesuffix('.wav')}",
            path=path,
            labels=("even" if number % 2 == 0 else "odd",),
            fold=number % 3 + 1,
        )
        for number, path in enumerate(paths)
    ]
    recordings = {path: recording_of(root, path) for path in paths}
    params = Shards(
        format=format,
        clips_per_shard=clips_per_shard,
        max_rejected_fraction=changes.pop("max_rejected_fraction", 1.0),
        num_workers=1,
    )
    task = Task(("even", "odd"), multi_label=False, metric="accuracy", num_folds=3)
    return deal(clips, recordings, root, work, task, changes.pop("logmel", LOGMEL), params)


def build(plan: Plan, out: Path) -> Summary:
    for shard in plan.shards:
        build_shard(shard)
    return finish(plan, out)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
