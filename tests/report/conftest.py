"""A small `data` folder, written by the functions that write the real one."""

from pathlib import Path

import numpy as np
import pytest

from matpac.clip import Task
from matpac.encoder.over_time import OverTime
from matpac.files import seal, write_json
from matpac.params import load_params, parse_params
from matpac.probing.probe import probe
from matpac.probing.store import EmbeddedClips, Origin, write_embeddings
from matpac.shards.index import table_of, write_index
from matpac.shards.tar import StoredClip, tar_name, write_tar
from matpac.training.history import METRICS, write_rows

NOTES = ("low", "<high> & loud")


@pytest.fixture(scope="module")
def params():
    raw = load_params(Path("presets/demo.yaml")).model_dump(mode="json")
    folder = {"kind": "folder", "source": "/own", "labels": "folders", "multi_label": False}
    raw["datasets"] = {
        name: folder | {"num_folds": None, "split_fractions": None} for name in ("corpus", "notes", "tags")
    }
    raw["pretrain"] |= {"datasets": ["corpus"], "crop_frames": 32}
    raw["online"]["dataset"] = "notes"
    raw["probe"] |= {"datasets": ["notes", "tags"], "max_epochs": 10, "num_repeats": 2}
    raw["probe"] |= {"knn": 3, "attentive": 2}
    raw["embed"]["over_time"] = True
    return parse_params(raw)


@pytest.fixture(scope="module")
def project(tmp_path_factory, params):
    root = tmp_path_factory.mktemp("project")
    for name in params.datasets:
        write_shards(root / "data/shards" / name, params)
    for name, multi_label in (("notes", False), ("tags", True)):
        folder = root / "data/embeddings" / name
        write_embeddings(folder, *embeddings(name, multi_label))
        probe(name, folder, root / f"data/scores/{name}.json", params.probe)
    checkpoint = root / "data/checkpoints/pretrained"
    checkpoint.mkdir(parents=True)
    rows = [
        {"step": step, "epoch": step / 100, "loss": 1 / (1 + step), "grad_norm": 2.0}
        for step in range(0, 1000, 10)
    ]
    write_rows(checkpoint / METRICS, rows)
    write_json(
        checkpoint / "meta.json",
        {"update": 1000, "duration_s": 3725.0, "git_revision": "abc123", "hardware": "<2 cores>"},
    )
    write_json(root / "data/corpus.json", {"datasets": {"corpus": "f00d"}})
    return root


def write_shards(folder, params, num_clips=6):
    random = np.random.default_rng(0)
    clips = [
        StoredClip(f"clip{index}", random.normal(-7, 4, (40, 80)).astype(np.float16), {})
        for index in range(num_clips)
    ]
    offsets = write_tar(folder / tar_name(0), clips)
    empty = {"labels": [], "split": None, "fold": None, "group": None, "native_rate_hz": 16000}
    rows = [
        empty
        | {"id": clip.id, "shard": 0, "offset": offset, "num_frames": 40, "duration_s": 0.4}
        | {"path": f"{clip.id}.wav"}
        for clip, offset in zip(clips, offsets, strict=True)
    ]
    write_index(folder / "index.parquet", table_of(rows))
    counts = {
        "num_clips": num_clips,
        "num_frames": 40 * num_clips,
        "num_rejected": {"silent": 2},
        "duration_s": 7200.0,
    }
    counts |= {"num_notes": {"not at full scale": 1}, "choices": ["labels: none (default)"]}
    sums = {"num_values": 3200 * num_clips, "sum": -22400.0 * num_clips, "sum_of_squares": 208e3 * num_clips}
    write_json(folder / "statistics.json", {"mean": -7.0, "std": 4.0, **counts, **sums})
    write_json(folder / "passed_over.json", {"number": {".zip": 3}, "examples": {".zip": ["old/a.zip"]}})
    write_json(folder / "task.json", None)
    write_json(folder / "logmel.json", params.logmel.model_dump(mode="json"))
    seal(folder)


def embeddings(name, multi_label):
    random = np.random.default_rng(1)
    labels = np.eye(2, dtype=np.uint8)[np.arange(60) % 2]
    if multi_label:
        labels = np.tile(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.uint8), (15, 1))
    noise = random.normal(size=(60, 8)).astype(np.float32)
    clips = EmbeddedClips(
        dataset=name,
        checkpoint="abc",
        task=Task(NOTES, multi_label, "mAP" if multi_label else "accuracy", None),
        ids=[str(index) for index in range(60)],
        splits=["train", "train", "validation", "validation", "test", "test"] * 10,
        folds=np.zeros(60, dtype=np.int64),
        labels=labels,
        observed=np.ones_like(labels),
        others={"ast": Origin("hear_ast", "a.pt", "f00d")},
    )
    seen = noise + np.tile(labels.astype(np.float32), 4)
    features = {
        "pretrained": [OverTime(row, 0 * row, np.stack([row, row])) for row in seen],
        "random_init": [OverTime(row, 0 * row, row[None]) for row in noise],
        "logmel_statistics": noise[:, :3],
        "ast": 2 * np.tile(labels.astype(np.float32), 3),
    }
    return clips, features
