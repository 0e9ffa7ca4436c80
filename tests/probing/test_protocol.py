"""From stored embeddings to score files, on embeddings with known scores."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm

from matpac.clip import Task
from matpac.encoder.over_time import OverTime
from matpac.params import Probe, load_params
from matpac.probing.folds import Fold, cross_validation_fold
from matpac.probing.knn import neighbor_votes
from matpac.probing.linear import fit_probes
from matpac.probing.probe import probe
from matpac.probing.store import FEATURES, EmbeddedClips, write_embeddings

PROJECT = Path(__file__).resolve().parents[2]
PARTS = ("train", "validation", "test")
PARAMS = Probe(
    datasets=(),
    num_repeats=2,
    batch_size=512,
    learning_rate=0.05,
    max_epochs=60,
    patience_epochs=10,
    score_on="test",
    pooling="mean",
    standardize=True,
    knn=15,
    attentive=None,
    seed=0,
)


def probed(tmp_path, features, labels, *, observed=None, multi_label=False, num_folds=None, params=PARAMS):
    """Details of the scores of `features` [clip, dim]: three equal splits, or folds in turns."""
    num_clips, num_classes = labels.shape
    clips = EmbeddedClips(
        dataset="known",
        checkpoint="",
        task=Task(
            classes=tuple(f"class {index}" for index in range(num_classes)),
            multi_label=multi_label,
            metric="mAP" if multi_label else "accuracy",
            num_folds=num_folds,
        ),
        ids=[str(index) for index in range(num_clips)],
        splits=[""] * num_clips if num_folds else np.repeat(PARTS, num_clips // 3).tolist(),
        folds=np.arange(num_clips) % num_folds + 1 if num_folds else np.zeros(num_clips, dtype=np.int64),
        labels=labels.astype(np.uint8),
        observed=np.ones(labels.shape, dtype=np.uint8) if observed is None else observed.astype(np.uint8),
    )
    rows: list = list(features.astype(np.float32))
    if params.attentive is not None:
        rows = [OverTime(row, np.ones_like(row), np.stack([row - 1, row + 1])) for row in rows]
    write_embeddings(tmp_path / "known", clips, dict.fromkeys(FEATURES, rows))
    probe("known", tmp_path / "known", tmp_path / "known.json", params)
    return json.loads((tmp_path / "known.details.json").read_text())


def readings(details):
    """Scores of the linear probe for each repeat and fold, and of k-NN for each fold."""
    folds = details["second_reading"]["knn"]["pretrained"]["folds"]
    return [*np.ravel(details["features"]["pretrained"]["scores"]).tolist(), *folds]


@pytest.mark.parametrize("num_folds", [None, 4])
def test_shuffled_labels_score_at_chance(tmp_path, num_folds):
    random = np.random.default_rng(0)
    labels = np.eye(4)[random.integers(0, 4, 1200)]
    features = 3 * labels @ random.normal(size=(4, 16)) + random.normal(size=(1200, 16))
    assert min(readings(probed(tmp_path, features, labels, num_folds=num_folds))) > 0.97

    shuffled = random.permutation(labels)
    details = probed(tmp_path, features, shuffled, num_folds=num_folds)
    num_test = details["folds"][0]["test"]
    low, high = binom.interval(0.999, num_test, 1 / 4)
    for score in readings(details):
        assert low <= score * num_test <= high


def test_shuffled_tags_score_at_the_share_of_positives(tmp_path):
    random = np.random.default_rng(0)
    labels = random.random((1800, 6)) < np.linspace(0.1, 0.6, 6)
    features = 3 * labels @ random.normal(size=(6, 16)) + random.normal(size=(1800, 16))
    assert min(readings(probed(tmp_path, features, labels, multi_label=True))) > 0.9

    shuffled = random.permutation(labels)
    details = probed(tmp_path, features, shuffled, multi_label=True)
    assert details["summary"]["chance"] == pytest.approx(shuffled[1200:].mean())
    for score in readings(details):
        # The standard deviation of a class's average precision is about 0.02, of six classes' mean 0.01.
        assert score == pytest.approx(shuffled[1200:].mean(), abs=0.03)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("num_folds", [None, 3])
def test_orthogonal_classes_without_noise_are_all_recognised(tmp_path, num_folds, multi_label):
    # At random, because folds are in turns.
    labels = np.eye(5)[np.random.default_rng(0).integers(0, 5, 300)]
    details = probed(tmp_path, labels, labels, num_folds=num_folds, multi_label=multi_label)
    assert readings(details) == pytest.approx([1.0] * len(readings(details)), abs=1e-12)


@pytest.mark.parametrize("distance", [1.0, 2.0, 3.0])
def test_two_gaussian_classes_are_told_apart_as_well_as_they_can_be(tmp_path, distance):
    random = np.random.default_rng(1)
    labels = np.eye(2)[random.integers(0, 2, 9000)]
    direction = np.ones(4) / 2
    sign = 2 * labels[:, 1] - 1
    features = 5 + sign[:, None] * direction * distance / 2 + random.normal(size=(9000, 4))
    details = probed(tmp_path, features, labels)
    # The best answer is the nearer mean; it errs if the noise exceeds half the distance.
    best = norm.cdf(distance / 2)
    deviation = math.sqrt(best * (1 - best) / 3000)
    for score in np.ravel(details["features"]["pretrained"]["scores"]):
        assert score == pytest.approx(best, abs=3 * deviation)


@pytest.mark.parametrize("multi_label", [False, True])
def test_embeddings_that_say_nothing_score_exactly_chance(tmp_path, multi_label):
    random = np.random.default_rng(2)
    if multi_label:
        labels = random.random((300, 3)) < 0.3
    else:
        labels = np.eye(3)[random.choice(3, 300, p=[0.2, 0.5, 0.3])]
    details = probed(tmp_path, np.full((300, 4), 7.0), labels, multi_label=multi_label)
    scores = np.ravel(details["features"]["pretrained"]["scores"])
    # All answers are the most frequent training class, or ties, whose precision is the share of positives.
    assert scores == pytest.approx(labels[200:].mean(0).mean() if multi_label else labels[200:, 1].mean())
    assert scores == pytest.approx(details["summary"]["chance"])


def test_masked_average_precision_of_a_probe_by_hand(tmp_path):
    """With a single feature every probe ranks by it: up for `a`, down for `b`."""
    feature = np.tile(np.linspace(-1, 1, 8), 3)
    labels = np.stack([feature > 0, feature < 0], axis=1)
    observed = np.ones_like(labels)
    # From the highest feature to the lowest; ? was not observed, and is stored as absent.
    #   a   1 0 ? 1 0 ? 0 1    without ?: 1 0 1 0 0 1, precisions 1/1, 2/3, 3/6
    #   b   0 ? ? 1 0 1 0 1    from the lowest: 1 0 1 0 1 0, precisions 1/1, 2/3, 3/5
    labels[16:] = np.array([[1, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0, 1, 0, 1, 0, 1]], dtype=bool).T[::-1]
    observed[16:] = np.array([[1, 1, 0, 1, 1, 0, 1, 1], [1, 0, 0, 1, 1, 1, 1, 1]], dtype=bool).T[::-1]
    details = probed(
        tmp_path,
        feature[:, None],
        labels,
        observed=observed,
        multi_label=True,
        params=PARAMS.model_copy(update={"knn": 3}),
    )
    assert details["features"]["pretrained"]["per_class"] == pytest.approx(
        [(1 + 2 / 3 + 3 / 6) / 3, (1 + 2 / 3 + 3 / 5) / 3]
    )
    assert details["summary"]["pretrained"]["mean"] == pytest.approx(
        ((1 + 2 / 3 + 3 / 6) / 3 + (1 + 2 / 3 + 3 / 5) / 3) / 2
    )


def some_folds(num_folds):
    members = np.random.default_rng(3).integers(1, (num_folds or 3) + 1, 120)
    if num_folds is None:
        return [Fold(*(np.flatnonzero(members == part) for part in (1, 2, 3)))]
    return [cross_validation_fold(members, test, num_folds) for test in range(1, num_folds + 1)]


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("num_folds", [None, 4])
def test_nothing_is_chosen_on_a_test_fold(num_folds, multi_label, standardize):
    """Changed labels and features of test clips change neither the training of their fold, nor its best
    epoch, nor the answers to unchanged test clips."""
    random = np.random.default_rng(4)
    classes = random.integers(0, 3, 120)
    labels = torch.eye(3, dtype=torch.float64)[classes]
    features = labels @ torch.tensor(random.normal(size=(3, 5))) + torch.tensor(random.normal(size=(120, 5)))
    folds, observed = some_folds(num_folds), torch.ones_like(labels)
    params = PARAMS.model_copy(
        update={"standardize": standardize, "patience_epochs": 3, "batch_size": 64, "learning_rate": 0.02}
    )
    before = fit_probes(features, labels, observed, folds, params, multi_label=multi_label)
    for number, fold in enumerate(folds):
        half = len(fold.test) // 2
        other_labels, other_features = labels.clone(), features.clone()
        other_labels[fold.test] = labels[fold.test].roll(1, dims=1)
        other_features[fold.test[half:]] = 1000.0
        after = fit_probes(other_features, other_labels, observed, folds, params, multi_label=multi_label)
        for one, other in zip(before, after, strict=True):
            if one.fold != number:
                assert one.train_losses != other.train_losses, "other folds train on these clips"
                continue
            assert other.train_losses == pytest.approx(one.train_losses, rel=1e-9)
            assert other.validation_losses == pytest.approx(one.validation_losses, rel=1e-9)
            assert other.best_epoch == one.best_epoch
            assert other.test_logits[:half] == pytest.approx(one.test_logits[:half], rel=1e-9)
            assert not np.allclose(other.test_logits[half:], one.test_logits[half:])
        first, second = (
            neighbor_votes(rows, truth, observed, [fold], 5, standardize=standardize)[0]
            for rows, truth in ((features, labels), (other_features, other_labels))
        )
        assert np.array_equal(first[:half], second[:half])


def test_the_score_file_says_how_it_was_measured(tmp_path):
    labels = np.eye(3)[np.random.default_rng(5).integers(0, 3, 90)]
    details = probed(tmp_path, labels, labels, num_folds=5)
    summary = details["summary"]
    assert (summary["protocol"], summary["metric"], summary["official_split"]) == (
        "5-fold",
        "accuracy",
        False,
    )
    assert (summary["num_repeats"], summary["num_clips"]) == (2, {"all_folds": 90})
    assert details["folds"] == [{"train": 54, "validation": 18, "test": 18}] * 5
    assert np.shape(details["features"]["pretrained"]["scores"]) == (2, 5)
    assert details["second_reading"]["knn"]["num_neighbours"] == 15


def test_a_second_reading_changes_no_score(tmp_path):
    random = np.random.default_rng(6)
    labels = np.eye(3)[random.integers(0, 3, 90)]
    features = labels + random.normal(size=labels.shape)
    without = probed(tmp_path, features, labels, params=PARAMS.model_copy(update={"knn": None}))
    scores = (tmp_path / "known.json").read_bytes()
    assert without["second_reading"] == {}
    for changes, kinds in (({}, {"knn"}), ({"attentive": 3}, {"knn", "attentive"})):
        read_again = probed(tmp_path, features, labels, params=PARAMS.model_copy(update=changes))
        assert (tmp_path / "known.json").read_bytes() == scores
        assert read_again["second_reading"].keys() == kinds
        asked = {name: read_again[name] for name in ("second_reading", "probe")}
        assert without | asked == read_again
    attentive = read_again["second_reading"]["attentive"]
    assert attentive["num_heads"] == 3
    for name in ("pretrained", "random_init"):
        assert np.shape(attentive[name]["scores"]) == (2, 1)
        assert attentive[name]["mean"] == pytest.approx(np.mean(attentive[name]["scores"]))
    assert "logmel_statistics" not in attentive


@pytest.mark.parametrize(("preset", "num_repeats"), [("demo", 5), ("paper", 5), ("instruments", 10)])
def test_five_repeats_and_no_second_reading_are_the_default(preset, num_repeats):
    """A margin of less than a percent needs shorter intervals, and so more repeats."""
    params = load_params(PROJECT / f"presets/{preset}.yaml")
    assert (params.probe.num_repeats, params.probe.knn, params.probe.attentive) == (num_repeats, None, None)
    assert not params.embed.over_time
