"""Made-up experiments around the shipped parameters, and what the tables say of them."""

import csv
import io
from pathlib import Path

import pytest
import yaml

from matpac.files import write_json
from matpac.params import load_params
from matpac.report.experiments import Experiment, Result, settings_of
from matpac.report.paper import csv_of, drawing, html_of, paper
from matpac.report.tables import figure_2, printed, table_1, table_2, table_3, what_differs

DEMO = ("demo_melodies", "demo_rhythms", "demo_scenes")


@pytest.fixture(scope="module")
def params():
    return load_params(Path("presets/demo.yaml"))


@pytest.fixture(scope="module")
def paper_params():
    return load_params(Path("presets/paper.yaml"))


def experiment(params, scores, datasets=DEMO, **changes):
    settings = settings_of(params, {"datasets": {"x": "f00d"}}, {}) | {
        key.replace("__", "."): value for key, value in changes.items()
    }
    return Experiment(settings, {name: Result("same", scores) for name in datasets})


def rows_of(table):
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def of(rows, label, source="ours"):
    [row] = [row for row in rows if next(iter(row.values())) == label and row["Source"] == source]
    return row


def test_printed_means_are_those_of_printed_scores():
    known = printed()
    for row in known["table_2"]:
        # PaSST's is printed as 76.7, which is 0.09 more.
        assert sum(row["scores"]) / 7 == pytest.approx(row["mean"], abs=0.1), row["row"]
    without = next(row for row in known["table_2"] if "without" in row["row"])
    assert known["table_3"]["rows"][1.0]["all"] == without["mean"]


@pytest.mark.parametrize(
    ("grid", "axis"), [("alpha", "table_3"), ("clusters", "figure_2")], ids=["alpha", "clusters"]
)
def test_the_grids_run_what_the_paper_prints(grid, axis):
    [values] = yaml.safe_load(Path(f"presets/grids/{grid}.yaml").read_text()).values()
    assert values == list(printed()[axis]["rows"])


def test_table_3_has_every_weight_and_names_those_that_were_not_run(params):
    this = experiment(params, [0.50, 0.60, 0.70])
    quarter = experiment(params, [0.53, 0.62, 0.74], pretrain__alpha=0.25)
    table = table_3([this, quarter], this.settings, params)
    rows = rows_of(table)
    assert of(rows, "0.75", "MATPAC, Table III")["All"] == "74.4"
    assert of(rows, "0.75")["Mean of these"] == of(rows, "1")["demo_scenes"] == "not run"
    assert of(rows, "0.25")["demo_scenes"] == "63.0 ± 26.2"
    assert of(rows, "0.25")["Music"] == "not run"
    # Worked out in test_experiments.py: far less than either interval, since repeats are pairs.
    assert of(rows, "minus this run")["demo_scenes"] == "+3.0 ± 2.5 *"
    assert "Not run: 0.75; 1. To run what is missing: `python -m flows.grid alpha`." in table.notes


def test_runs_that_differ_in_more_than_the_weight_are_not_in_table_3(params):
    this = experiment(params, [0.5, 0.6])
    longer = experiment(params, [0.7, 0.8], pretrain__alpha=0.25, pretrain__num_epochs=300)
    assert of(rows_of(table_3([this, longer], this.settings, params)), "0.25")["demo_scenes"] == "not run"


def test_a_weight_that_the_paper_does_not_print_has_a_row_too(params):
    this = experiment(params, [0.5, 0.6])
    other = experiment(params, [0.5, 0.7], pretrain__alpha=0.0)
    row = of(rows_of(table_3([this, other], this.settings, params)), "0")
    assert row["demo_scenes"] == "60.0 ± 127.1"


def test_table_2_lays_every_run_beside_the_printed_ones(params):
    this = experiment(params, [0.5, 0.6])
    without = experiment(params, [0.4, 0.5], pretrain__alpha=1.0)
    other = experiment(params, [0.7, 0.7], model__size="base", pretrain__num_epochs=300)
    table = table_2([other, without, this], this.settings, params)
    rows = rows_of(table)
    assert of(rows, "MATPAC, n_tau 10", "MATPAC, Table II")["US8K"] == "89.4"
    assert of(rows, "this run")["demo_melodies"] == "55.0 ± 63.5"
    assert of(rows, "this run")["ESC-50"] == "not run"
    assert of(rows, "n_tau 20")["demo_melodies"] == "not run"
    assert of(rows, "alpha 1.0")["demo_melodies"] == "45.0 ± 63.5"
    assert of(rows, "model.size base, pretrain.num_epochs 300")["demo_melodies"] == "70.0 ± 0.0"
    assert table.notes[-1].startswith("Not run: n_tau 10; n_tau 20.")


def test_scores_on_other_recordings_are_not_laid_beside_ours(params):
    this = experiment(params, [0.5, 0.6])
    other = experiment(params, [0.7, 0.8], pretrain__alpha=1.0)
    other.results["demo_scenes"] = Result("other", [0.7, 0.8])
    row = of(rows_of(table_2([this, other], this.settings, params)), "alpha 1.0")
    assert (row["demo_scenes"], row["Mean of these"], row["demo_rhythms"]) == (
        "other data",
        "other data",
        "75.0 ± 63.5",
    )


def test_datasets_of_the_paper_stand_in_its_columns(paper_params):
    this = experiment(paper_params, [0.5, 0.5], datasets=paper_params.probe.datasets)
    table = table_2([this], this.settings, paper_params)
    row = of(rows_of(table), "this run")
    assert list(row)[2:] == ["OpenMIC", "NSynth", "GTZAN", "MTT", "FSD50K", "ESC-50", "US8K", "Mean"]
    assert set(list(row.values())[2:]) == {"50.0 ± 0.0"}
    # The paper's n_tau is 10: no row asks for it twice.
    assert [row["Encoder"] for row in rows_of(table)][-3:] == ["this run", "n_tau 20", "alpha 1.0"]


def test_another_corpus_is_told_from_another_setting(params):
    this = experiment(params, [0.5, 0.6])
    assert what_differs(this.settings | {"corpus.x": "cafe"}, this.settings) == "other recordings"
    assert (
        what_differs(this.settings | dict.fromkeys("abcd", 1), this.settings) == "a 1, b 1, c 1, and 1 more"
    )


def test_table_1_says_what_is_on_the_disk(tmp_path, paper_params):
    folder = tmp_path / "esc50"
    write_json(folder / "statistics.json", {"num_clips": 1990, "duration_s": 9950.0})
    task = {"classes": ["a", "b"], "multi_label": False, "metric": "accuracy", "num_folds": 5}
    write_json(folder / "task.json", task)
    table = table_1(tmp_path, paper_params)
    used = "a look while training and probing"
    assert ["esc50", used, "1,990", "2,000", "2.76", "2", "accuracy", "5-fold"] in table.rows
    openmic = next(row for row in table.rows if row[0] == "openmic")
    assert openmic[2:6] == ["not here", "20,000", "not here", "20"]


def test_figure_2_is_drawn_from_two_numbers_of_classes_on(params):
    this = experiment(params, [0.5, 0.6])
    more = experiment(params, [0.6, 0.7], model__num_clusters=2048)
    assert drawing([this], this.settings, params) is None
    assert drawing([this, more], this.settings, params).startswith(b"<?xml")
    labels = [row["Classes K"] for row in rows_of(figure_2([this, more], this.settings, params))]
    assert labels == ["64 (this run)", "1024", "2048", "minus this run", "4096", "8192"]


def test_page_and_files_have_the_same_cells(tmp_path, params):
    this = experiment(params, [0.5, 0.6])
    more = experiment(params, [0.6, 0.7], model__num_clusters=2048)
    page = paper(tmp_path / "shards", tmp_path, [this, more], this.settings, params)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "figure_2.csv",
        "figure_2.svg",
        "table_1.csv",
        "table_2.csv",
        "table_3.csv",
    ]
    table = figure_2([this, more], this.settings, params)
    assert list(csv.reader(io.StringIO(csv_of(table)))) == [table.header, *table.rows]
    assert html_of(table) in page
    assert page.count("+10.0 ± 0.0 *") == (tmp_path / "figure_2.csv").read_text().count("+10.0 ± 0.0 *") * 2
