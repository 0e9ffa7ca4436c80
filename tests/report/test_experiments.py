import csv
from datetime import UTC, datetime
from shutil import copytree, rmtree

import pytest

from matpac.files import read_json, write_json
from matpac.git import git_revision
from matpac.params import BEFORE, flat, parse_params
from matpac.probing.probe import probe
from matpac.probing.scores import DETAILS, repeat_scores
from matpac.report.experiments import KEPT, is_other, read_experiments, record_run
from matpac.report.page import write_report
from matpac.report.rows import what_differs
from matpac.report.tables import table_2
from tests.pages import parse, section


def test_settings_are_flat():
    assert flat({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


def test_a_record_of_another_format_is_refused_by_name(tmp_path):
    write_json(tmp_path / "old.json", {"format": 0})
    with pytest.raises(ValueError, match=r"old\.json: need an experiment of format 1, found 0"):
        read_experiments(tmp_path)


@pytest.mark.parametrize("text", ["{\n", "[1]", "\x00"])
def test_a_broken_record_is_named_in_one_line(tmp_path, text):
    (tmp_path / "cut.json").write_text(text)
    with pytest.raises(ValueError, match=r"cut\.json: need .* Remove the file") as error:
        read_experiments(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "missing", ["checkpoints/pretrained/meta.json", "corpus.json", f"scores/notes{DETAILS}"]
)
def test_a_record_of_an_unfinished_run_is_refused_with_what_to_run(copy, params, missing):
    (copy / "data" / missing).unlink()
    with pytest.raises(ValueError, match=rf"found no .*{missing}\. Run `dvc repro`\."):
        record_run(copy, params)


def test_a_run_that_probes_nothing_leaves_a_folder_that_says_what_it_is(copy, params):
    rmtree(copy / "data/experiments", ignore_errors=True)
    rmtree(copy / KEPT, ignore_errors=True)
    probe = params.probe.model_copy(update={"datasets": ()})
    record_run(copy, params.model_copy(update={"probe": probe}))
    assert [path.name for path in (copy / "data/experiments").iterdir()] == ["README.md"]


def test_a_record_says_when_and_by_which_code(copy, params):
    before = datetime.now(UTC).replace(microsecond=0)
    record_run(copy, params)
    ours, other = records(copy)
    for record in (ours, other):
        result = record["results"]["notes"]
        assert before <= datetime.fromisoformat(result["recorded"]) <= datetime.now(UTC)
        assert result["git_revision"] == git_revision()
    assert ours["results"]["notes"]["trained_revision"] == "abc123"
    assert other["results"]["notes"]["trained_revision"] == ""


def test_the_same_scores_keep_their_date_and_others_get_a_new_one(copy, params):
    record_run(copy, params)
    [path] = [
        path
        for path in (copy / "data/experiments").glob("*.json")
        if not is_other(read_json(path)["settings"])
    ]
    old = read_json(path)
    for name in ("notes", "tags"):
        old["results"][name]["recorded"] = "2001-01-01T00:00:00+00:00"
    old["results"]["tags"]["repeats"][0] += 0.01
    write_json(path, old)
    record_run(copy, params)
    new = read_json(path)["results"]
    assert new["notes"]["recorded"].startswith("2001")
    assert not new["tags"]["recorded"].startswith("2001")


def test_a_record_has_the_baselines_of_its_run(copy, params):
    record_run(copy, params)
    ours, other = records(copy)
    for dataset, result in ours["results"].items():
        features = read_json(copy / f"data/scores/{dataset}{DETAILS}")["features"]
        assert result["baselines"] == {
            name: repeat_scores(features[name]["scores"]) for name in ("random_init", "logmel_statistics")
        }
        assert other["results"][dataset]["baselines"] == {}


def test_a_record_from_before_baselines_gets_them_when_its_run_is_recorded_again(copy, params):
    record_run(copy, params)
    new = records(copy)
    for path in (copy / "data/experiments").glob("*.json"):
        raw = read_json(path)
        for result in raw["results"].values():
            del result["baselines"]
        write_json(path, raw)
    ours = new[0]["settings"]
    table = table_2(read_experiments(copy / "data/experiments"), ours, params)
    assert "untrained encoder" not in [row[0] for row in table.rows]
    record_run(copy, params)
    assert [one["results"]["notes"]["baselines"] for one in records(copy)] == [
        one["results"]["notes"]["baselines"] for one in new
    ]
    table = table_2(read_experiments(copy / "data/experiments"), ours, params)
    assert "untrained encoder" in [row[0] for row in table.rows]


def test_a_record_from_before_dates_is_read(copy, params):
    record_run(copy, params)
    for path in (copy / "data/experiments").glob("*.json"):
        raw = read_json(path)
        for result in raw["results"].values():
            for key in ("baselines", "recorded", "git_revision", "trained_revision"):
                del result[key]
        write_json(path, raw)
    found = [result for one in read_experiments(copy / "data/experiments") for result in one.results.values()]
    assert len(found) == 4
    assert {result.recorded + result.git_revision + result.trained_revision for result in found} == {""}


def test_a_record_that_is_older_than_a_key_did_what_was_done_before(copy, params):
    record_run(copy, params)
    new = read_experiments(copy / "data/experiments")
    for path in (copy / "data/experiments").glob("*.json"):
        raw = read_json(path)
        for key in BEFORE:
            raw["settings"].pop(f"pretrain.{key}", None)
        del raw["settings"]["probe.score_on"]
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
    # Scored anew: what was recorded before is gone, with its date.
    assert found.results["notes"]._asdict() == ours["results"]["notes"] | {
        "recorded": found.results["notes"].recorded
    }
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


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("pretrain.alpha", 0.25, "the checkpoint"),
        ("model.mask_ratio", 0.7, "the checkpoint"),
        ("probe.learning_rate", 0.5, "the scores of notes"),
    ],
)
def test_scores_are_not_recorded_under_parameters_that_were_edited_after_their_stage(
    copy, params, key, value, what
):
    meta = copy / "data/checkpoints/pretrained/meta.json"
    write_json(
        meta, read_json(meta) | params.model_dump(mode="json", include={"logmel", "model", "pretrain"})
    )
    record_run(copy, params)
    before = records(copy)
    raw = params.model_dump(mode="json")
    section, name = key.split(".")
    raw[section][name] = value
    with pytest.raises(ValueError, match=rf"need results of {key}: {value}, as in params.yaml; {what} was"):
        record_run(copy, parse_params(raw))
    assert records(copy) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [("probe.score_on", "validation"), ("probe.pooling", "mean_and_deviation"), ("pretrain.mixup", 0.5)],
)
def test_results_that_are_older_than_a_key_are_not_recorded_under_a_new_value(copy, params, key, value):
    section, name = key.split(".")
    raw = params.model_dump(mode="json")
    older = {
        part: {one: raw[part][one] for one in raw[part] if one != name} for part in ("pretrain", "probe")
    }
    files = ["checkpoints/pretrained/meta.json", *(f"scores/{one}{DETAILS}" for one in ("notes", "tags"))]
    for path, part in zip(files, ("pretrain", "probe", "probe"), strict=True):
        write_json(copy / "data" / path, read_json(copy / "data" / path) | {part: older[part]})
    record_run(copy, params)
    raw[section][name] = value
    with pytest.raises(ValueError, match=rf"need results of {key}: {value}, as in params.yaml"):
        record_run(copy, parse_params(raw))


def test_what_pre_training_heard_joins_an_older_record_with_the_same_scores(copy, params):
    record_run(copy, params)
    details = copy / f"data/scores/notes{DETAILS}"
    heard = {"heard": 3, "tested": 20, "unknown": []}
    raw = read_json(details)
    write_json(details, raw | {"summary": raw["summary"] | {"heard": heard}})
    record_run(copy, params)
    assert records(copy)[0]["results"]["notes"]["heard"] == heard


def on_validation(params):
    raw = params.model_dump(mode="json")
    raw["probe"]["score_on"] = "validation"
    return parse_params(raw)


def test_scores_on_validation_clips_are_not_recorded_as_scores_on_test_clips(copy, params):
    record_run(copy, params)
    before = records(copy)
    with pytest.raises(ValueError, match=r"need results of probe.score_on: validation, as in params.yaml"):
        record_run(copy, on_validation(params))
    assert records(copy) == before


def test_validation_scores_have_records_and_tables_of_their_own(project, copy, params):
    record_run(copy, params)
    on_test = records(copy)
    for dataset in ("notes", "tags"):
        folder = project / "data/embeddings" / dataset
        probe(dataset, folder, copy / f"data/scores/{dataset}.json", on_validation(params).probe)
    record_run(copy, on_validation(params))
    now = records(copy)
    assert len(now) == 4
    assert [one for one in now if one in on_test] == on_test
    assert {one["settings"]["probe.score_on"] for one in now} == {"test", "validation"}

    write_report(copy, copy / "report", on_validation(params))
    text = (copy / "report/index.html").read_text(encoding="utf-8")
    assert "no test clip entered a score" in text, "they are read: the map of embeddings draws them"
    page = parse(text)
    [warning, *_] = [part for part in section(page, "scores").iter("p") if part.get("class") == "warning"]
    assert "for choosing settings, not results" in "".join(warning.itertext())
    table = list(csv.DictReader((copy / "report/table_2.csv").read_text().splitlines()))
    ours = [row["Source"] for row in table if "MATPAC" not in row["Source"] and "here" not in row["Source"]]
    assert "ours, VALIDATION" in ours
    assert "ours" not in ours
    assert len([row for row in table if row["Encoder"] == "ast"]) == 1

    write_report(copy, copy / "report", params)
    assert "VALIDATION" not in (copy / "report/table_2.csv").read_text()


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
    assert len({*labels} - {"minus this run", "untrained encoder", "log-mel statistics"}) == 2


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


def test_records_that_dvc_took_away_come_back_with_the_next_run(copy, params):
    record_run(copy, params)
    ours, _ = records(copy)
    another = ours | {"settings": ours["settings"] | {"pretrain.alpha": 0.25}}
    write_json(copy / "data/experiments/another.json", another)
    record_run(copy, params)
    for path in (copy / "data/experiments").glob("*.json"):  # As by `dvc checkout` of an older commit.
        path.unlink()
    record_run(copy, params)
    assert len(records(copy)) == 3
    assert another in records(copy)


def test_records_from_elsewhere_are_added_and_the_later_of_two_results_stays(copy, params, tmp_path):
    record_run(copy, params)
    ours = records(copy)
    foreign = ours[0]["settings"] | {"pretrain.alpha": 0.25}
    dates = ("2001-01-01", "2999-01-01", "2500-01-01")
    files = [tmp_path / f"{date}.json" for date in dates]
    for file, date in zip(files, dates, strict=True):
        results = {"notes": {"data": "same", "repeats": [float(date[:4])], "recorded": date}}
        write_json(file, {"format": 1, "settings": foreign, "results": results})
    for _ in range(2):
        record_run(copy, params, files)
        [found] = [one for one in read_experiments(copy / "data/experiments") if one.settings == foreign]
        assert found.results["notes"].repeats == [2999.0]
    assert [record for record in records(copy) if record["settings"] != foreign] == ours


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
