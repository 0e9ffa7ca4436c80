"""An ablation is checked before the first of its hours."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from flows.grid import cell_of, cells_of, do, main, possible, with_seeds
from matpac.grids import GRIDS, epochs_at_equal_compute
from matpac.params import load_params
from matpac.training.cost import crops_of, flops_of
from tests.flows.conftest import REPOSITORY
from tests.recordings import LOGMEL, build, plan_of, write_recordings

PARAMS = Path("presets/demo.yaml")


@pytest.mark.parametrize("preset", sorted(Path("presets").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("grid", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_grid_fits_every_preset(grid, preset):
    if grid.stem == "budget" and not cell_of(preset).params.pretrain.num_epochs:
        pytest.skip("a budget is for runs that train")
    assert len(cells_of(grid, preset)) >= 2


def test_a_grid_becomes_changes_that_dvc_takes():
    cells = cells_of(GRIDS / "alpha.yaml", PARAMS)
    assert [cell.assignments for cell in cells] == [
        [f"pretrain.alpha={value}"] for value in ("0.25", "0.5", "0.75", "1.0")
    ]


def test_dvc_reads_every_change_of_every_grid_as_it_is_meant():
    for grid in sorted(GRIDS.glob("*.yaml")):
        for cell in cells_of(grid, PARAMS):
            read = OverridesParser.create().parse_overrides(cell.assignments)
            assert {one.key_or_group: one.value() for one in read} == cell.changes


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("pretrain.alpha: [0.5, 2.0]", r"pretrain\.alpha: input should be less than or equal to 1, got 2\.0"),
        ("pretrain.alhpa: [0.5]", r"pretrain\.alhpa: unknown key"),
        (
            "pretrain.teacher_temperature_epochs: [10, 40]",
            r"need pretrain\.num_epochs \(30\) at most, got 40",
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_runs(tmp_path, line, complaint):
    grid = tmp_path / "wrong.yaml"
    grid.write_text(line)
    with pytest.raises(ValueError, match=complaint):
        cells_of(grid, PARAMS)


def test_an_unknown_grid_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"need a grid of presets/grids \(alpha, budget, .*, temperature\)"):
        cells_of(GRIDS / "beta.yaml", PARAMS)


def grid_of(folder, line):
    path = folder / "some.yaml"
    path.write_text(line)
    return cells_of(path, PARAMS)


def test_seeds_repeat_the_whole_grid_with_the_next_seed(tmp_path):
    cells = grid_of(tmp_path, "pretrain.alpha: [0.5, 0.25]")
    assert [(cell.name, cell.params.pretrain.seed) for cell in with_seeds(cell_of(PARAMS), cells, 3)] == [
        ("pretrain.alpha=0.5", 0),
        ("pretrain.alpha=0.25", 0),
        ("pretrain.alpha=0.5 pretrain.seed=1", 1),
        ("pretrain.alpha=0.25 pretrain.seed=1", 1),
        ("pretrain.alpha=0.5 pretrain.seed=2", 2),
        ("pretrain.alpha=0.25 pretrain.seed=2", 2),
    ]


def test_the_run_that_all_are_compared_with_has_the_seeds_too(tmp_path):
    cells = grid_of(tmp_path, "pretrain.alpha: [0.75]")
    names = [cell.name for cell in with_seeds(cell_of(PARAMS), cells, 2)]
    assert names == ["pretrain.alpha=0.75", "pretrain.seed=1", "pretrain.alpha=0.75 pretrain.seed=1"]


def test_seeds_of_a_grid_of_seeds_are_refused(tmp_path):
    cells = grid_of(tmp_path, "pretrain.seed: [1, 2]")
    assert with_seeds(cell_of(PARAMS), cells, 1) == cells
    with pytest.raises(ValueError, match=r"--seeds: need a grid of something else than pretrain\.seed"):
        with_seeds(cell_of(PARAMS), cells, 2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Clips of 28, 98, 98 and 148 frames."""
    folder = tmp_path_factory.mktemp("clips")
    write_recordings(folder / "audio", [0.3, 1.0, 1.0, 1.5])
    build(plan_of(folder / "audio", folder / "work"), folder / "shards/demo_corpus")
    return folder / "shards"


def crops(tmp_path, base, *values):
    cells = grid_of(tmp_path, f"pretrain.crop_frames: {list(values)}")
    return [
        cell._replace(
            params=base.params.model_copy(
                update={"pretrain": base.params.pretrain.model_copy(update={"crop_frames": value})}
            )
        )
        for cell, value in zip(cells, values, strict=True)
    ]


@pytest.fixture
def base():
    """params.yaml for these shards."""
    cell = cell_of(PARAMS)
    pretrain = cell.params.pretrain.model_copy(update={"batch_size": 2, "crop_frames": 16})
    return cell._replace(params=cell.params.model_copy(update={"logmel": LOGMEL, "pretrain": pretrain}))


def test_values_that_the_shards_have_no_clips_for_are_left_out_by_name(tmp_path, shards, base):
    found, lines = possible(base, crops(tmp_path, base, 16, 48, 208), shards)
    assert [cell.name for cell in found] == ["pretrain.crop_frames=16", "pretrain.crop_frames=48"]
    assert lines == [
        "pretrain.crop_frames=48 learns from 3 of 4 clips: the others are shorter than its crops. "
        "params.yaml leaves out 0.",
        "pretrain.crop_frames=208 is left out: pretrain.crop_frames: need clips of at least 208 frames, the "
        f"longest of {shards}/demo_corpus has 148. Use shorter crops, or pretrain.short_clips: pad.",
    ]


def test_a_grid_of_which_nothing_can_be_run_is_refused(tmp_path, shards, base):
    with pytest.raises(ValueError, match=r"no value of the grid can be run\. .*=160 is left out: .*=208 is "):
        possible(base, crops(tmp_path, base, 160, 208), shards)


def test_shards_of_another_front_end_forbid_nothing(tmp_path, shards):
    cells = grid_of(tmp_path, "pretrain.crop_frames: [208, 608]")
    assert possible(cell_of(PARAMS), cells, shards) == (cells, [])


def test_what_a_grid_costs_stands_beside_params_yaml(in_tmp, monkeypatch, capsys):
    shutil.copytree(REPOSITORY / GRIDS, in_tmp / GRIDS)
    shutil.copy(REPOSITORY / PARAMS, in_tmp / "params.yaml")
    monkeypatch.setattr("flows.grid.end_softly", lambda: None)  # It is for a process of its own.
    monkeypatch.setattr(sys, "argv", ["grid", "mask_ratio", "--cost", "--seeds", "2"])
    main()
    said = capsys.readouterr().out
    values = [f"model.mask_ratio={value}" for value in (0.6, 0.7, 0.8, 0.9)]
    assert [line.split("  ")[0] for line in said.splitlines()[1:]] == [
        "params.yaml",
        *values,
        *(f"{value} pretrain.seed=1" for value in values),
    ]


def test_outside_of_the_project_it_says_so_and_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flows.grid", "alpha"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Run from the project's folder" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def named_grid(folder, text, params=PARAMS):
    path = folder / "named.yaml"
    path.write_text(text)
    return cells_of(path, params, folder / "no shards")


def test_a_named_setting_changes_several_keys_at_once(tmp_path):
    text = "settings:\n  plain: {}\n  m2d: {pretrain.alpha: 1.0, model.mask_ratio: 0.7}\n"
    plain, m2d = named_grid(tmp_path, text)
    assert (plain.name, plain.raw) == ("plain: params.yaml", cell_of(PARAMS).raw)
    assert m2d.name == "m2d: pretrain.alpha=1.0 model.mask_ratio=0.7"
    assert (m2d.params.pretrain.alpha, m2d.params.model.mask_ratio) == (1.0, 0.7)
    names = [cell.name for cell in with_seeds(cell_of(PARAMS), [plain, m2d], 2)]
    assert names == [plain.name, m2d.name, "plain: pretrain.seed=1", f"{m2d.name} pretrain.seed=1"]


def test_with_equal_compute_crops_times_operations_are_those_of_params_yaml(tmp_path):
    settings = "{cheap: {pretrain.alpha: 1.0}, dear: {model.num_predictor_heads: 5}}"
    text = f"equal_compute: true\nsettings: {settings}\n"
    base, (cheap, dear) = cell_of(PARAMS), named_grid(tmp_path, text)
    assert (
        cheap.params.pretrain.num_epochs > base.params.pretrain.num_epochs > dear.params.pretrain.num_epochs
    )
    whole = crops_of(base.params, 10_000) * flops_of(base.params).total
    for cell in (cheap, dear):
        ours, theirs = cell.params.pretrain, base.params.pretrain
        assert crops_of(cell.params, 10_000) * flops_of(cell.params).total == pytest.approx(whole, rel=1e-3)
        for phase in ("warmup_epochs", "teacher_temperature_epochs"):
            share = getattr(ours, phase) / ours.num_epochs
            assert share == pytest.approx(getattr(theirs, phase) / theirs.num_epochs, rel=1e-5)


def test_equal_compute_counts_the_clips_that_are_long_enough(tmp_path, shards, base):
    """Crops of 48 frames leave out one of four clips: an epoch shows three quarters as many crops."""
    pretrain = base.params.pretrain.model_copy(update={"crop_frames": 48})
    longer = base.params.model_copy(update={"pretrain": pretrain})
    factor = flops_of(base.params).total / flops_of(longer).total * 4 / 3
    found = epochs_at_equal_compute(longer, base.params, shards)
    assert found["pretrain.num_epochs"] == pytest.approx(factor * base.params.pretrain.num_epochs, rel=1e-5)
    assert epochs_at_equal_compute(base.params, base.params, shards) == {}


def test_equal_compute_leaves_it_to_others_to_say_that_no_clip_is_long_enough(tmp_path, shards, base):
    [cell] = crops(tmp_path, base, 208)
    factor = flops_of(base.params).total / flops_of(cell.params).total
    found = epochs_at_equal_compute(cell.params, base.params, shards)
    assert found["pretrain.num_epochs"] == pytest.approx(factor * base.params.pretrain.num_epochs, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("settings: [1]", r"settings: need names, each with its keys and values"),
        ("settings: {a: 1}", r"settings: need names, each with its keys and values"),
        ("equal_compute: 1\nsettings: {a: {}}", r"equal_compute: need true or false, found 1"),
        ("budget: 1\nsettings: {a: {}}", r"need settings and equal_compute only, found budget"),
        ("pretrain.alpha: 0.5", r"pretrain\.alpha: need a list of values, found 0\.5"),
        (
            "equal_compute: true\nsettings: {a: {pretrain.num_epochs: 3}}",
            r"settings\.a: need no pretrain\.num_epochs with equal_compute: true, which sets it, found 3",
        ),
        (
            "settings: {a: {pretrain.init.digest: x}}",
            r"pretrain\.init\.digest: need a section init in params\.yaml, found None",
        ),
        ("settings: {a: {pretrain.alhpa: 1}}", r", a: pretrain\.alhpa: unknown key"),
    ],
)
def test_a_grid_of_neither_form_is_refused(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        named_grid(tmp_path, text)


def test_the_study_has_the_budget_of_instruments(tmp_path):
    """The file says which methods they are; none gets more compute or other networks."""
    preset = Path("presets/instruments.yaml")
    base, cells = cell_of(preset), cells_of(GRIDS / "study.yaml", preset, tmp_path)
    assert [cell.label for cell in cells][:4] == ["released", "paper", "m2d", "matpac_plus"]
    whole = crops_of(base.params, 14_000) * flops_of(base.params).total
    for cell in cells:
        assert crops_of(cell.params, 14_000) * flops_of(cell.params).total == pytest.approx(whole, rel=1e-3)
        assert (cell.params.model.size, cell.params.probe) == (base.params.model.size, base.params.probe)


def test_shards_of_every_setting_are_made_before_a_grid_is_queued(monkeypatch, tmp_path):
    """Equal compute counts clips; a grid that is run later, to collect the results, counts the same."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "presets", "presets")
    shutil.copy("presets/demo.yaml", "params.yaml")
    settings = "{a: {}, b: {pretrain.datasets: [demo_scenes]}, c: {pretrain.alpha: 1.0}}"
    Path("presets/grids/some.yaml").write_text(f"equal_compute: true\nsettings: {settings}\n")
    calls = []

    def succeeds(arguments, lock):
        calls.append((tuple(arguments[:3]), *load_params(Path("params.yaml")).pretrain.datasets))
        return True

    monkeypatch.setattr("flows.grid.succeeds", succeeds)
    do(argparse.Namespace(name="some", seeds=1, queue=True, cost=False), 0)
    assert calls[:2] == [(("repro", "corpus"), "demo_scenes"), (("repro", "corpus"), "demo_corpus")]
    assert calls[2:] == 3 * [(("exp", "run", "--queue"), "demo_corpus")]
    monkeypatch.setattr("flows.grid.succeeds", lambda *_: False)
    with pytest.raises(RuntimeError, match=r"the shards of b: .*demo_scenes.* cannot be made, see above"):
        do(argparse.Namespace(name="some", seeds=1, queue=True, cost=False), 0)
