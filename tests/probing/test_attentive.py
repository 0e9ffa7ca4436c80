"""Attentive probes on synthetic embeddings whose best score is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm

from matpac.classifier.heads import AttentiveHead
from matpac.encoder.over_time import OverTime
from matpac.params import Probe
from matpac.probing import attentive
from matpac.probing.attentive import AttentiveData, Training, fit_attentive_probes
from matpac.probing.folds import Fold, cross_validation_fold
from matpac.probing.linear import fit_probes
from matpac.probing.problems import problems_of
from matpac.probing.steps import Steps
from matpac.probing.store import read_feature, write_embeddings
from tests.probing.test_store import many_clips

PARAMS = Probe(
    datasets=(),
    num_repeats=2,
    batch_size=64,
    learning_rate=0.01,
    max_epochs=60,
    patience_epochs=15,
    score_on="test",
    pooling="mean",
    standardize=True,
    knn=None,
    attentive=4,
    seed=0,
)
FEW_STEPS = PARAMS.model_copy(update={"batch_size": 150, "learning_rate": 0.02})
"""The same answers after half of the updates, each of which costs about the same."""


def stored(folder, clips):
    rows = [
        OverTime(steps.mean(0), steps.std(0), steps) for steps in (clip.astype(np.float32) for clip in clips)
    ]
    write_embeddings(folder, many_clips(len(rows)), {"pretrained": rows})
    return Steps(folder, "pretrained")


def thirds(num_clips):
    return Fold(*np.split(np.arange(num_clips), [num_clips // 3, 2 * (num_clips // 3)]))


def fitted(steps, labels, folds, params=PARAMS, *, observed=None, multi_label=False):
    truth = torch.tensor(labels, dtype=torch.float32)
    seen = torch.ones_like(truth) if observed is None else torch.tensor(observed, dtype=torch.float32)
    return fit_attentive_probes(steps, truth, seen, folds, params, params.attentive, multi_label=multi_label)


def fitted_linearly(means, labels, folds, params=PARAMS, *, observed=None, multi_label=False):
    truth = torch.tensor(labels, dtype=torch.float32)
    seen = torch.ones_like(truth) if observed is None else torch.tensor(observed, dtype=torch.float32)
    features = torch.tensor(np.asarray(means), dtype=torch.float32)
    return fit_probes(features, truth, seen, folds, params, multi_label=multi_label)


def num_right(fits, classes, folds):
    return [int((fit.test_logits.argmax(1) == classes[folds[fit.fold].test]).sum()) for fit in fits]


def marked_once(classes, random, dim=16, noise=0.3):
    """Clips with the class in a single step, marked by the last dimension. In the mean over time it
    cancels, and only noise is left."""
    marks = np.eye(dim)[: classes.max() + 1] * 3
    clips = []
    for index in classes:
        steps = np.zeros((random.integers(8, 20), dim))
        steps[random.integers(len(steps))] = marks[index] + 3 * np.eye(dim)[-1]
        steps[:, :-1] -= steps[:, :-1].mean(0)
        clips.append(steps + random.normal(0, noise, steps.shape))
    return clips


def test_a_class_in_one_step_that_cancels_in_the_mean_is_found_by_attention_only(tmp_path):
    random = np.random.default_rng(0)
    classes = random.integers(0, 4, 900)
    clips, labels, folds = marked_once(classes, random), np.eye(4)[classes], [thirds(900)]
    params = PARAMS.model_copy(update={"max_epochs": 120})
    attended = fitted(stored(tmp_path / "e", clips), labels, folds, params)
    assert min(num_right(attended, classes, folds)) >= 0.97 * 300
    averaged = fitted_linearly([clip.mean(0) for clip in clips], labels, folds, FEW_STEPS)
    low, high = binom.interval(0.999, 300, 1 / 4)
    assert all(low <= right <= high for right in num_right(averaged, classes, folds))


@pytest.mark.parametrize("num_folds", [None, 3])
def test_shuffled_labels_score_at_chance(tmp_path, num_folds):
    random = np.random.default_rng(1)
    classes = random.integers(0, 4, 900)
    steps = stored(tmp_path / "e", marked_once(classes, random))
    folds = [cross_validation_fold(np.arange(900) % 3 + 1, test, 3) for test in (1, 2, 3)]
    folds = folds if num_folds else [thirds(900)]
    shuffled = random.permutation(classes)
    low, high = binom.interval(0.999, 300, 1 / 4)
    for right in num_right(fitted(steps, np.eye(4)[shuffled], folds, FEW_STEPS), shuffled, folds):
        assert low <= right <= high


def test_two_gaussian_classes_in_a_marked_step_are_told_apart_as_well_as_they_can_be(tmp_path):
    random, distance = np.random.default_rng(2), 2.0
    classes = random.integers(0, 2, 3000)
    clips = []
    for index in classes:
        steps = random.normal(size=(random.integers(4, 9), 4))
        marked = random.integers(len(steps))
        steps[:, 3] = 0
        steps[marked, 3] = 8
        steps[marked, 0] += (2 * index - 1) * distance / 2
        clips.append(steps)
    folds = [thirds(3000)]
    best = norm.cdf(distance / 2)
    deviation = math.sqrt(best * (1 - best) * 1000)
    labels = np.eye(2)[classes]
    attended = fitted(stored(tmp_path / "e", clips), labels, folds, FEW_STEPS)
    for right in num_right(attended, classes, folds):
        assert right == pytest.approx(1000 * best, abs=3.5 * deviation)
    # The mean over 4 to 8 steps has the same noise and a fourth to an eighth of the distance.
    averaged = fitted_linearly([clip.mean(0) for clip in clips], labels, folds, FEW_STEPS)
    for right in num_right(averaged, classes, folds):
        assert right < 1000 * best - 5 * deviation


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
def test_of_clips_with_one_step_it_is_the_linear_probe(tmp_path, standardize, multi_label):
    random = np.random.default_rng(3)
    classes = random.integers(0, 3, 240)
    labels = np.eye(3)[classes]
    if multi_label:
        labels = (random.random((240, 3)) < 0.4).astype(float)
    observed = random.random((240, 3)) < 0.6 if multi_label else np.ones((240, 3))
    features = (labels @ random.normal(size=(3, 8)) + 5 + random.normal(size=(240, 8))).astype(np.float16)
    folds = [cross_validation_fold(np.arange(240) % 3 + 1, test, 3) for test in (1, 2, 3)]
    params = PARAMS.model_copy(update={"standardize": standardize, "max_epochs": 20})
    about = {"observed": observed, "multi_label": multi_label}
    ours = fitted(stored(tmp_path / "e", features[:, None]), labels, folds, params, **about)
    theirs = fitted_linearly(features, labels, folds, params, **about)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.repeat, one.fold, one.best_epoch) == (other.repeat, other.fold, other.best_epoch)
        assert one.train_losses == pytest.approx(other.train_losses, rel=1e-4)
        assert one.validation_losses == pytest.approx(other.validation_losses, rel=1e-4)
        np.testing.assert_allclose(one.test_logits, other.test_logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("standardize", [False, True])
def test_while_queries_are_0_it_is_the_linear_probe_on_means(tmp_path, standardize):
    """Steps deviate ten times as much as means over time, and clips differ in length."""
    random = np.random.default_rng(9)
    classes = random.integers(0, 3, 240)
    labels, centres = np.eye(3)[classes], 0.3 * random.normal(size=(3, 8))
    clips = [5 + centres[index] + 3 * random.normal(size=(random.integers(60, 90), 8)) for index in classes]
    folds = [cross_validation_fold(np.arange(240) % 3 + 1, test, 3) for test in (1, 2, 3)]
    params = PARAMS.model_copy(update={"standardize": standardize, "max_epochs": 10})
    steps = stored(tmp_path / "e", clips)
    truth = torch.tensor(labels, dtype=torch.float32)
    data = AttentiveData(steps, truth, torch.ones_like(truth), folds, standardize, multi_label=False)
    means = read_feature(tmp_path / "e", "pretrained")
    for problem, linear in zip(
        problems_of(folds, params), fitted_linearly(means, labels, folds, params), strict=True
    ):
        run = Training(problem, data, params, num_heads=4)
        run.probe.queries.requires_grad_(False)
        for _ in range(params.max_epochs):
            run.epoch_()
        fit = run.result()
        # Means were taken before the steps were rounded to float16.
        assert fit.train_losses == pytest.approx(linear.train_losses, rel=1e-3)
        assert fit.validation_losses == pytest.approx(linear.validation_losses, rel=1e-3)
        np.testing.assert_allclose(fit.test_logits, linear.test_logits, atol=5e-3)


def random_probe(dim=12, num_classes=5, num_heads=3):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    scales = draw(dim).exp(), draw(dim), draw(dim).exp()
    probe = AttentiveHead(torch.zeros(num_heads, dim), draw(num_classes, dim), draw(num_classes), *scales)
    probe.queries.data = 3 * draw(num_heads, dim)
    return probe.requires_grad_(False)


def ragged_batch(stored_steps, clips):
    steps, present = stored_steps.padded(np.array(clips))
    return torch.from_numpy(steps).float(), torch.from_numpy(present)


def test_neither_padding_nor_the_other_clips_of_a_batch_change_an_answer(tmp_path):
    random, probe = np.random.default_rng(4), random_probe()
    steps = stored(tmp_path / "e", [random.normal(size=(length, 12)) for length in (3, 1, 40, 7)])
    together = probe(*ragged_batch(steps, [0, 1, 2, 3]))
    for clip in range(4):
        np.testing.assert_allclose(
            probe(*ragged_batch(steps, [clip]))[0], together[clip], rtol=1e-5, atol=1e-5
        )
    filled, present = ragged_batch(steps, [0, 1, 2, 3])
    filled[~present] = 1e4
    np.testing.assert_array_equal(probe(filled, present), together)


def test_the_order_of_steps_changes_nothing():
    random, probe = np.random.default_rng(5), random_probe()
    steps = torch.tensor(random.normal(size=(2, 9, 12)), dtype=torch.float32)
    present = torch.ones(2, 9, dtype=torch.bool)
    turned = probe(steps[:, torch.randperm(9, generator=torch.Generator().manual_seed(1))], present)
    np.testing.assert_allclose(turned, probe(steps, present), rtol=1e-5, atol=1e-5)


def test_an_answer_by_hand():
    """Two heads of one dimension each; the second query is ln 3 times sqrt 2 along the first axis."""
    scales = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 5.0])
    probe = AttentiveHead(torch.zeros(2, 2), torch.eye(2), torch.tensor([0.0, 10.0]), *scales)
    probe.queries.data[1, 0] = math.log(3) * math.sqrt(2)
    # The first head takes the mean, the second weighs the steps 1 : 3: a step factor of 2 times 0.5.
    logits = probe(torch.tensor([[[0.0, 4.0], [0.5, 8.0]]]), torch.ones(1, 2, dtype=torch.bool))
    assert logits.tolist() == [pytest.approx([0.25, 10 + 5 * ((4 + 3 * 8) / 4 - 1)])]


def test_queries_see_steps_by_their_deviation_and_the_linear_layer_averages_by_that_of_means(tmp_path):
    random = np.random.default_rng(6)
    clips = [random.normal(2, 3, (length, 4)).astype(np.float16) for length in (3, 1, 5, 2, 6)]
    for clip in clips:
        clip[:, 1] = 0.7
    labels = torch.eye(2)[torch.tensor([0, 1, 0, 1, 0])]
    fold = Fold(np.array([0, 2, 4]), np.array([1]), np.array([3]))
    steps = stored(tmp_path / "e", clips)
    scalers = AttentiveData(steps, labels, torch.ones(5, 2), [fold], True, False).scalers
    train = [clips[clip].astype(np.float64) for clip in fold.train]
    means, of_steps = np.stack([clip.mean(0) for clip in train]), np.concatenate(train).std(0)
    of_means = means.std(0)
    of_steps[1] = of_means[1] = 1
    np.testing.assert_allclose(scalers.step_factor[0], 1 / of_steps, rtol=1e-6)
    np.testing.assert_allclose(scalers.averages.mean[0, 0], means.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scalers.averages.factor[0, 0], 1 / of_means, rtol=1e-5)


def test_how_many_clips_are_computed_together_changes_nothing_but_rounding(tmp_path, monkeypatch):
    random = np.random.default_rng(7)
    classes = random.integers(0, 4, 120)
    steps, folds = stored(tmp_path / "e", marked_once(classes, random)), [thirds(120)]
    params = PARAMS.model_copy(update={"max_epochs": 5})
    whole = fitted(steps, np.eye(4)[classes], folds, params)
    monkeypatch.setattr(attentive, "PART_BYTES", {"cpu": 4000})
    for one, other in zip(whole, fitted(steps, np.eye(4)[classes], folds, params), strict=True):
        assert other.train_losses == pytest.approx(one.train_losses, rel=1e-4)
        np.testing.assert_allclose(other.test_logits, one.test_logits, rtol=1e-3, atol=1e-3)


def test_labels_that_were_not_observed_have_no_influence(tmp_path):
    random = np.random.default_rng(8)
    labels = (random.random((120, 3)) < 0.4).astype(float)
    observed = random.random((120, 3)) < 0.5
    steps = stored(tmp_path / "e", [random.normal(size=(4, 8)) for _ in range(120)])
    params, folds = PARAMS.model_copy(update={"max_epochs": 5}), [thirds(120)]
    about = {"observed": observed, "multi_label": True}
    turned = np.where(observed, labels, 1 - labels)
    before, after = (fitted(steps, truth, folds, params, **about) for truth in (labels, turned))
    for one, other in zip(before, after, strict=True):
        assert one.train_losses == other.train_losses
        assert np.array_equal(one.test_logits, other.test_logits)


def test_heads_that_cannot_share_the_dimensions_are_refused(tmp_path):
    steps = stored(tmp_path / "e", [np.ones((2, 10)) for _ in range(6)])
    with pytest.raises(ValueError, match=r"^probe.attentive: need .* divides the 10 dimensions .* got 4$"):
        fitted(steps, np.eye(2)[np.arange(6) % 2], [thirds(6)])
