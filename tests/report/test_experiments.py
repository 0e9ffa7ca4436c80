import pytest

from matpac.files import read_json, write_json
from matpac.probing.scores import more_than_chance
from matpac.report.experiments import (
    Experiment,
    Result,
    difference,
    flat,
    read_experiments,
    repeats_of,
)


def experiment(data="same", learning_rate=0.001, **repeats):
    results = {name: Result(data, values) for name, values in repeats.items()}
    return Experiment({"probe.learning_rate": learning_rate}, results)


def test_a_difference_is_taken_repeat_by_repeat():
    # Repeats vary by 10 percent, their differences by 1: 0.03, 0.02, 0.04.
    ours, base = experiment(a=[0.53, 0.62, 0.74]), experiment(a=[0.5, 0.6, 0.7])
    gap = difference(ours, base, ["a"])
    assert gap["mean"] == pytest.approx(0.03)
    # Student's t with two degrees of freedom: 4.303 * 0.01 / sqrt(3).
    assert gap["interval"] == pytest.approx(0.02484, abs=1e-5)
    assert more_than_chance(gap)
    assert not more_than_chance({"mean": -0.02, "interval": 0.02})


def test_the_mean_of_datasets_is_formed_in_each_repeat():
    assert repeats_of(experiment(a=[0.2, 0.4], b=[0.6, 0.6]), ["a", "b"]) == pytest.approx([0.4, 0.5])
    assert repeats_of(experiment(a=[0.2, 0.4]), ["a", "b"]) is None
    assert repeats_of(experiment(a=[0.2, 0.4], b=[0.1, 0.2, 0.3]), ["a", "b"]) is None


@pytest.mark.parametrize(
    "other", [experiment("other", a=[0.5, 0.6]), experiment(learning_rate=0.1, a=[0.5, 0.6]), experiment()]
)
def test_other_recordings_or_another_probe_make_no_pairs(other):
    assert difference(experiment(a=[0.5, 0.6]), other, ["a"]) is None


def test_settings_are_flat():
    assert flat({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


def test_a_record_of_another_format_is_refused_by_name(tmp_path):
    write_json(tmp_path / "old.json", {"format": 0})
    with pytest.raises(ValueError, match=r"old\.json: need an experiment of format 1, got 0"):
        read_experiments(tmp_path)


def test_a_run_keeps_what_the_same_settings_were_probed_on_before(project, params):
    from matpac.params import parse_params
    from matpac.report.experiments import record_run

    record_run(project, params)
    [path] = (project / "data/experiments").glob("*.json")
    whole = read_json(path)
    assert set(whole["results"]) == {"notes", "tags"}
    raw = params.model_dump(mode="json")
    raw["probe"]["datasets"] = ["notes"]
    record_run(project, parse_params(raw))
    assert read_json(path) == whole
    raw["pretrain"]["alpha"] = 0.25
    record_run(project, parse_params(raw))
    assert len(read_experiments(project / "data/experiments")) == 2
