import math

import pytest
import torch

from matpac.neighbors import nearest_votes

SIMILARITY = torch.tensor([[0.9, 0.2, 0.8, 0.7]])
LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])


def test_votes_count_alike_without_a_temperature():
    assert nearest_votes(SIMILARITY, LABELS, k=3).tolist() == [pytest.approx([1 / 3, 2 / 3])]


def test_with_a_temperature_nearer_neighbors_weigh_more():
    weights = [math.exp(similarity / 0.05) for similarity in (0.9, 0.8, 0.7)]
    share = weights[0] / sum(weights)
    votes = nearest_votes(SIMILARITY, LABELS, k=3, temperature=0.05)
    assert votes.tolist() == [pytest.approx([share, 1 - share])]
    assert votes.argmax() == 0, "two farther neighbors do not outvote the nearest"
