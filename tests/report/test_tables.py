"""Made-up experiments around the shipped parameters, and what the tables say of them."""

import csv
import io
from pathlib import Path

import pytest
import yaml

from matpac.files import write_json
from matpac.grids import epochs_at_equal_compute
from matpac.params import load_params
from matpac.report.columns import printed
from matpac.report.experiments import Experiment, Result, settings_of
from matpac.report.paper_section import csv_of, draw_figure_2, paper_section
from matpac.report.rows import what_differs
from matpac.report.tables import figure_2, named_settings, table_1, table_2, table_3
from matpac.shards.corpus import fingerprint
from tests.pages import parse
from tests.pages import rows_of as rows_of_page
from tests.report.conftest import write_shards

WITHOUT = "1, without classification"
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
    assert of(rows, "0.75")["Mean of these"] == of(rows, WITHOUT)["demo_scenes"] == "not run"
    assert of(rows, "0.25")["demo_scenes"] == "63.0 ± 26.2"
    assert of(rows, "0.25")["Music"] == "not run"
    # Worked out in test_seeds.py: far less than either interval, since repeats are pairs.
    assert of(rows, "minus this run")["demo_scenes"] == "+3.0 ± 2.5 *"
    missing = "alpha 0.75; without classification, alpha 1"
    assert table.notes[0] == f"Not run: {missing}. To run: `python -m flows.grid alpha`."


def test_a_table_has_begun_when_a_run_beside_this_one_or_a_dataset_of_the_paper_is_there(
    params, paper_params
):
    this = experiment(params, [0.5, 0.6])
    quarter = experiment(params, [0.5, 0.6], pretrain__alpha=0.25)
    tables = (table_2, table_3, figure_2)
    assert [table([this], this.settings, params).begun for table in tables] == [False, False, False]
    assert [table([this, quarter], this.settings, params).begun for table in tables] == [True, True, False]
    gtzan = experiment(paper_params, [0.5, 0.5], datasets=["gtzan"])
    assert [table([gtzan], gtzan.settings, paper_params).begun for table in tables] == [True, False, False]


def at_equal_compute(changed, params, shards):
    """Epochs with which changed parameters cost as much, for `experiment`."""
    return {
        key.replace(".", "__"): value
        for key, value in epochs_at_equal_compute(changed, params, shards).items()
    }


def test_settings_with_names_have_a_table_with_their_compute(params, tmp_path):
    (tmp_path / "some.yaml").write_text(
        "equal_compute: true\n"
        "settings: {whole: {}, cheap: {pretrain.alpha: 1.0}, late: {pretrain.alpha: 0.1}}\n"
    )
    cheap = params.pretrain.model_copy(update={"alpha": 1.0})
    longer = at_equal_compute(params.model_copy(update={"pretrain": cheap}), params, tmp_path)
    ours = [experiment(params, [0.5, 0.6], pretrain__seed=seed) for seed in range(3)]
    theirs = [
        experiment(params, [0.51 + 0.01 * seed, 0.61], pretrain__alpha=1.0, pretrain__seed=seed, **longer)
        for seed in range(3)
    ]
    shorter = experiment(params, [0.9, 0.9], pretrain__alpha=1.0)
    assert named_settings(ours, ours[0].settings, params, tmp_path, tmp_path) == []
    [table] = named_settings([*ours, *theirs, shorter], ours[0].settings, params, tmp_path, tmp_path)
    rows = rows_of(table)
    assert [row["Setting"] for row in rows] == ["whole (this run)", "cheap", "minus this run", "late"]
    # By hand: seeds lead by 1, 1.5 and 2 points; Student's t 4.303 x 0.5 / sqrt(3) = 1.2.
    assert rows[2]["demo_scenes"] == "+1.5 ± 1.2 *"
    assert [row["Seeds"] for row in rows] == ["3", "3", "3", ""]
    assert float(rows[1]["Epochs"]) > float(rows[0]["Epochs"]) == params.pretrain.num_epochs
    per_crop = [float(row["Epochs"]) * float(row["GFLOP a crop"]) for row in rows[:2]]
    assert per_crop[1] == pytest.approx(per_crop[0], rel=0.01)
    assert rows[3]["demo_scenes"] == "not run"
    assert "Not run: late. To run: `python -m flows.grid some`." in table.notes


def test_a_setting_that_cannot_be_run_here_is_named_and_spoils_no_report(params, tmp_path):
    (tmp_path / "some.yaml").write_text(
        "equal_compute: true\n"
        "settings: {whole: {}, m2d: {model.mask_ratio: 0.7}, none: {model.mask_ratio: 0.99}}\n"
    )
    hidden = params.model.model_copy(update={"mask_ratio": 0.7})
    longer = at_equal_compute(params.model_copy(update={"model": hidden}), params, tmp_path)
    ours = experiment(params, [0.5, 0.6])
    theirs = experiment(params, [0.6, 0.7], model__mask_ratio=0.7, **longer)
    [table] = named_settings([ours, theirs], ours.settings, params, tmp_path, tmp_path)
    assert [row["Setting"] for row in rows_of(table)] == ["whole (this run)", "m2d", "minus this run"]
    assert table.notes[-1].startswith(
        "none is left out: presets/grids/some.yaml, none: model.mask_ratio: need"
    )


def test_settings_on_other_recordings_and_from_other_weights_are_found(params, tmp_path):
    params = with_pretrain(params, crop_frames=32)
    datasets, here = ("demo_corpus", "demo_scenes"), {"datasets": {"x": "f00d"}}
    (tmp_path / "some.yaml").write_text(
        "settings: {both: {pretrain.datasets: [demo_corpus, demo_scenes]}, init: {pretrain.init: a.pt}, "
        "elsewhere: {pretrain.datasets: [demo_melodies]}}\n"
    )
    shards = tmp_path / "shards"
    for name in datasets:
        write_shards(shards / name, params, 64)
    on_both, begun = with_pretrain(params, datasets=datasets), with_pretrain(params, init="a.pt")
    elsewhere = with_pretrain(begun, alpha=0.1)
    both = {"datasets": {name: fingerprint(shards / name) for name in datasets}}
    ours = experiment(params, [0.5, 0.6])
    found = [
        ours,
        recorded(settings_of(on_both, both, {}), 0.7, "2026-01-01"),
        recorded(settings_of(begun, here, {"init_digest": "old"}), 0.2, "2026-01-01"),
        recorded(settings_of(begun, here, {"init_digest": "new"}), 0.8, "2026-01-02"),
        recorded(settings_of(elsewhere, here, {"init_digest": "newer"}), 0.3, "2026-01-03"),
    ]
    [table] = named_settings(found, ours.settings, params, shards, tmp_path)
    scores = {row["Setting"]: row["demo_scenes"][:4] for row in rows_of(table)}
    assert (scores["both"], scores["init"]) == ("70.0", "80.0")
    assert table.notes[-1].startswith("elsewhere is left out: ")
    assert "need finished shards" in table.notes[-1]


def test_a_setting_with_other_shards_is_not_taken_for_this_run(params, tmp_path):
    (tmp_path / "some.yaml").write_text(
        "settings: {cheap: {pretrain.alpha: 1.0}, seed: {datasets.demo_corpus.seed: 7}, "
        "mel: {logmel.fmin_hz: 60}, raw: {shards.clips_per_shard: 3}}\n"
    )
    ours, cheap = experiment(params, [0.5, 0.6]), experiment(params, [0.6, 0.7], pretrain__alpha=1.0)
    [table] = named_settings([ours, cheap], ours.settings, params, tmp_path, tmp_path)
    assert [row["Setting"] for row in rows_of(table)] == ["this run", "cheap", "minus this run"]
    notes = [note.split(" (")[0] for note in table.notes[-3:]]
    assert notes == [f"{name} is left out: it changes how shards are made" for name in ("seed", "mel", "raw")]


def with_pretrain(params, **values):
    return params.model_copy(update={"pretrain": params.pretrain.model_copy(update=values)})


def recorded(settings, score, day):
    result = Result("same", [score, score], recorded=f"{day}T00:00:00+00:00")
    return Experiment(settings, {name: result for name in DEMO})


def test_a_file_that_is_no_grid_is_named_and_spoils_no_report(params, tmp_path):
    (tmp_path / "good.yaml").write_text("settings: {whole: {}, cheap: {pretrain.alpha: 1.0}}\n")
    (tmp_path / "typo.yaml").write_text("pretrain.alpha: [0.5\n")
    ours, theirs = experiment(params, [0.5, 0.6]), experiment(params, [0.6, 0.7], pretrain__alpha=1.0)
    good, typo = named_settings([ours, theirs], ours.settings, params, tmp_path, tmp_path)
    assert len(rows_of(good)) == 3
    [note] = typo.notes
    assert (typo.rows, typo.begun) == ([], True)
    assert note.startswith("Not read: ")
    assert "typo.yaml" in note


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
    assert of(rows, "without classification, alpha 1")["demo_melodies"] == "45.0 ± 63.5"
    assert of(rows, "model.size base, pretrain.num_epochs 300")["demo_melodies"] == "70.0 ± 0.0"
    assert table.notes[0] == "Not run: n_tau 10; n_tau 20. To run: `python -m flows.grid temperature`."


def test_baselines_stand_below_this_run_seed_by_seed(params):
    runs = []
    for seed, ours, untrained in ((0, 0.6, 0.31), (1, 0.7, 0.40), (2, 0.5, 0.19)):
        run = experiment(params, [ours, ours], pretrain__seed=seed)
        beside = {"random_init": [untrained, untrained], "logmel_statistics": [0.2, 0.3]}
        for name, result in run.results.items():
            run.results[name] = result._replace(baselines=beside)
        runs.append(run)
    one, three = (table_2(found, runs[0].settings, params) for found in (runs[:1], runs))
    first = [row[0] for row in three.rows].index("this run")
    shown = [
        (row[0], row[2], row[three.header.index("demo_scenes")]) for row in three.rows[first : first + 5]
    ]
    assert shown == [
        ("this run", "3", "60.0 ± 24.8"),
        ("untrained encoder", "3", "30.0 ± 26.2"),
        # Seed by seed -29, -30 and -31: 4.303 * 1 / sqrt(3).
        ("minus this run", "3", "-30.0 ± 2.5 *"),
        # Theirs is 25 whatever the seed: the interval of the difference is that of this run.
        ("log-mel statistics", "", "25.0 ± 63.5"),
        ("minus this run", "3", "-35.0 ± 24.8 *"),
    ]
    assert not any("Paired by repeats" in note for note in three.notes)
    assert any("not by seed: untrained encoder; log-mel statistics. A *" in note for note in one.notes)


def test_scores_on_other_recordings_are_not_laid_beside_ours(params):
    this = experiment(params, [0.5, 0.6])
    other = experiment(params, [0.7, 0.8], pretrain__alpha=1.0)
    other.results["demo_scenes"] = Result("other", [0.7, 0.8])
    table = table_2([this, other], this.settings, params)
    row = of(rows_of(table), "without classification, alpha 1")
    assert any("alpha 1: not probed on demo_scenes of today; `python" in note for note in table.notes)
    assert (row["demo_scenes"], row["Mean of these"], row["demo_rhythms"]) == (
        "other data",
        "other data",
        "75.0 ± 63.5",
    )


def test_datasets_of_the_paper_stand_in_its_columns(paper_params):
    this = experiment(paper_params, [0.5, 0.5], datasets=paper_params.probe.datasets)
    table = table_2([this], this.settings, paper_params)
    row = of(rows_of(table), "this run")
    assert list(row)[3:] == ["OpenMIC", "NSynth", "GTZAN", "MTT", "FSD50K", "ESC-50", "US8K", "Mean"]
    assert set(list(row.values())[3:]) == {"50.0 ± 0.0"}
    # The paper's n_tau is 10: no row asks for it twice.
    assert [row["Encoder"] for row in rows_of(table)][-3:] == [
        "this run",
        "n_tau 20",
        "without classification, alpha 1",
    ]


def test_another_corpus_is_told_from_another_setting(params):
    this = experiment(params, [0.5, 0.6])
    assert what_differs(this.settings | {"corpus.x": "cafe"}, this.settings) == "other recordings"
    assert (
        what_differs(this.settings | dict.fromkeys("abcd", 1), this.settings) == "a 1, b 1, c 1, and 1 more"
    )


def test_table_1_says_what_is_on_the_disk(tmp_path, paper_params):
    folder = tmp_path / "esc50"
    leak = "recording in several splits or folds: a.wav (fold 1) = b.wav (fold 2)"
    found = {"num_clips": 1990, "duration_s": 9950.0, "official_leaks": [leak]}
    write_json(folder / "statistics.json", found)
    task = {"classes": ["a", "b"], "multi_label": False, "metric": "accuracy", "num_folds": 5}
    write_json(folder / "task.json", task)
    table = table_1(tmp_path, paper_params)
    used = "k-NN while training, probing"
    assert ["esc50", used, "1,990", "2,000", "2.76", "2", "accuracy", "5-fold"] in table.rows
    openmic = next(row for row in table.rows if row[0] == "openmic")
    assert openmic[2:6] == ["not here", "20,000", "not here", "20"]
    assert table.notes[1:] == [f"The official split of esc50 is kept, though it has a {leak}."]


def test_figure_2_is_drawn_from_two_numbers_of_classes_on(params):
    this = experiment(params, [0.5, 0.6])
    more = experiment(params, [0.6, 0.7], model__num_clusters=2048)
    assert draw_figure_2([this], this.settings, params) is None
    assert draw_figure_2([this, more], this.settings, params).startswith(b"<?xml")
    labels = [row["Classes K"] for row in rows_of(figure_2([this, more], this.settings, params))]
    assert labels == ["64 (this run)", "1024", "2048", "minus this run", "4096", "8192"]


def test_page_and_files_have_the_same_cells(tmp_path, params):
    this = experiment(params, [0.5, 0.6])
    more = experiment(params, [0.6, 0.7], model__num_clusters=2048)
    page = paper_section(tmp_path / "shards", tmp_path, [this, more], this.settings, params)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "figure_2.csv",
        "figure_2.svg",
        "table_1.csv",
        "table_2.csv",
        "table_3.csv",
    ]
    table = figure_2([this, more], this.settings, params)
    assert list(csv.reader(io.StringIO(csv_of(table)))) == [table.header, *table.rows]
    shown = parse(f"<section>{page.body}</section>").findall("details")[3]
    assert shown.get("open") is not None
    assert rows_of_page(shown.find(".//table")) == table.rows
    assert shown.find(".//figure/img").get("src").startswith("data:image/svg+xml")


def test_runs_that_differ_in_the_seed_only_are_one_row_of_every_table(params):
    this = [experiment(params, [0.5 + seed / 100, 0.5], pretrain__seed=seed) for seed in range(3)]
    quarter = [
        experiment(params, [0.6 + seed / 100, 0.6], pretrain__alpha=0.25, pretrain__seed=seed)
        for seed in (0, 1, 2)
    ]
    more = [experiment(params, [0.6, 0.6], model__num_clusters=2048, pretrain__seed=seed) for seed in (0, 9)]
    known, settings = [*this, *quarter, *more], this[1].settings
    # Means of the seeds 50.0, 50.5, 51.0: 4.303 * 0.5 / sqrt(3).
    for table, label in ((table_2, "this run"), (table_3, "0.5 (this run)"), (figure_2, "64 (this run)")):
        rows = rows_of(table(known, settings, params))
        assert of(rows, label)["demo_scenes"] == "50.5 ± 1.2"
        assert of(rows, label)["Seeds"] == "3"
        assert not any("seed" in next(iter(row.values())) for row in rows)
    rows = rows_of(table_3(known, settings, params))
    assert of(rows, "0.25")["Seeds"] == of(rows, "minus this run")["Seeds"] == "3"
    assert of(rows, "minus this run")["demo_scenes"] == "+10.0 ± 0.0 *"
    rows = rows_of(figure_2(known, settings, params))
    assert (of(rows, "2048")["Seeds"], of(rows, "minus this run")["Seeds"]) == ("2", "1")
    assert all(row["Seeds"] == "" for row in rows if row["Source"] != "ours")


def test_a_cell_of_fewer_seeds_than_its_row_says_so(params):
    first = experiment(params, [0.5, 0.6], pretrain__seed=0)
    second = experiment(params, [0.5, 0.6], pretrain__seed=1, datasets=DEMO[:2])
    third = experiment(params, [0.5, 0.6], pretrain__seed=2)
    third.results["demo_rhythms"] = Result("other recordings", [0.0, 0.0])
    row = of(rows_of(table_2([first, second, third], first.settings, params)), "this run")
    assert row["demo_melodies"] == "55.0 ± 0.0"
    assert row["demo_scenes"] == row["demo_rhythms"] == "55.0 ± 0.0 (2 of 3 seeds)"
    assert row["Mean of these"] == "55.0 ± 63.5 (1 of 3 seeds)"


def test_the_note_says_where_a_star_speaks_of_the_probe_only(params):
    this = [experiment(params, [0.5, 0.6], pretrain__seed=seed) for seed in (0, 1)]
    quarter = [experiment(params, [0.6, 0.6], pretrain__alpha=0.25, pretrain__seed=seed) for seed in (0, 1)]
    half = table_3([*this, quarter[0]], this[0].settings, params).notes
    [note] = [note for note in half if "speaks of the probe only" in note]
    assert note.startswith("Paired by repeats of the probe, not by seed: alpha 0.25. ")
    assert note.endswith("`python -m flows.grid alpha --seeds 3`.")
    whole = table_3([*this, *quarter], this[0].settings, params).notes
    assert not any("speaks of the probe only" in note for note in whole)


def test_datasets_that_nobody_probed_are_named_with_the_edit_that_brings_them(params, paper_params):
    this = experiment(params, [0.5, 0.6])
    grid = [experiment(params, [0.5, 0.6], pretrain__alpha=alpha) for alpha in (0.25, 0.75, 1.0)]
    for table in (table_2, table_3):
        notes = table([this, *grid], this.settings, params).notes
        assert not any("flows.grid alpha`" in note for note in notes), "alpha is complete"
        [note] = [note for note in notes if note.startswith("Not probed")]
        assert note.startswith(
            "Not probed: openmic, nsynth, gtzan, magnatagatune, fsd50k, esc50, urbansound8k."
        )
        assert "`probe.datasets` in params.yaml and copy their entries from presets/paper.yaml" in note
    assert not any(note.startswith("Not probed") for note in table_2([], this.settings, paper_params).notes)


def test_a_row_that_was_not_probed_on_a_dataset_of_today_says_how_to_run_it_again(params):
    this = experiment(params, [0.5, 0.6])
    old = {"datasets": DEMO[:2]}
    runs = [
        experiment(params, [0.5, 0.6], pretrain__alpha=1.0, **old),
        experiment(params, [0.5, 0.6], pretrain__alpha=0.6, model__size="base", **old),
    ]
    text = " ".join(table_2([this, *runs], this.settings, params).notes)
    assert "alpha 1: not probed on demo_scenes of today; `python -m flows.grid alpha`." in text
    assert (
        "not probed on demo_scenes of today; `dvc exp run -S model.size=base -S pretrain.alpha=0.6 record`."
        in text
    )


def test_rows_of_different_revisions_are_told_apart(params):
    def made_by(revision, **changes):
        one = experiment(params, [0.5, 0.6], **changes)
        results = {
            name: result._replace(git_revision=revision, trained_revision=revision)
            for name, result in one.results.items()
        }
        return one._replace(results=results)

    this = made_by("aaa+")
    same = table_3([this, made_by("aaa", pretrain__alpha=0.25)], this.settings, params).notes
    assert not any("revisions" in note for note in same)
    known = [this, made_by("bbb", pretrain__alpha=0.25), made_by("", pretrain__alpha=0.75)]
    told = "bbb: alpha 0.25; aaa: this run; unknown: alpha 0.75."
    assert (
        f"Rows come from different revisions of the code. {told}"
        in table_3(known, this.settings, params).notes
    )
