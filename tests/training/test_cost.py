"""tests/model/test_flops.py compares the counts themselves with PyTorch's."""

import pytest

from matpac.params import load_params
from matpac.training.cost import cost_table
from tests.recordings import LOGMEL, build, plan_of, write_recordings


@pytest.fixture(scope="module")
def paper(project):
    return load_params(project / "presets/paper.yaml")


def columns(table):
    return [line.split() for line in table.splitlines()[1:]]


def test_the_papers_run_costs_what_its_updates_and_crops_come_to(paper, tmp_path):
    [[_, *parts, share, crops, pflop, hours]] = columns(
        cost_table({"paper": paper}, tmp_path, num_clips=2_012_615, tflop_per_s=300)
    )
    *parts, whole = map(float, parts)
    assert sum(parts) == pytest.approx(whole, abs=0.1)
    assert crops == f"{294_816 * 2048:,}"
    assert float(pflop.replace(",", "")) == pytest.approx(294_816 * 2048 * whole / 1e6, rel=0.005)
    assert float(hours) == pytest.approx(294_816 * 2048 * whole / 1000 / 300 / 3600, rel=0.005)
    assert share == "100%"


def test_without_shards_and_clips_only_a_crop_has_a_price(paper, tmp_path):
    [row] = columns(cost_table({"paper": paper}, tmp_path))
    assert row[-3:] == ["-", "-", "-"]


def test_clips_are_those_of_the_shards_that_are_long_enough(paper, tmp_path):
    write_recordings(tmp_path / "audio", [0.3, 1.0, 1.0])
    build(plan_of(tmp_path / "audio", tmp_path / "work"), tmp_path / "shards/audioset")
    changes = {"crop_frames": 64, "batch_size": 1, "num_epochs": 5, "warmup_epochs": 0}
    short = paper.model_copy(update={"logmel": LOGMEL, "pretrain": paper.pretrain.model_copy(update=changes)})
    padded = short.model_copy(update={"pretrain": short.pretrain.model_copy(update={"short_clips": "pad"})})
    rows = columns(cost_table({"drop": short, "pad": padded}, tmp_path / "shards"))
    assert [row[-3] for row in rows] == ["10", "15"]


def test_weights_that_are_exported_untrained_cost_nothing(project, tmp_path):
    [row] = columns(cost_table({"released": load_params(project / "presets/released.yaml")}, tmp_path))
    assert row[-3:-1] == ["0", "0"]


def test_too_few_clips_for_an_update_are_refused(paper, tmp_path):
    with pytest.raises(ValueError, match=r"need at least one batch of 2048 clips, got 3 clips x 300 epochs"):
        cost_table({"paper": paper}, tmp_path, num_clips=3)
