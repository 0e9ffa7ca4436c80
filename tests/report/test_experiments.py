from shutil import copytree

import pytest

from matpac.files import read_json, write_json
from matpac.params import BEFORE, parse_params
from matpac.probing.scores import DETAILS, more_than_chance, repeat_scores
from matpac.report.experiments import (
    Experiment,
    Result,
    difference,
    flat,
    is_other,
    read_experiments,
    record_run,
    repeats_of,
)
from matpac.report.tables import table_2, what_differs


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


def test_a_record_that_is_older_than_a_key_did_what_was_done_before(copy, params):
    record_run(copy, params)
    new = read_experiments(copy / "data/experiments")
    for path in (copy / "data/experiments").glob("*.json"):
        raw = read_json(path)
        for key in BEFORE:
            raw["settings"].pop(f"pretrain.{key}", None)
        write_json(path, raw)
    assert read_experiments(copy / "data/experiments") == new


def test_a_run_takes_the_place_of_its_record_from_before_a_key(copy, params):
    folder = copy / "data/experiments"
    record_run(copy, params)
    ours, _ = records(copy)
    older = {key: value for key, value in ours["settings"].items() if key != "pretrain.teacher_follows"}
    scores = {"data": "same", "repeats": [0.0, 0.0]}
    results = {"notes": scores, "no longer probed": scores}
    for path in folder.glob("*.json"):
        if read_json(path) == ours:
            path.unlink()
    write_json(folder / "0.json", ours | {"settings": older | {"probe.knn": 20}, "results": results})
    record_run(copy, params)
    [found] = [one for one in read_experiments(folder) if one.settings == ours["settings"]]
    assert found.results["notes"] == Result(**ours["results"]["notes"])
    assert set(found.results) == {"notes", "tags", "no longer probed"}


def test_a_run_keeps_what_the_same_settings_were_probed_on_before(copy, params):
    record_run(copy, params)
    ours, other = records(copy)
    assert set(ours["results"]) == set(other["results"]) == {"notes", "tags"}
    assert other["settings"]["encoder.module"] == "hear_ast"
    assert not any(key.startswith("pretrain.") for key in other["settings"])
    details = read_json(copy / f"data/scores/notes{DETAILS}")
    for record, name in ((ours, "pretrained"), (other, "ast")):
        assert record["results"]["notes"]["repeats"] == repeat_scores(details["features"][name]["scores"])
    raw = params.model_dump(mode="json")
    raw["probe"]["datasets"] = ["notes"]
    record_run(copy, parse_params(raw))
    assert records(copy) == [ours, other]
    # Another training is another record of ours; the other encoder's is the same as before.
    raw["pretrain"]["alpha"] = 0.25
    record_run(copy, parse_params(raw))
    assert len(read_experiments(copy / "data/experiments")) == 3


@pytest.mark.parametrize(("field", "value"), [("module", "hear_b"), ("model", "b.pt"), ("digest", "cafe")])
def test_another_encoder_of_the_same_name_does_not_take_the_place_of_the_first(copy, params, field, value):
    record_run(copy, params)
    _, first = records(copy)
    for name in ("notes", "tags"):
        path = copy / f"data/scores/{name}{DETAILS}"
        details = read_json(path)
        details["others"]["ast"][field] = value
        details["features"]["ast"]["scores"] = [[0.25], [0.75]]
        write_json(path, details)
    record_run(copy, params)
    ours, *others = records(copy)
    assert len(others) == 2
    assert first in others
    experiments, settings = read_experiments(copy / "data/experiments"), ours["settings"]
    labels = [row[0] for row in table_2(experiments, settings, params).rows if row[1] == "measured here"]
    assert f"ast, encoder.{field} {value}" in labels
    assert len({*labels} - {"minus this run"}) == 2


def test_other_initial_weights_at_the_same_path_are_another_run(copy, params):
    raw = params.model_dump(mode="json")
    raw["pretrain"]["init"] = "weights.pt"
    meta = copy / "data/checkpoints/pretrained/meta.json"
    for init_digest in ("a" * 64, "b" * 64):
        write_json(meta, read_json(meta) | {"init_digest": init_digest})
        record_run(copy, parse_params(raw))
    first, second, _ = (record["settings"] for record in records(copy))
    assert {first["pretrain.init_digest"], second["pretrain.init_digest"]} == {"a" * 16, "b" * 16}
    assert what_differs(first, second) == f"pretrain.init_digest {first['pretrain.init_digest']}"


@pytest.fixture
def copy(project, tmp_path):
    """Of the project's scores: records of one test are none of the next one's."""
    for part in ("scores", "shards", "checkpoints", "corpus.json"):
        source, target = project / "data" / part, tmp_path / "data" / part
        copytree(source, target) if source.is_dir() else write_json(target, read_json(source))
    return tmp_path


def records(root):
    """Ours before those of other encoders."""
    found = [read_json(path) for path in sorted((root / "data/experiments").glob("*.json"))]
    return sorted(found, key=lambda one: is_other(one["settings"]))
