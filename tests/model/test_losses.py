import math

import pytest
import torch

from matpac.model.losses import (
    classification_loss,
    closest,
    distances,
    prediction_loss,
    teacher_probabilities,
    total_loss,
)


def test_distances_of_unit_vectors_by_hand():
    hypotheses = torch.tensor([[[[3.0, 0.0]], [[0.0, 5.0]], [[-2.0, 0.0]]]])
    target = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    # Same direction, right angle, opposite: unit vectors differ by 0, sqrt(2), 2.
    found = distances(hypotheses, target)
    assert found.flatten().tolist() == pytest.approx([0, 2, 4])
    assert prediction_loss(found, torch.tensor(0.1)).item() == pytest.approx((0 + 2 + 4) / 3)


def test_hypotheses_share_a_patch_by_a_softmax_of_their_distances():
    found = torch.tensor([[[1.0, 2.0]]])
    share = 1 / (1 + math.exp(-1 / 0.5))
    by_hand = share * 1 + (1 - share) * 2
    assert prediction_loss(found, torch.tensor(0.5)).item() == pytest.approx(by_hand)


def test_without_a_temperature_the_closest_hypothesis_takes_all():
    found = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    loss = prediction_loss(found)
    loss.backward()
    assert loss.item() == 1
    assert found.grad.flatten().tolist() == [1, 0]


def test_shares_carry_no_gradient():
    found = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    prediction_loss(found, torch.tensor(0.5)).backward()
    share = 1 / (1 + math.exp(-1 / 0.5))
    assert found.grad.flatten().tolist() == pytest.approx([share, 1 - share])


def test_the_closest_hypothesis_speaks_for_its_patch():
    hypotheses = torch.tensor([[[[1.0, 1.0], [2.0, 2.0]], [[3.0, 3.0], [4.0, 4.0]]]])
    found = torch.tensor([[[0.2, 0.1], [0.0, 0.5]]])
    assert closest(hypotheses, found).tolist() == [[[2.0, 2.0], [3.0, 3.0]]]


def test_teacher_is_centered_then_sharpened():
    logits, center = torch.tensor([[[1.0, 0.0]]]), torch.tensor([0.5, 0.0])
    # A difference of half a logit remains, which is 2 at temperature 0.25.
    by_hand = 1 / (1 + math.exp(-2))
    probs = teacher_probabilities(logits, center, 0.25)
    assert probs.flatten().tolist() == pytest.approx([by_hand, 1 - by_hand])


def test_uninformative_student_pays_the_logarithm_of_the_number_of_clusters(generator):
    probs = torch.randn(2, 3, 8, generator=generator).softmax(-1)
    loss = classification_loss(torch.zeros(2, 3, 8), probs, 0.1)
    assert loss.item() == pytest.approx(math.log(8))


@pytest.mark.parametrize(("alpha", "by_hand"), [(0.0, 3.0), (0.25, 2.5), (1.0, 1.0)])
def test_alpha_weighs_prediction_against_classification(alpha, by_hand):
    loss = total_loss(torch.tensor(3.0), torch.tensor(1.0), alpha)
    assert loss.item() == pytest.approx(by_hand)


def test_at_alpha_one_classification_gets_no_gradient_at_all():
    classification = torch.tensor(3.0, requires_grad=True)
    prediction = torch.tensor(1.0, requires_grad=True)
    total_loss(classification, prediction, 1.0).backward()
    assert classification.grad is None
