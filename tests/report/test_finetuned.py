"""Scores of fine-tuning on the page and in the records."""

from shutil import copytree

import pytest

from matpac.files import read_json, write_json
from matpac.params import parse_params
from matpac.report.experiments import (
    is_finetuned,
    read_experiments,
    record_run,
    settings_of_finetuned,
)
from matpac.report.finetuned import finetuned_section
from matpac.report.page import write_report


@pytest.fixture
def run(project, tmp_path, params):
    """A project that was fine-tuned on one of its tasks, and its parameters."""
    raw = params.model_dump(mode="json")
    raw["finetune"]["datasets"] = ["notes"]
    copytree(project, tmp_path, dirs_exist_ok=True)
    params = parse_params(raw)
    finetuned(tmp_path, params, [[0.9], [0.8], [0.85]])
    return tmp_path, params


def finetuned(root, params, folds):
    mean = sum(map(sum, folds)) / len(folds)
    scores = {"metric": "accuracy", "mean": mean, "interval": 0.05, "chance": 0.5, "folds": folds}
    write_json(
        root / "data/finetuned/notes/classifier.json",
        {
            "scores": scores | {"protocol": "train/validation/test"},
            "origin": {"finetune": params.finetune.model_dump(mode="json"), "git_revision": "abc"},
        },
    )


def changed(params, **changes):
    return params.model_copy(update={"finetune": params.finetune.model_copy(update=changes)})


def test_scores_stand_beside_those_of_probes(run):
    root, params = run
    record_run(root, params)
    write_report(root, root / "report", params)
    page = (root / "report/index.html").read_text()
    table = page.partition('<h2 id="fine-tuned">')[2].partition("</section>")[0]
    details = read_json(root / "data/scores/notes.details.json")
    linear, knn = details["summary"]["pretrained"]["mean"], details["second_reading"]["knn"]["pretrained"]
    assert "85.0 ± 5.0" in table
    assert f"{100 * linear:.1f} ±" in table
    assert f"<span>{100 * knn['mean']:.1f}</span>" in table
    assert f"{100 * (0.85 - linear):+.1f}" in table
    assert "Other runs" not in table
    # The paper's tables are of probes.
    tables = "".join((root / f"report/{name}.csv").read_text() for name in ("table_2", "table_3", "figure_2"))
    assert "85.0" not in tables
    assert "finetune" not in tables


def test_earlier_runs_are_kept_and_told_apart(run):
    root, params = run
    record_run(root, params)
    again = changed(params, mixup=0.5)
    finetuned(root, again, [[0.7], [0.7], [0.7]])
    record_run(root, again)
    records = [one for one in read_experiments(root / "data/experiments") if is_finetuned(one.settings)]
    data = root / "data"
    meta, corpus = read_json(data / "checkpoints/pretrained/meta.json"), read_json(data / "corpus.json")
    found = finetuned_section(data, again, records, settings_of_finetuned(again, corpus, meta))
    table = found.body.partition("Other runs of fine-tuning")[2]
    assert table.index("this run") < table.index("70.0 ± 0.0") < table.index("finetune.mixup 0")
    assert "85.0 ± 12.4" in table
    assert (
        len([one for one in read_experiments(root / "data/experiments") if is_finetuned(one.settings)]) == 2
    )


def test_scores_of_other_settings_are_refused(run):
    root, params = run
    with pytest.raises(
        ValueError, match=r"record: need results of finetune.num_epochs: 5.*found|made with 60"
    ):
        record_run(root, changed(params, num_epochs=5))


def test_a_page_without_fine_tuning_has_no_such_section(project, params):
    assert finetuned_section(project / "data", params, [], {}) is None
