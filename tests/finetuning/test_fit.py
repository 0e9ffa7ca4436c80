"""One fit: losses by hand, resuming, stopping."""

import dataclasses
import math
from copy import deepcopy

import numpy as np
import pytest
import torch

from matpac.finetuning import fit as fitting
from matpac.finetuning.fit import History, Learner, Plan, loss_of, means_of, smoothed, train_
from matpac.params import SpecAugment
from matpac.probing.folds import folds_of


@pytest.fixture(scope="module")
def section(params):
    return params.finetune.model_copy(update={"mixup": 0.3})


def new_learner(labelled, encoder, section, num_epochs=3, fold=None):
    fold = fold or folds_of(labelled.clips)[0]
    means = means_of(encoder, labelled, np.arange(len(labelled.clips.ids)))
    plan = Plan("one", "finetune tones, fold 1", fold, (0, 0, 0), num_epochs)
    return Learner(plan, labelled, deepcopy(encoder), means, section)


def same(one, other):
    return all(value.equal(other[name]) for name, value in one.items())


def test_losses_by_hand():
    logits, truth = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    every, ones = torch.ones(2, 2), torch.ones(2)
    single = loss_of(logits, truth, every, ones, multi_label=False)
    assert single.item() == pytest.approx((math.log1p(math.exp(-2)) + math.log(2)) / 2)
    weighted = loss_of(logits, truth, every, torch.tensor([3.0, 1.0]), multi_label=False)
    assert weighted.item() == pytest.approx((3 * math.log1p(math.exp(-2)) + math.log(2)) / 2)
    several = loss_of(logits, truth, every, ones, multi_label=True)
    assert several.item() == pytest.approx((math.log1p(math.exp(-2)) + 3 * math.log(2)) / 4)


def test_entries_that_nobody_observed_do_not_count():
    logits, observed = torch.randn(5, 3), (torch.rand(5, 3) < 0.5).float()
    truth = (torch.rand(5, 3) < 0.5).float()
    other = torch.where(observed > 0, truth, 1 - truth)
    one, two = (loss_of(logits, t, observed, torch.ones(3), multi_label=True) for t in (truth, other))
    assert one == two
    assert loss_of(logits, truth, torch.zeros(5, 3), torch.ones(3), multi_label=True) == 0


def test_smoothed_labels_keep_their_sum():
    labels = torch.eye(4)
    assert smoothed(labels, 0.1, multi_label=False)[0].tolist() == pytest.approx([0.925, *[0.025] * 3])
    assert smoothed(labels, 0.1, multi_label=True)[0].tolist() == pytest.approx([0.95, *[0.05] * 3])


def test_of_equal_scores_the_one_of_least_loss_is_best():
    history = History()
    said = [history.note_(*one) for one in [(3, 0.5), (2, 0.5), (2, 0.5), (9, 0.7), (1, 0.6), (1, math.nan)]]
    assert said == [True, True, False, True, False, False]
    assert history.best_epoch == 4


def test_encoder_and_head_learn(labelled, encoder, section, tmp_path):
    section = section.model_copy(update={"mixup": 0.0, "num_epochs": 10})
    learner = new_learner(labelled, encoder, section, num_epochs=10)
    before = deepcopy(learner.networks.state_dict())
    train_(learner, tmp_path / "state", 1000)
    moved = {name for name, value in learner.networks.state_dict().items() if not value.equal(before[name])}
    assert moved == {name for name, _ in learner.networks.named_parameters()}
    assert learner.history.train_losses[-1] < learner.history.train_losses[0]
    _, logits = learner.answers(learner.plan.fold.train)
    right = logits.argmax(1) == labelled.clips.labels[learner.plan.fold.train].argmax(1)
    assert right.all()


def test_a_fit_that_was_cut_off_ends_with_the_same_bits(labelled, encoder, section, tmp_path):
    whole = new_learner(labelled, encoder, section)
    train_(whole, tmp_path / "whole", 1000)
    state = tmp_path / "state"
    for stop_after in (2, 4):
        cut_off = new_learner(labelled, encoder, section)

        def stop(batch, update, learner=cut_off, last=stop_after):
            if update == last:
                raise KeyboardInterrupt
            return Learner.update_(learner, batch, update)

        cut_off.update_ = stop
        with pytest.raises(KeyboardInterrupt):
            train_(cut_off, state, 0)
        assert state.exists()
    resumed = new_learner(labelled, encoder, section)
    train_(resumed, state, 1000)
    assert resumed.history == whole.history
    assert same(whole.networks.state_dict(), resumed.networks.state_dict())


def test_a_damaged_state_is_named_with_what_to_do(labelled, encoder, section, tmp_path):
    learner = new_learner(labelled, encoder, section)
    learner.save(tmp_path / "state")
    whole = (tmp_path / "state").read_bytes()
    (tmp_path / "state").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"^\S+/state: need .* To begin this fit again: rm \S+/state$"):
        train_(learner, tmp_path / "state", 1000)


def test_labels_of_test_clips_decide_nothing(labelled, encoder, section, tmp_path):
    fold = folds_of(labelled.clips)[0]
    wrong = deepcopy(labelled.clips)
    wrong.labels[fold.test] = 1 - wrong.labels[fold.test]
    found = []
    for clips in (labelled.clips, wrong):
        learner = new_learner(labelled._replace(clips=clips), encoder, section)
        train_(learner, tmp_path / "state", 1000)
        found.append(learner)
    assert found[0].history == found[1].history
    assert same(found[0].networks.state_dict(), found[1].networks.state_dict())


def test_training_stops_when_validation_has_not_improved(labelled, encoder, section, tmp_path, monkeypatch):
    scores = iter([0.5, 0.7, 0.6, 0.6, 0.9])
    monkeypatch.setattr(fitting, "score_of", lambda *_: next(scores))
    patient = section.model_copy(update={"patience_epochs": 2, "num_epochs": 5})
    learner = new_learner(labelled, encoder, patient, num_epochs=5)
    train_(learner, tmp_path / "state", 1000)
    assert len(learner.history.train_losses) == 4
    assert learner.history.best_epoch == 2


def test_a_loss_that_is_not_finite_stops_with_the_clips(labelled, encoder, section, tmp_path):
    learner = new_learner(labelled, encoder, section)
    with torch.no_grad():
        learner.head.bias.fill_(math.nan)
    ids = ", ".join(learner.batches.ids(0))
    with pytest.raises(SystemExit, match=rf"^Stopped: need finite .* in update 0 of .* clips {ids}\. The"):
        train_(learner, tmp_path / "state", 1000)


MASKS = SpecAugment(num_freq_masks=1, max_freq_mels=4, num_time_masks=1, max_time_frames=10)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"class_balance": "weights", "label_smoothing": 0.1},
        {"class_balance": "sampling", "crop_frames": None},
        {"spec_augment": MASKS, "mixup": 0.8},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_option_trains_single_and_several_labels(labelled, encoder, section, changes, multi_label):
    clips = labelled.clips
    if multi_label:
        observed = (np.random.default_rng(0).random(clips.labels.shape) < 0.8).astype(np.uint8)
        task = dataclasses.replace(clips.task, multi_label=True, metric="mAP")
        clips = dataclasses.replace(clips, task=task, labels=clips.labels * observed, observed=observed)
    learner = new_learner(labelled._replace(clips=clips), encoder, section.model_copy(update=changes))
    before = learner.encoder.patches.projection.weight.clone()
    # The rate is 0 at the first update.
    for update, batch in enumerate(learner.batches(range(2), encoder.device)):
        assert math.isfinite(learner.update_(batch, update))
    assert not learner.encoder.patches.projection.weight.equal(before)
    learner.end_epoch_()
    assert learner.history.best_epoch == 1


def test_bfloat16_is_near_float32(labelled, encoder, section):
    losses = []
    for precision in ("float32", "bfloat16"):
        encoder.precision = precision
        learner = new_learner(labelled, encoder, section)
        [batch] = learner.batches(range(1), encoder.device)
        losses.append(learner.update_(batch, 0))
        assert {value.dtype for value in learner.networks.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
