import math

import pytest
import torch

from matpac.model.masking import random_split
from matpac.model.pretext import Pretext
from matpac.model.sizes import Size
from matpac.params import load_params
from matpac.training.loop import Example, NonFinite, new_optimizer, pretrain
from matpac.training.schedules import Durations

NANO = Size(16, 1, 2, 16, 1, 2, 16, 8)
LASTING = Durations(total=12, warmup=2, teacher_temperature=4)


@pytest.fixture
def params(project):
    tiny = load_params(project / "params.yaml").pretrain
    return tiny.model_copy(update={"batch_size": 4, "micro_batch_size": 4})


@pytest.fixture
def examples(generator):
    return [
        Example(torch.randn(4, 32, 64, generator=generator), random_split(4, 8, 0.5, generator))
        for _ in range(6)
    ]


class Fresh:
    """Networks and optimiser of a new run, always with the same first weights."""

    def __init__(self, params):
        self.params = params
        self.pretext = Pretext(
            NANO, num_mels=32, crop_frames=64, num_clusters=8, num_hypotheses=1, center_momentum=0.9
        )
        self.pretext.initialize_(torch.Generator().manual_seed(1))
        self.optimizer = new_optimizer(self.pretext, params)

    def __call__(self, examples, first_update=0):
        reports = pretrain(
            self.pretext, self.optimizer, examples, self.params, LASTING, first_update=first_update
        )
        return [(report.loss.item(), report.grad_norm.item()) for report in reports]

    def weights(self):
        return {name: value.clone() for name, value in self.pretext.state_dict().items()}


def test_a_run_in_two_halves_equals_the_whole(params, examples):
    whole = Fresh(params)(examples)
    run = Fresh(params)
    assert [*run(examples[:3]), *run(examples[3:], first_update=3)] == whole


def test_accumulated_gradients_equal_those_of_the_whole_batch(params, examples):
    whole, parts = Fresh(params), Fresh(params.model_copy(update={"micro_batch_size": 1}))
    assert parts(examples) == [pytest.approx(pair, abs=2e-5) for pair in whole(examples)]
    for name, value in whole.weights().items():
        torch.testing.assert_close(parts.weights()[name], value, atol=2e-5, rtol=0)


def test_teachers_rest_at_the_first_update_and_move_at_the_second(params, examples):
    run = Fresh(params)
    before = run.weights()
    run(examples[:1])
    teacher = "teacher_encoder.norm.weight"
    assert torch.equal(run.weights()[teacher], before[teacher])
    run(examples[1:3], first_update=1)
    assert not torch.equal(run.weights()[teacher], before[teacher])


def test_the_first_learning_rate_is_zero_so_the_first_update_moves_no_student(params, examples):
    run = Fresh(params)
    before = run.weights()
    run(examples[:1])
    student = "student_encoder.norm.weight"
    assert torch.equal(run.weights()[student], before[student])
    assert not torch.equal(run.weights()["center.value"], before["center.value"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_stops_before_anything_moves(params, examples, bad):
    run = Fresh(params)
    run(examples[:2])
    before = run.weights()
    examples[2].log_mel[1, 2, 3] = bad
    with pytest.raises(NonFinite, match="update 2: loss nan"):
        run(examples[2:3], first_update=2)
    assert all(torch.equal(value, before[name]) for name, value in run.weights().items())


def test_training_lowers_the_prediction_loss(params, examples):
    quick = params.model_copy(update={"peak_learning_rate": 0.01, "alpha": 1.0})
    run = Fresh(quick)
    losses = [loss for first in range(0, 12, 6) for loss, _ in run(examples, first_update=first)]
    assert losses[-1] < losses[0] - 0.1
