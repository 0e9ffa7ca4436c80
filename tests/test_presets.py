"""What can be copied to params.yaml, and what its first lines promise."""

import re

import pytest
import torch
import yaml

from flows.grid import cells_of
from matpac.model.masking import random_split
from matpac.params import flat, load_params
from matpac.training.cost import cost_table
from matpac.training.loop import Example, Learner, update_
from matpac.training.ranks import this_process
from matpac.training.schedules import Durations, knobs_at
from matpac.weights.checkpoint import new_pretext

LIKE_THE_PAPER = ["matpac_plus", "m2d", "cheaper"]
LASTING = Durations(total=8, warmup=2, teacher_temperature=2)


@pytest.mark.parametrize("name", LIKE_THE_PAPER)
def test_a_preset_differs_from_the_papers_in_the_keys_that_its_header_names(project, name):
    text = (project / f"presets/{name}.yaml").read_text()
    paper, ours = (flat(load_params(project / f"presets/{one}.yaml").model_dump()) for one in ("paper", name))
    ramps = r"\.(first|last)$"
    differing = {
        re.sub(ramps, "", key) for key in paper.keys() | ours.keys() if paper.get(key) != ours.get(key)
    }
    header = text.partition("# Differences from presets/paper.yaml:\n")[2].partition("\ndatasets:")[0]
    assert set(re.findall(r"^#   (\S+) ", header, re.MULTILINE)) == differing


def test_the_small_preset_differs_from_instruments_in_what_was_chosen_on_validation_clips(project):
    ours, theirs = (
        flat(load_params(project / f"presets/{name}.yaml").model_dump())
        for name in ("matpac_small_compute", "instruments")
    )
    differing = {key: ours[key] for key in ours if ours[key] != theirs[key]}
    assert differing == {"pretrain.mixup": 0.5, "probe.pooling": "mean_and_deviation"}
    study = cells_of(project / "presets/grids/study.yaml", project / "presets/instruments.yaml")
    [chosen] = [cell for cell in study if cell.label == "mixtures"]
    assert chosen.changes["pretrain.mixup"] == ours["pretrain.mixup"]


def tiny(project, name):
    """The preset's parameters for networks and batches that a test can bear."""
    params = load_params(project / f"presets/{name}.yaml")
    pretrain = params.pretrain.model_copy(update={"batch_size": 4, "precision": "float32"})
    compute = params.compute.model_copy(update={"compile": False, "micro_batch_size": 2})
    model = params.model.model_copy(update={"size": "tiny", "num_clusters": 32})
    return params.model_copy(update={"pretrain": pretrain, "compute": compute, "model": model})


@pytest.mark.parametrize("name", ["paper", *LIKE_THE_PAPER])
def test_a_tiny_variant_trains_what_it_should_and_stays_finite(project, generator, name):
    params = tiny(project, name)
    pretext = new_pretext(params.logmel, params.model, params.pretrain)
    learner = Learner(pretext, params.pretrain, params.compute, this_process())
    before = {key: value.clone() for key, value in pretext.state_dict().items()}
    for update in range(3):
        log_mel = torch.randn(4, 80, params.pretrain.crop_frames, generator=generator)
        split = random_split(4, pretext.num_patches, params.model.mask_ratio, generator)
        knobs = knobs_at(update, LASTING, params.pretrain)
        report = update_(learner, Example(log_mel, split), update, knobs, watch=update == 0)
        assert report.finite

    moved = {
        key.partition(".")[0] for key, value in pretext.state_dict().items() if (value != before[key]).any()
    }
    networks = {"patches", "student_encoder", "predictor", "teacher_encoder"}
    # The centre of what is watched: a mean that trains nothing.
    assert moved == networks | {"center"} | (set() if name == "m2d" else {"student_head", "teacher_head"})


@pytest.mark.parametrize("grid", ["mask_ratio", "crop"])
def test_a_grid_says_what_it_costs_at_the_papers_size(project, grid):
    path = project / f"presets/grids/{grid}.yaml"
    cells = cells_of(path, project / "presets/paper.yaml")
    table = cost_table({cell.name: cell.params for cell in cells}, project / "no shards")
    told = [line[1:].split() for line in path.read_text().splitlines() if re.match(r"#   \S+=", line)]
    for line, counted in zip(told, table.splitlines()[1:], strict=True):
        assert line[:6] == counted.split()[:6]
        assert float(line[6]) == pytest.approx(100 * float(line[5]) / 91.8, abs=0.5)


def test_budgets_keep_the_shares_of_the_schedules(project):
    cells = cells_of(project / "presets/grids/budget.yaml", project / "presets/matpac_small_compute.yaml")
    runs = [cell.params.pretrain for cell in cells]
    assert len({run.num_epochs for run in runs}) > 4
    for run in runs:
        assert (run.warmup_epochs, run.teacher_temperature_epochs) == pytest.approx(
            (run.num_epochs / 20, run.num_epochs / 8)
        )


def test_every_preset_has_the_same_keys(project):
    default = yaml.safe_load((project / "presets/demo.yaml").read_text())
    for path in (project / "presets").glob("*.yaml"):
        ours = yaml.safe_load(path.read_text())
        assert {name: list(ours[name]) for name in ours if name != "datasets"} == {
            name: list(default[name]) for name in default if name != "datasets"
        }, path
