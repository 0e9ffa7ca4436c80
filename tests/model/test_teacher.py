import pytest
import torch
from torch import nn

from matpac.model.pretext import Center, follow_


def test_the_teacher_moves_by_one_minus_the_decay():
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(teacher.weight, 1.0)
    nn.init.constant_(student.weight, 2.0)
    follow_(teacher, student, 0.9)
    assert teacher.weight.item() == pytest.approx(1.1)
    assert student.weight.item() == 2


def test_the_center_is_a_running_mean():
    center = Center(2, momentum=0.9)
    center.update_(torch.tensor([1.0, -1.0]))
    center.update_(torch.tensor([1.0, 0.0]))
    assert center.value.tolist() == pytest.approx([0.19, -0.09])
