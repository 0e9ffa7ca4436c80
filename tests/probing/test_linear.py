"""Batched probes against a loop of single nn.Linear with torch's own Adam."""

import numpy as np
import pytest
import torch
from torch import nn

from matpac.params import Probe
from matpac.probing import linear
from matpac.probing.folds import Fold, cross_validation_fold
from matpac.probing.linear import fit_probes
from matpac.probing.problems import first_weights, problems_of


def probe_params(**changes):
    values = {
        "datasets": (),
        "num_repeats": 2,
        "batch_size": 8,
        "learning_rate": 0.02,
        "max_epochs": 12,
        "patience_epochs": 3,
        "score_on": "test",
        "pooling": "mean",
        "standardize": False,
        "knn": None,
        "attentive": None,
        "seed": 5,
    }
    return Probe(**{**values, **changes})


def masked_loss(logits, labels, observed):
    """Mean of the binary cross-entropies of the observed entries, one by one."""
    return nn.BCEWithLogitsLoss()(logits[observed > 0], labels[observed > 0])


def fit_alone(features, labels, observed, fold, params, repeat, index, *, multi_label):
    """The same probe, written out plainly."""
    random, orders = np.random.default_rng([params.seed, repeat, index]).spawn(2)
    dim, num_classes = features.shape[1], labels.shape[1]
    layer = nn.Linear(dim, num_classes, dtype=features.dtype)
    first = random.uniform(-1 / dim**0.5, 1 / dim**0.5, (dim + 1, num_classes))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(first[:-1].T))
        layer.bias.copy_(torch.tensor(first[-1]))
    if params.standardize:
        train = features[fold.train]
        features = (features - train.mean(0)) / train.std(0, correction=0)

    def loss(clips):
        if multi_label:
            return masked_loss(layer(features[clips]), labels[clips], observed[clips])
        return nn.CrossEntropyLoss()(layer(features[clips]), labels[clips].argmax(1))

    optimizer = torch.optim.Adam(layer.parameters(), params.learning_rate)

    losses, best, test_logits = [], float("inf"), None
    for epoch in range(1, params.max_epochs + 1):
        for clips in torch.tensor(orders.permutation(fold.train)).split(params.batch_size):
            if not observed[clips].any():
                continue
            optimizer.zero_grad()
            loss(clips).backward()
            optimizer.step()
        with torch.no_grad():
            losses.append(loss(fold.validation).item())
            if losses[-1] < best:
                best, best_epoch = losses[-1], epoch
                test_logits = layer(features[fold.test]).numpy()
        if epoch - best_epoch >= params.patience_epochs:
            break
    return losses, best_epoch, test_logits


@pytest.mark.parametrize(
    ("multi_label", "share_observed"), [(False, 1.0), (True, 1.0), (True, 0.4), (True, 0.05)]
)
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("cache_bytes", [0, 3_000, 2**20])
def test_problems_trained_together_equal_each_trained_alone(
    multi_label, share_observed, standardize, cache_bytes, monkeypatch
):
    # Stacks of one problem, of a few problems and of all.
    monkeypatch.setattr(linear, "CACHE_BYTES", cache_bytes)
    random = np.random.default_rng(0)
    # Folds of 3, 8, 14 and 25 clips differ in steps per epoch and in the size of the last batch.
    members = np.repeat([1, 2, 3, 4], [3, 8, 14, 25])
    folds = [cross_validation_fold(members, test, 4) for test in (1, 2, 3, 4)]
    labels = np.eye(3)[random.integers(0, 3, 50)]
    if multi_label:
        labels = random.integers(0, 2, (50, 3)).astype(float)
    features = random.normal(3, 2, (50, 6)) + labels @ random.normal(0, 1, (3, 6))
    observed = (random.random((50, 3)) < share_observed).astype(float)
    # At least the first clip of each fold, for validation.
    observed[[0, 3, 11, 25]] = 1
    # In double precision, so that rounding cannot hide a difference.
    features, labels, observed = torch.tensor(features), torch.tensor(labels), torch.tensor(observed)
    params = probe_params(standardize=standardize, learning_rate=0.2)

    fits = fit_probes(features, labels, observed, folds, params, multi_label=multi_label)

    assert [(fit.repeat, fit.fold) for fit in fits] == [(r, f) for r in (0, 1) for f in range(4)]
    for fit in fits:
        losses, best_epoch, test_logits = fit_alone(
            features, labels, observed, folds[fit.fold], params, fit.repeat, fit.fold, multi_label=multi_label
        )
        assert fit.validation_losses == pytest.approx(losses, rel=1e-9)
        assert fit.best_epoch == best_epoch
        assert fit.test_logits == pytest.approx(test_logits, rel=1e-9)
    lengths = {len(fit.validation_losses) for fit in fits}
    assert len(lengths) > 1, "the case is meant to hold problems that stop at other epochs"


def test_the_number_of_threads_changes_nothing_and_stays():
    features, labels, observed, fold = some_tags()
    num_threads, logits = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            fits = fit_probes(features, labels, observed, [fold], probe_params(), multi_label=True)
            logits.append(np.stack([fit.test_logits for fit in fits]))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(num_threads)
    assert logits[0] == pytest.approx(logits[1], rel=1e-4, abs=1e-5)


def test_test_clips_change_nothing_but_the_test_logits():
    random = np.random.default_rng(1)
    features = torch.tensor(random.normal(size=(30, 4))).float()
    labels = torch.eye(2)[torch.arange(30) % 2]
    fold = Fold(np.arange(10), np.arange(10, 20), np.arange(20, 30))
    [before, *_] = fit_probes(
        features, labels, torch.ones_like(labels), [fold], probe_params(), multi_label=False
    )
    features[20:] = 1000.0
    labels[20:] = labels[20:].flip(1)
    [after, *_] = fit_probes(
        features, labels, torch.ones_like(labels), [fold], probe_params(), multi_label=False
    )
    assert after.validation_losses == before.validation_losses
    assert after.train_losses == before.train_losses
    assert not np.array_equal(after.test_logits, before.test_logits)


def some_tags():
    random = np.random.default_rng(3)
    labels = torch.tensor(random.integers(0, 2, (60, 4))).float()
    features = torch.tensor(random.normal(size=(60, 5))).float() + labels @ torch.randn(4, 5)
    observed = torch.tensor(random.random((60, 4)) < 0.5).float()
    return features, labels, observed, Fold(np.arange(30), np.arange(30, 45), np.arange(45, 60))


def test_labels_that_were_not_observed_change_nothing():
    features, labels, observed, fold = some_tags()
    before = fit_probes(features, labels, observed, [fold], probe_params(), multi_label=True)
    turned = torch.where(observed > 0, labels, 1 - labels)
    after = fit_probes(features, turned, observed, [fold], probe_params(), multi_label=True)
    for one, other in zip(before, after, strict=True):
        assert one.train_losses == other.train_losses
        assert one.validation_losses == other.validation_losses
        assert np.array_equal(one.test_logits, other.test_logits)


def test_the_training_loss_is_the_mean_over_the_observed_entries():
    features, labels, observed, fold = some_tags()
    # So slow that the weights hardly move.
    params = probe_params(learning_rate=1e-12, max_epochs=1)
    [fit, *_] = fit_probes(features, labels, observed, [fold], params, multi_label=True)
    random, _ = np.random.default_rng([params.seed, 0, 0]).spawn(2)
    first = torch.tensor(random.uniform(-1, 1, (6, 4)) / 5**0.5).float()
    logits = features @ first[:-1] + first[-1]
    for part, [loss] in ((fold.train, fit.train_losses), (fold.validation, fit.validation_losses)):
        expected = masked_loss(logits[part], labels[part], observed[part]).item()
        assert loss == pytest.approx(expected, rel=1e-5)


def test_a_class_without_training_clips_does_not_stand_in_the_way_of_the_others():
    labels = torch.eye(3)[torch.arange(60) % 3]
    features = 2 * labels + 0.01 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    train = np.flatnonzero(labels[:30, 2] == 0)
    fold = Fold(train, np.arange(30, 45), np.arange(45, 60))
    known = labels[45:, 2].numpy() == 0
    for multi_label in (False, True):
        [fit, *_] = fit_probes(
            features,
            labels,
            torch.ones_like(labels),
            [fold],
            probe_params(max_epochs=100, patience_epochs=100),
            multi_label=multi_label,
        )
        assert np.isfinite(fit.test_logits).all()
        assert np.array_equal(fit.test_logits[known].argmax(1), labels[45:].argmax(1).numpy()[known])


def test_separable_clips_are_all_recognised():
    labels = torch.eye(3)[torch.arange(60) % 3]
    features = 2 * labels + 0.01 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    fold = Fold(np.arange(30), np.arange(30, 45), np.arange(45, 60))
    params = probe_params(max_epochs=100)
    for fit in fit_probes(features, labels, torch.ones_like(labels), [fold], params, multi_label=False):
        assert np.array_equal(fit.test_logits.argmax(1), labels[45:].argmax(1).numpy())
        assert fit.train_losses[-1] < fit.train_losses[0]


def test_labels_that_have_nothing_to_do_with_the_features_are_not_predicted():
    random = np.random.default_rng(2)
    features = torch.tensor(random.normal(size=(3000, 5))).float()
    labels = torch.eye(4)[torch.tensor(random.integers(0, 4, 3000))]
    fold = Fold(np.arange(500), np.arange(500, 1000), np.arange(1000, 3000))
    params = probe_params(batch_size=128)
    for fit in fit_probes(features, labels, torch.ones_like(labels), [fold], params, multi_label=False):
        right = fit.test_logits.argmax(1) == labels[1000:].argmax(1).numpy()
        # Chance is 1/4; four standard deviations of 2,000 draws are 0.039.
        assert right.mean() == pytest.approx(0.25, abs=0.04)


def test_encoders_of_any_size_see_the_clips_in_the_same_order():
    """Otherwise repeats of two encoders would not be pairs."""
    orders = []
    for dim in (3, 50):
        [problem, *_] = problems_of([Fold(*np.arange(12).reshape(3, 4))], probe_params())
        first_weights([problem.weight_random], dim, 2)
        orders.append(problem.order_random.permutation(100))
    assert np.array_equal(*orders)
