import pytest
import torch

from matpac.model.pretext import Views
from matpac.params import load_params
from matpac.training.health import Health
from matpac.training.history import History, LivePlots
from matpac.training.log import Log
from matpac.training.loop import OnHost, Report
from matpac.training.references import Comparison, read_references
from matpac.training.schedules import Durations, knobs_at

DURATIONS = Durations(total=100, warmup=2, teacher_temperature=4)


class NoPlots(LivePlots):
    def __init__(self):
        self._live = None


class OnTheWay(OnHost):
    """Results that the device has not computed yet; `read` would wait for them."""

    def has_arrived(self):
        return False


@pytest.fixture
def log(project):
    params = load_params(project / "presets/demo.yaml")
    return Log(History([], []), params, DURATIONS, NoPlots(), flops_per_crop=1.0, first_update=0)


def report_of(log, update, kind):
    probs, nothing = torch.full((2, 5, 8), 1 / 8), torch.zeros(1)
    health = Health.start(torch.zeros(8))
    latents = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(update))
    health.watch_(Views(latents, latents, nothing, nothing, nothing), probs)
    results = [torch.ones(3), torch.tensor(2.0), torch.tensor(True), torch.zeros(1)]
    knobs = knobs_at(update, DURATIONS, log.params.pretrain)
    return Report(update, knobs, kind(results), kind(list(vars(health).values())))


def logged(log):
    return [row["step"] for row in log.history.updates]


def test_a_row_is_made_at_once_if_the_device_is_done(log):
    log.add_update(report_of(log, 0, OnHost), 0.0)
    assert logged(log) == [0]
    assert log.history.updates[0]["grad_norm"] == 2.0


def test_a_row_waits_for_the_next_update_if_the_device_is_not_done(log):
    log.add_update(report_of(log, 0, OnTheWay), 0.0)
    assert logged(log) == []
    log.add_update(report_of(log, 1, OnTheWay), 0.0)
    assert logged(log) == [0]
    log.make_row()
    log.make_row()
    assert logged(log) == [0, 1]


def test_a_run_that_leaves_its_reference_is_warned_of_once(log, capsys):
    [reference] = [one for one in read_references() if one.name == "demo"]
    params, total = log.params, reference.about.total_updates
    suspects = {"pretrain.peak_learning_rate": (0.01, 0.001)}

    def new_log(history):
        comparison = Comparison(reference, suspects, total, same_online=False)
        durations = DURATIONS._replace(total=total)
        return Log(
            history, params, durations, NoPlots(), flops_per_crop=1.0, first_update=0, comparison=comparison
        )

    one = new_log(History([], []))
    for update in range(0, 60, 10):  # Latents of noise, and a prediction loss of 1 throughout.
        one.add_update(report_of(one, update, OnHost), 0.0)
    [said] = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert said.startswith("WARNING: this run has left its reference: ")
    assert said.endswith("pretrain.peak_learning_rate is 0.01, reference 0.001.")

    resumed = new_log(one.history)
    resumed.add_update(report_of(one, 60, OnHost), 0.0)
    assert "WARNING" not in capsys.readouterr().err
