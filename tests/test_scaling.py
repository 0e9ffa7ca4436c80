"""Curves of score against compute: on points made from a known curve, and on the page that is shipped."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scaling import (
    AUDIOSET_CLIPS,
    PAGE,
    REACH,
    RECIPE,
    RUNS,
    Row,
    add_rows,
    between,
    cost_lines,
    curves_of,
    draw,
    fit_curve,
    interval,
    predict,
    read_rows,
    rows_of,
    scaling_lines,
)
from matpac.files import seal, write_json
from matpac.params import load_params, parse_params
from matpac.report.experiments import Result, add, settings_of
from matpac.shards.corpus import fingerprint
from matpac.training.cost import GPUS, SHARE_OF_PEAK, crops_of, flops_of
from tests.report.conftest import write_shards

BUDGETS = np.array([0.0076, 0.0152, 0.0304, 0.0607, 0.1214, 0.2428])
RANDOM = np.random.default_rng(0)


def points(error, spread=0.0, num_seeds=3):
    random = np.random.default_rng(1)
    return [1 - one + spread * random.normal(size=num_seeds) for one in error]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ("power law", 0.05 * BUDGETS**-0.3),
        ("saturating", 0.08 + 0.004 * BUDGETS**-0.9),
        ("logarithm", 0.10 - 0.02 * np.log(BUDGETS)),
    ],
)
def test_a_curve_is_recognised_and_goes_on_where_nothing_was_measured(form, error):
    fit = fit_curve(BUDGETS, points(error), RANDOM)
    assert fit.form == form
    ahead = REACH * BUDGETS[-1:]
    truth = {
        "power law": 1 - 0.05 * ahead**-0.3,
        "saturating": 1 - 0.08 - 0.004 * ahead**-0.9,
        "logarithm": 1 - 0.10 + 0.02 * np.log(ahead),
    }[form]
    assert predict(fit, ahead)[0] == pytest.approx(truth, abs=0.002)


def test_the_interval_holds_the_curve_and_is_wider_ahead_than_among_the_runs():
    fit = fit_curve(BUDGETS, points(0.05 * BUDGETS**-0.3, spread=0.01), RANDOM)
    low, high = interval(predict(fit, BUDGETS[[3]]))
    assert low < predict(fit, BUDGETS[[3]])[0, 0] < high
    far_low, far_high = interval(predict(fit, 10 * BUDGETS[-1:]))
    assert 0 < high - low < far_high - far_low


def test_budgets_with_one_seed_are_as_uncertain_as_seeds_are_elsewhere():
    scores = points(0.05 * BUDGETS**-0.3, spread=0.01)
    spread = np.sqrt(np.mean([one.var(ddof=1) for one in scores[:3]]))
    fit = fit_curve(BUDGETS, [*scores[:3], *(one[:1] for one in scores[3:])], np.random.default_rng(0))
    low, high = interval(predict(fit, BUDGETS[[5]]))
    # The curve at its end hangs on its last points, which have one seed each.
    assert 0.5 * spread < (high - low) / (2 * 1.96) < spread


def test_no_curve_promises_more_than_everything():
    fit = fit_curve(BUDGETS, points(0.01 - 0.02 * np.log(BUDGETS)), RANDOM)
    assert predict(fit, np.array([1e6]))[0, 0] == 1


@pytest.mark.parametrize(("number", "forms"), [(4, {"power law", "logarithm"}), (5, {"saturating"})])
def test_few_budgets_allow_few_coefficients(number, forms):
    fit = fit_curve(BUDGETS[:number], points(0.05 * BUDGETS[:number] ** -0.3), RANDOM)
    assert forms <= fit.left_out.keys()
    assert ("saturating" in fit.left_out) == (number > 4)
    assert fit_curve(BUDGETS[:3], points(BUDGETS[:3]), RANDOM) is None


def some_rows():
    return [
        Row(
            *(size, 5 * 2**index, 1000, 0.1, float(budget), seed),
            *("notes", 0.8 + 0.02 * index, 0.7, 0.75),
        )
        for size, indices in (("tiny", range(5)), ("small", [3]))
        for index, budget in enumerate(BUDGETS[:5])
        if index in indices
        for seed in range(2)
    ]


def test_a_run_that_is_added_twice_stands_once(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(",".join(Row._fields) + "\n")
    rows = some_rows()
    add_rows(path, rows)
    add_rows(path, [rows[0]._replace(score=0.9)])
    found = read_rows(path)
    assert len(found) == len(rows)
    assert sorted(found) == sorted([rows[0]._replace(score=0.9), *rows[1:]])


def test_other_sizes_are_laid_beside_the_curve_and_nothing_is_claimed_far_beyond_it():
    larger = some_rows()[-1]._replace(pflop=0.2)
    text = "\n".join(scaling_lines([*some_rows(), larger]))
    assert "small at 0.0607 PFLOP" in text
    # 55,451 PFLOP of the paper's run over 0.1214.
    assert "These curves end at 0.1214 PFLOP, and nothing beyond 4 times that is claimed" in text
    assert "460,000 times as many" in text
    [curve] = curves_of(some_rows())
    assert (curve.size, len(curve.others)) == ("tiny", 2)
    assert b"<svg" in draw([curve])
    assert "found 3" in "\n".join(scaling_lines([row for row in some_rows() if row.pflop < 0.05]))


@pytest.fixture
def project(tmp_path):
    """Shards of all datasets of the recipe, 32 clips each, and params.yaml with the recipe."""
    params = load_params(RECIPE)
    for name in params.datasets:
        write_shards(tmp_path / "data/shards" / name, params, 32)
    (tmp_path / "params.yaml").write_text(RECIPE.read_text())
    (tmp_path / "data/experiments").mkdir()
    return tmp_path


def record_(project, change=lambda raw: None):
    raw = load_params(RECIPE).model_dump(mode="json")
    change(raw)
    params, shards = parse_params(raw), project / "data/shards"
    corpus = {"datasets": {name: fingerprint(shards / name) for name in params.pretrain.datasets}}
    result = Result("f00d", [0.8, 0.9], {"random_init": [0.7], "logmel_statistics": [0.6]})
    add(project / "data/experiments", settings_of(params, corpus, {}), "fsdd", result)


def test_the_runs_of_a_project_that_follow_the_recipe_are_rows(project):
    record_(project)
    record_(project, lambda raw: raw["pretrain"].update(num_epochs=80.0, warmup_epochs=4.0, seed=1))
    record_(project, lambda raw: raw["model"].update(size="small"))
    # Other recipes, and scores on other clips, are no seeds of it.
    record_(project, lambda raw: raw["pretrain"].update(mixup=0.25))
    record_(project, lambda raw: raw["probe"].update(score_on="validation"))
    found = sorted(rows_of(project), key=lambda row: row.pflop)
    # Four datasets of 32 clips: 128 crops an epoch, in two batches.
    assert [(row.size, row.seed, row.crops) for row in found] == [
        ("tiny", 0, 64 * 80),
        ("tiny", 1, 64 * 160),
        ("small", 0, 64 * 80),
    ]
    assert [found[0].score, found[0].untrained, found[0].statistics] == pytest.approx([0.85, 0.7, 0.6])
    per_crop = flops_of(load_params(RECIPE)).total
    assert found[0].gflop_a_crop == pytest.approx(per_crop / 1e9, rel=1e-3)
    assert found[0].pflop == pytest.approx(64 * 80 * per_crop / 1e15, rel=1e-3)


def test_a_project_without_such_runs_is_told_how_to_make_them(project):
    record_(project, lambda raw: raw["pretrain"].update(mixup=0.25))
    with pytest.raises(ValueError, match=r"found none\. Copy it .* `python -m flows\.grid budget`"):
        rows_of(project)


def test_runs_on_other_recordings_than_there_are_now_are_refused(project):
    record_(project)
    write_json(project / "data/shards/fsdd/statistics.json", {"mean": 0.0})
    seal(project / "data/shards/fsdd")
    with pytest.raises(ValueError, match="fsdd: need the recordings of all recorded runs, found others"):
        rows_of(project)


def test_budgets_stand_in_the_order_of_numbers(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(",".join(Row._fields) + "\n")
    add_rows(path, [some_rows()[0]._replace(pflop=pflop) for pflop in (10.2, 2.5)])
    assert [row.pflop for row in read_rows(path)] == [2.5, 10.2]


def test_the_page_is_what_its_command_writes():
    text = PAGE.read_text(encoding="utf-8")
    assert between(text, "cost", cost_lines()) == text, "run `python -m benchmarks.scaling`"
    assert between(text, "scaling", scaling_lines(read_rows(RUNS))) == text, (
        "run `python -m benchmarks.scaling`"
    )


def test_the_papers_run_costs_what_a_pencil_says():
    """2,012,615 / 2,048 * 300 = 294,816 updates; 5.54e19 / (0.6 * 989e12) s = 25.9 h for products alone."""
    params = load_params(Path("presets/paper.yaml"))
    assert crops_of(params, AUDIOSET_CLIPS) == 294_816 * 2_048 == 603_783_168
    whole = 603_783_168 * flops_of(params).total
    assert whole == pytest.approx(5.54e19, rel=0.002)
    products = whole / (SHARE_OF_PEAK * 1e12 * GPUS["h100"].bfloat16_tflops) / 3600
    assert products == pytest.approx(25.9, abs=0.1)
    # Table: 41.5 h on an H100; what is left are transfers, 3.35 / 4.8 as long on an H200.
    [row] = [line for line in cost_lines() if line.startswith("| `paper`")]
    h100, h200 = (float(row.split("|")[column]) for column in (6, 8))
    assert h200 - products == pytest.approx((h100 - products) * 3.35 / 4.8, abs=0.1)
