"""An ablation is checked before the first of its hours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.grid import GRIDS, overrides
from tests.flows.conftest import REPOSITORY

PARAMS = Path("presets/demo.yaml")


@pytest.mark.parametrize("preset", sorted(Path("presets").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("grid", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_grid_fits_every_preset(grid, preset):
    assert len(overrides(grid, preset)) >= 2


def test_a_grid_becomes_changes_that_dvc_takes():
    changes = overrides(GRIDS / "alpha.yaml", PARAMS)
    assert list(changes) == [f"pretrain.alpha={value}" for value in ("0.25", "0.5", "0.75", "1.0")]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("pretrain.alpha: [0.5, 2.0]", r"pretrain\.alpha: input should be less than or equal to 1, got 2\.0"),
        ("pretrain.alhpa: [0.5]", r"pretrain\.alhpa: unknown key"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_runs(tmp_path, line, complaint):
    grid = tmp_path / "wrong.yaml"
    grid.write_text(line)
    with pytest.raises(ValueError, match=complaint):
        overrides(grid, PARAMS)


def test_an_unknown_grid_is_answered_with_those_there_are():
    with pytest.raises(
        ValueError, match=r"need a grid of presets/grids \(alpha, clusters, crop, mask_ratio, temperature\)"
    ):
        overrides(GRIDS / "beta.yaml", PARAMS)


def test_what_a_grid_costs_stands_beside_params_yaml(tmp_path):
    shutil.copytree(GRIDS, tmp_path / GRIDS)
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    said = subprocess.run(
        [sys.executable, "-m", "flows.grid", "mask_ratio", "--cost"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [line.split()[0] for line in said.splitlines()[1:]] == [
        "params.yaml",
        *(f"model.mask_ratio={value}" for value in (0.6, 0.7, 0.8, 0.9)),
    ]
