"""Curves of score against compute: on points made from a known curve, and on the page that is shipped."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scaling import (
    AUDIOSET_CLIPS,
    PAGE,
    REACH,
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
    recipe_of,
    scaling_lines,
)
from matpac.params import load_params
from matpac.training.cost import GPUS, SHARE_OF_PEAK, crops_of, flops_of

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


def test_the_bootstrap_holds_the_curve_and_is_wider_ahead_than_among_the_runs():
    fit = fit_curve(BUDGETS, points(0.05 * BUDGETS**-0.3, spread=0.01), RANDOM)
    low, high = interval(predict(fit, BUDGETS[[3]]))
    assert low < predict(fit, BUDGETS[[3]])[0, 0] < high
    far_low, far_high = interval(predict(fit, 10 * BUDGETS[-1:]))
    assert 0 < high - low < far_high - far_low


@pytest.mark.parametrize(("number", "forms"), [(4, {"power law", "logarithm"}), (5, {"saturating"})])
def test_few_budgets_allow_few_coefficients(number, forms):
    fit = fit_curve(BUDGETS[:number], points(0.05 * BUDGETS[:number] ** -0.3), RANDOM)
    assert forms <= fit.left_out.keys()
    assert ("saturating" in fit.left_out) == (number > 4)
    assert fit_curve(BUDGETS[:3], points(BUDGETS[:3]), RANDOM) is None


def some_rows():
    return [
        Row(
            *("matpac_small_compute", size, 5 * 2**index, 1000, 0.1, float(budget), seed),
            *("test", "notes", 0.8 + 0.02 * index, 0.7, 0.75),
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
    text = "\n".join(scaling_lines(some_rows()))
    assert "small at 0.0607 PFLOP" in text
    # 55,451 PFLOP of the paper's run over 0.1214.
    assert "These curves end at 0.1214 PFLOP, and nothing beyond 4 times that is claimed" in text
    assert "460,000 times as many" in text
    [curve] = curves_of(some_rows())
    assert (curve.size, len(curve.others)) == ("tiny", 2)
    assert b"<svg" in draw([curve])
    assert "found 3" in "\n".join(scaling_lines([row for row in some_rows() if row.pflop < 0.05]))


def test_scores_on_validation_clips_have_rows_and_a_curve_of_their_own():
    ours = [row for row in some_rows() if row.size == "tiny"]
    theirs = [row._replace(score_on="validation", score=row.score - 0.1) for row in ours]
    on_test, on_validation = curves_of([*ours, *theirs])
    assert (on_test.dataset, on_validation.dataset) == ("notes", "notes on VALIDATION clips")
    assert np.ravel(on_validation.scores) == pytest.approx(np.ravel(on_test.scores) - 0.1)
    lines = scaling_lines([*ours, *theirs])
    [row] = [line for line in lines if line.startswith("| notes on VALIDATION clips | tiny | 5 |")]
    assert row.split("|")[5:7] == [" 2 ", " 70.0 "]


def test_a_run_with_other_settings_is_no_seed_of_the_recipe(tmp_path):
    preset = load_params(Path("presets/matpac_small_compute.yaml"))
    longer = {"num_epochs": 80.0, "warmup_epochs": 4.0, "teacher_temperature_epochs": 10.0, "seed": 1}
    longer = preset.model_copy(update={"pretrain": preset.pretrain.model_copy(update=longer)})
    assert recipe_of(longer) == recipe_of(preset) == "matpac_small_compute"
    assert recipe_of(load_params(Path("presets/instruments.yaml"))) == "instruments"
    mixed = preset.model_copy(update={"pretrain": preset.pretrain.model_copy(update={"mixup": 0.25})})
    path = tmp_path / "runs.csv"
    path.write_text(",".join(Row._fields) + "\n")
    row = some_rows()[0]
    add_rows(path, [row, row._replace(recipe=recipe_of(mixed), score=0.99)])
    assert [one.pflop.tolist() for one in curves_of(read_rows(path))] == [[row.pflop]] * 2
    assert {one.dataset for one in curves_of(read_rows(path))} == {"notes", f"notes, {recipe_of(mixed)}"}


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
