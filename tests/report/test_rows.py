"""Rows of several seeds of pre-training: cells and differences, worked out with scipy."""

import numpy as np
import pytest
from scipy import stats

from matpac.probing.scores import more_than_chance, with_star
from matpac.report.experiments import Experiment, Result, repeats_of
from matpac.report.rows import SEED, difference, score, seeds_of, without_seed


def experiment(data="same", learning_rate=0.001, **repeats):
    results = {name: Result(data, values) for name, values in repeats.items()}
    return Experiment({"probe.learning_rate": learning_rate}, results)


def seeds(*repeats, **settings):
    return {seed: experiment(a=values, **settings) for seed, values in enumerate(repeats)}


def test_a_cell_of_several_seeds_is_over_the_means_of_the_seeds():
    # Repeats of a seed lie close together, seeds do not.
    found = score(seeds([0.50, 0.52], [0.60, 0.62], [0.55, 0.57]), ["a"])
    means = [0.51, 0.61, 0.56]
    low, high = stats.t.interval(0.95, df=2, loc=np.mean(means), scale=stats.sem(means))
    assert found.num_seeds == 3
    assert found.score["mean"] == pytest.approx(0.56)
    assert found.score["mean"] - found.score["interval"] == pytest.approx(low)
    assert found.score["mean"] + found.score["interval"] == pytest.approx(high)


def test_a_cell_of_one_seed_is_over_its_repeats():
    found = score(seeds([0.5, 0.6, 0.7]), ["a"])
    assert found.num_seeds == 1
    assert found.score["interval"] == pytest.approx(stats.t.ppf(0.975, 2) * stats.sem([0.5, 0.6, 0.7]))


def test_a_difference_is_paired_by_the_seeds_that_both_have():
    ours = seeds([0.52, 0.54], [0.64, 0.64], [0.57, 0.59], [0.9, 0.9])
    base = seeds([0.50, 0.52], [0.60, 0.62], [0.55, 0.57])
    gap = difference(ours, base, ["a"])
    paired = stats.ttest_rel([0.53, 0.64, 0.58], [0.51, 0.61, 0.56])
    low, high = paired.confidence_interval(0.95)
    assert gap.num_seeds == 3
    assert gap.score["mean"] - gap.score["interval"] == pytest.approx(low)
    assert gap.score["mean"] + gap.score["interval"] == pytest.approx(high)
    assert paired.pvalue < 0.05
    assert more_than_chance(gap.score)


def test_what_is_beyond_chance_in_one_seed_may_be_none_over_seeds():
    base = seeds([0.50, 0.51], [0.50, 0.51])
    ours = seeds([0.54, 0.55], [0.52, 0.53])
    assert more_than_chance(difference({0: ours[0]}, base, ["a"]).score)
    assert not more_than_chance(difference(ours, base, ["a"]).score)


def test_with_one_seed_in_common_a_difference_is_taken_repeat_by_repeat():
    # Repeats vary by 10 percent, their differences by 1: 0.03, 0.02, 0.04.
    ours, base = seeds([0.53, 0.62, 0.74]), seeds([0.5, 0.6, 0.7], [0.9, 0.9, 0.9])
    gap = difference(ours, base, ["a"])
    assert gap.num_seeds == 1
    assert gap.score["mean"] == pytest.approx(0.03)
    # Student's t with two degrees of freedom: 4.303 * 0.01 / sqrt(3).
    assert gap.score["interval"] == pytest.approx(0.02484, abs=1e-5)


def test_another_encoder_has_no_seed_and_meets_each_of_ours():
    base = seeds([0.5, 0.6, 0.7], [0.7, 0.6, 0.7], [0.6, 0.6, 0.5])
    gap = difference({None: experiment(a=[0.7, 0.7, 0.8])}, base, ["a"])
    # Its mean of 0.7333, which no seed of ours changes, against ours of 0.6, 0.6667, 0.5667.
    against = stats.ttest_1samp([0.6, 2 / 3, 1.7 / 3], 2.2 / 3)
    low, high = against.confidence_interval(0.95)
    assert gap.num_seeds == 3
    assert gap.score["mean"] - gap.score["interval"] == pytest.approx(2.2 / 3 - high)
    assert gap.score["mean"] + gap.score["interval"] == pytest.approx(2.2 / 3 - low)


def test_another_encoder_beside_one_seed_of_ours_is_taken_repeat_by_repeat():
    gap = difference({None: experiment(a=[0.53, 0.62, 0.74])}, seeds([0.5, 0.6, 0.7]), ["a"])
    assert gap.num_seeds == 1
    assert gap.score["interval"] == pytest.approx(0.02484, abs=1e-5)


@pytest.mark.parametrize("settings", [{"data": "other"}, {"learning_rate": 0.1}])
def test_other_recordings_or_another_probe_make_no_pairs(settings):
    assert difference(seeds([0.5, 0.6]), seeds([0.5, 0.6], **settings), ["a"]) is None
    assert difference(seeds([0.5, 0.6]), {0: experiment(b=[0.5, 0.6])}, ["a"]) is None


def test_the_mean_of_datasets_is_formed_in_each_repeat():
    assert repeats_of(experiment(a=[0.2, 0.4], b=[0.6, 0.6]), ["a", "b"]) == pytest.approx([0.4, 0.5])
    assert repeats_of(experiment(a=[0.2, 0.4]), ["a", "b"]) is None
    assert repeats_of(experiment(a=[0.2, 0.4], b=[0.1, 0.2, 0.3]), ["a", "b"]) is None


def test_only_the_seed_may_differ_within_a_row():
    settings = [{"x": 1, SEED: 7}, {"x": 1, SEED: 2}, {"x": 2, SEED: 2}, {"encoder.name": "e"}]
    experiments = [Experiment(one, {}) for one in settings]
    assert list(seeds_of(experiments, settings[0])) == [2, 7]
    assert list(seeds_of(experiments, settings[3])) == [None]
    assert without_seed(settings[0]) == {"x": 1}


def test_a_star_says_that_the_interval_leaves_out_0_in_both_directions():
    assert with_star({"mean": -0.025, "interval": 0.01}) == "-2.5 ± 1.0 *"
    assert with_star({"mean": -0.02, "interval": 0.02}) == "-2.0 ± 2.0"
    assert with_star({"mean": -1e-9, "interval": 0.02}) == "+0.0 ± 2.0"
