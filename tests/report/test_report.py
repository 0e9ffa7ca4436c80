"""The page is built from a small `data` folder, written by the functions that write the real one."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from matpac.datasets.clip import Task
from matpac.files import write_json
from matpac.params import load_params, parse_params
from matpac.probing.embeddings import EmbeddedClips, write_embeddings
from matpac.probing.probe import probe
from matpac.probing.scores import percent
from matpac.report.curves import thinned
from matpac.report.report import build_report
from matpac.shards.index import table_of, write_index
from matpac.shards.tar import StoredClip, tar_name, write_tar
from matpac.training.history import write_history

NOTES = ("low", "<high> & loud")


@pytest.fixture(scope="module")
def params():
    raw = load_params().model_dump(mode="json")
    folder = {"kind": "folder", "source": "/own", "labels": "folders", "multi_label": False}
    raw["datasets"] = {
        name: folder | {"num_folds": None, "split_fractions": None} for name in ("corpus", "notes", "tags")
    }
    raw["pretrain"] |= {"datasets": ["corpus"], "crop_frames": 32}
    raw["online"]["dataset"] = "notes"
    raw["probe"] |= {"datasets": ["notes", "tags"], "max_epochs": 10, "num_repeats": 2}
    return parse_params(raw)


@pytest.fixture(scope="module")
def project(tmp_path_factory, params):
    root = tmp_path_factory.mktemp("project")
    write_shards(root / "data/shards/corpus", params)
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
    write_history(checkpoint / "metrics.csv", rows)
    write_json(
        checkpoint / "meta.json",
        {"update": 1000, "duration_s": 3725.0, "git_revision": "abc123", "hardware": "<2 cores>"},
    )
    write_json(root / "data/corpus.json", {"datasets": {"corpus": "f00d"}})
    return root


@pytest.fixture(scope="module")
def page(project, params):
    build_report(project, project / "report", params)
    return (project / "report/index.html").read_text(encoding="utf-8")


def write_shards(folder, params):
    random = np.random.default_rng(0)
    clips = [
        StoredClip(f"clip{index}", random.normal(-7, 4, (40, 80)).astype(np.float16), {})
        for index in range(6)
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
    counts = {"num_clips": 6, "num_frames": 240, "num_rejected": {"silent": 2}, "duration_s": 7200.0}
    sums = {"num_values": 19200, "sum": -134400.0, "sum_of_squares": 1248000.0}
    write_json(folder / "statistics.json", {"mean": -7.0, "std": 4.0, **counts, **sums})
    write_json(folder / "logmel.json", params.logmel.model_dump(mode="json"))


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
    )
    features = {
        "pretrained": noise + np.tile(labels.astype(np.float32), 4),
        "random_init": noise,
        "logmel_statistics": noise[:, :3],
    }
    return clips, features


class Reader(HTMLParser):
    """Collects text and addresses, and insists that tags close in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, page):
        super().__init__()
        self.open, self.addresses, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_well_formed_and_loads_nothing_from_elsewhere(page):
    reader = Reader(page)
    assert reader.addresses
    assert all(address.startswith("data:") for address in reader.addresses)
    assert "@import" not in page
    assert "url(" not in page
    assert "<script" not in page


def test_the_page_holds_the_numbers_of_the_score_files(page, project):
    text = Reader(page).text
    for name in ("notes", "tags"):
        summary = json.loads((project / f"data/scores/{name}.details.json").read_text())["summary"]
        for feature in ("pretrained", "random_init", "logmel_statistics"):
            assert percent(summary[feature]) in text
        assert percent(summary["gain_over_random_init"], signed=True) in text


def test_the_page_says_what_it_was_made_from(page, params):
    text = Reader(page).text
    for part in ("abc123", "f00d", "1 h 02 min", "1,000 updates", "2.00", yaml.safe_dump({"alpha": 0.5})):
        assert part in text


def test_words_from_outside_are_shown_as_they_are(page):
    text = Reader(page).text
    for part in ("<2 cores>", "Every sample has the same value.", "<high> & loud"):
        assert part in text


def test_a_second_report_has_the_same_bytes(page, project, params):
    build_report(project, project / "again", params)
    assert (project / "again/index.html").read_text(encoding="utf-8") == page


def test_a_page_is_made_of_what_is_there(tmp_path, params):
    build_report(tmp_path, tmp_path / "report", params)
    text = Reader((tmp_path / "report/index.html").read_text(encoding="utf-8")).text
    assert "No dataset was probed" in text
    assert "How training went" not in text
    assert "All parameters" in text


def test_long_curves_are_thinned_to_means_of_neighbours():
    assert thinned(np.array([1.0, 3.0])).tolist() == [1.0, 3.0]
    assert thinned(np.arange(800.0))[:3].tolist() == [0.5, 2.5, 4.5]
