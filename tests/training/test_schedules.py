import pytest

from matpac.params import load_params
from matpac.training.schedules import Durations, durations_of, knobs_at


@pytest.fixture(scope="module")
def paper(project):
    return load_params(project / "presets" / "paper.yaml").pretrain


def test_durations_of_the_papers_run_are_the_released_ones(paper):
    assert durations_of(2_012_615, paper) == Durations(294_816, 19_654, 9_827)


def test_every_schedule_has_its_ends(paper):
    durations = durations_of(2_012_615, paper)
    first, peak = knobs_at(0, durations, paper), knobs_at(durations.warmup, durations, paper)
    end = knobs_at(durations.total, durations, paper)
    assert (first.learning_rate, peak.learning_rate) == (0, pytest.approx(3e-4))
    assert end.learning_rate == pytest.approx(0, abs=1e-12)
    assert (first.teacher_temperature, peak.teacher_temperature) == (0.04, 0.07)
    assert (first.encoder_decay, end.encoder_decay) == (0.99995, 0.99999)
    assert (first.head_decay, end.head_decay) == (0.998, 1.0)


def test_the_choice_becomes_hard_at_update_230_256(paper):
    durations = durations_of(2_012_615, paper)
    floor = paper.choice_temperature.last
    assert knobs_at(230_255, durations, paper).choice_temperature > floor
    assert knobs_at(230_256, durations, paper).choice_temperature == floor


def test_too_little_data_for_one_update_is_refused_in_one_line(paper):
    short = paper.model_copy(update={"num_epochs": 0.5})
    with pytest.raises(
        ValueError, match=r"num_epochs: need at least one batch of 2048 clips, got 3000 clips"
    ):
        durations_of(3000, short)


def test_a_batch_that_holds_clips_twice_is_refused_in_one_line(paper):
    with pytest.raises(ValueError, match=r"batch_size: need at most the 2047 clips of an epoch, got 2048$"):
        durations_of(2047, paper)
    assert durations_of(2048, paper).total == 300
