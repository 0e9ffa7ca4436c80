import json
import math

import numpy as np
import pytest

from matpac.datasets.clip import Task
from matpac.params import Probe
from matpac.probing.embeddings import EmbeddingSet, write_embeddings
from matpac.probing.probe import probe
from matpac.probing.scores import beats_random_init, read_summaries, score_table

PARAMS = Probe(
    datasets=(),
    num_repeats=3,
    batch_size=16,
    learning_rate=0.05,
    max_epochs=40,
    patience_epochs=10,
    standardize=False,
    seed=0,
)


def toy(name, *, num_folds=None, multi_label=False):
    """Embeddings that hold the label, a random encoder whose embeddings do not."""
    random = np.random.default_rng(7)
    labels = np.eye(3, dtype=np.uint8)[np.arange(90) % 3]
    if multi_label:
        labels = random.integers(0, 2, (90, 3)).astype(np.uint8)
        labels[:, 2] = 0
        labels[0, 2] = 1
    noise = random.normal(size=(3, 90, 4)).astype(np.float32)
    seen = np.pad(2 * labels.astype(np.float32), ((0, 0), (0, 1)))
    return EmbeddingSet(
        dataset=name,
        checkpoint="abc",
        task=Task(
            classes=("low", "middle", "high"),
            multi_label=multi_label,
            metric="mAP" if multi_label else "accuracy",
            num_folds=num_folds,
        ),
        ids=[str(index) for index in range(90)],
        splits=[""] * 90 if num_folds else ["train"] * 50 + ["validation"] * 20 + ["test"] * 20,
        folds=np.arange(90) // 3 % num_folds + 1 if num_folds else np.zeros(90, dtype=np.int64),
        labels=labels,
        features={
            "pretrained": seen + 0.01 * noise[0],
            "random_init": noise[1],
            "logmel_statistics": noise[2, :, :2],
        },
    )


def probed(tmp_path, embeddings):
    name = embeddings.dataset
    write_embeddings(tmp_path / "embeddings" / name, embeddings)
    probe(name, tmp_path / "embeddings" / name, tmp_path / "scores" / f"{name}.json", PARAMS)
    details = json.loads((tmp_path / "scores" / f"{name}.details.json").read_text())
    return details["summary"], details


def test_cross_validation_scores_every_clip_once_a_repeat(tmp_path):
    summary, details = probed(tmp_path, toy("voices", num_folds=5))
    assert summary["protocol"] == "5-fold"
    assert summary["pretrained"] == {"mean": 1.0, "interval": 0.0}
    assert summary["random_init"]["mean"] < 0.6
    assert beats_random_init(summary)
    confusion = np.array(details["features"]["random_init"]["confusion"])
    assert confusion.sum(axis=1).tolist() == [3 * 30, 3 * 30, 3 * 30]
    scores = details["features"]["random_init"]["scores"]
    assert np.shape(scores) == (3, 5)
    assert summary["random_init"]["mean"] == pytest.approx(np.mean(scores))
    assert np.mean(scores) == pytest.approx(confusion.trace() / confusion.sum())


def test_gain_is_taken_repeat_by_repeat(tmp_path):
    summary, details = probed(tmp_path, toy("voices"))
    ours, floor = (np.ravel(details["features"][name]["scores"]) for name in ("pretrained", "random_init"))
    spread = np.std(ours - floor, ddof=1)
    # Student's t for 2 degrees of freedom is 4.302653.
    assert summary["gain_over_random_init"]["mean"] == pytest.approx(np.mean(ours - floor))
    assert summary["gain_over_random_init"]["interval"] == pytest.approx(
        4.302653 * spread / math.sqrt(3), rel=1e-6
    )


def test_classes_without_test_clips_are_left_out_and_counted(tmp_path):
    summary, details = probed(tmp_path, toy("tags", multi_label=True))
    assert summary["num_classes_without_test_clips"] == 1
    assert details["features"]["pretrained"]["per_class"][2] is None
    assert details["num_test_clips"][2] == 0
    assert summary["pretrained"]["mean"] == pytest.approx(1.0)


def test_dvc_compares_the_means_of_the_summary(tmp_path):
    summary, _ = probed(tmp_path, toy("voices"))
    means = {name: summary[name]["mean"] for name in ("pretrained", "random_init", "logmel_statistics")}
    assert json.loads((tmp_path / "scores/voices.json").read_text()) == {
        "chance": summary["chance"],
        **means,
        "gain": pytest.approx(means["pretrained"] - means["random_init"]),
    }


def test_the_table_has_a_line_per_task_and_marks_what_is_clearly_ahead(tmp_path):
    probed(tmp_path, toy("voices"))
    probed(tmp_path, toy("tags", multi_label=True))
    assert [summary["dataset"] for summary in read_summaries(tmp_path / "scores")] == [
        "tags",
        "voices",
    ]
    assert "tags" not in score_table(tmp_path / "scores", ["voices", "never_probed"])
    lines = score_table(tmp_path / "scores").splitlines()
    [voices] = [line for line in lines if line.startswith("voices")]
    assert "100.0 ± 0.0" in voices
    assert voices.endswith("*")


def test_a_second_run_gives_the_same_bytes(tmp_path):
    probed(tmp_path, toy("voices", num_folds=3))
    first = [path.read_bytes() for path in sorted((tmp_path / "scores").iterdir())]
    probed(tmp_path, toy("voices", num_folds=3))
    assert [path.read_bytes() for path in sorted((tmp_path / "scores").iterdir())] == first
