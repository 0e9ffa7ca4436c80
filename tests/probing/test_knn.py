"""Votes of the nearest training clips, against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from matpac.probing import knn
from matpac.probing.folds import Fold, cross_validation_fold
from matpac.probing.knn import neighbor_votes


def clusters(num_clips=120, num_classes=4, dim=7):
    random = np.random.default_rng(0)
    classes = random.integers(0, num_classes, num_clips)
    features = random.normal(size=(num_classes, dim))[classes] + random.normal(size=(num_clips, dim)) + 3
    return torch.tensor(features), torch.eye(num_classes, dtype=torch.float64)[classes]


@pytest.mark.parametrize("block_bytes", [1, 2_000, 2**20])
@pytest.mark.parametrize("standardize", [False, True])
def test_votes_are_those_of_scikit_learn(standardize, block_bytes, monkeypatch):
    monkeypatch.setattr(knn, "BLOCK_BYTES", block_bytes)
    features, labels = clusters()
    folds = [cross_validation_fold(np.arange(120) % 3 + 1, test, 3) for test in (1, 2, 3)]
    votes = neighbor_votes(features, labels, torch.ones_like(labels), folds, 5, standardize=standardize)
    for fold, ours in zip(folds, votes, strict=True):
        train, test = features[fold.train].numpy(), features[fold.test].numpy()
        if standardize:
            scaler = StandardScaler().fit(train)
            train, test = scaler.transform(train), scaler.transform(test)
        theirs = KNeighborsClassifier(5, metric="cosine").fit(train, labels[fold.train].argmax(1).numpy())
        assert ours == pytest.approx(theirs.predict_proba(test))
        assert np.array_equal(ours.argmax(1), theirs.predict(test))


def test_several_labels_are_the_neighbours_mean():
    # Directions at 0, 10, 20 and 90 degrees; the test clip lies at 1 degree, far out.
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 20.0, 90.0, 1.0]))
    features = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [2], [1], [5], [9]])
    labels = torch.tensor([[1.0, 0], [1, 1], [0, 1], [0, 1], [0, 0]])
    fold = Fold(np.arange(4), np.array([], dtype=np.int64), np.array([4]))
    [votes] = neighbor_votes(features, labels, torch.ones_like(labels), [fold], 3, standardize=False)
    assert votes == pytest.approx(np.array([[2 / 3, 2 / 3]]))
    # The second class was not observed in the nearest two clips: the other two are its neighbors.
    observed = torch.tensor([[1.0, 0], [1, 0], [1, 1], [1, 1], [1, 1]])
    [votes] = neighbor_votes(features, labels, observed, [fold], 3, standardize=False)
    assert votes == pytest.approx(np.array([[2 / 3, 1.0]]))
    observed[:, 1] = 0
    [votes] = neighbor_votes(features, labels, observed, [fold], 3, standardize=False)
    assert votes == pytest.approx(np.array([[2 / 3, 0.0]]))


def test_only_training_clips_vote_and_only_by_what_was_observed():
    features, labels = clusters()
    fold = cross_validation_fold(np.arange(120) % 3 + 1, 1, 3)
    observed = torch.tensor(np.random.default_rng(1).random(labels.shape) < 0.5).to(labels)
    [before] = neighbor_votes(features, labels, observed, [fold], 5, standardize=True)
    outside = np.concatenate([fold.validation, fold.test])
    turned = torch.where(observed > 0, labels, 1 - labels)
    turned[outside] = 1 - turned[outside]
    observed[outside] = 0
    moved = features.clone()
    moved[fold.validation] = 1000.0
    [after] = neighbor_votes(moved, turned, observed, [fold], 5, standardize=True)
    assert np.array_equal(before, after)


def test_more_neighbours_than_training_clips_are_refused():
    features, labels = clusters()
    fold = Fold(np.arange(4), np.arange(4, 8), np.arange(8, 12))
    with pytest.raises(ValueError, match=r"^probe.knn: need at most the 4 training clips, got 5$"):
        neighbor_votes(features, labels, torch.ones_like(labels), [fold], 5, standardize=False)
