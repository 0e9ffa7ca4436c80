"""The shape of the project, kept by tests: who may import whom, and what a stage depends on."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parent.parent
SOURCES = sorted((PROJECT / "matpac").rglob("*.py"))
SHARED = {"params", "files", "progress", "text", "threads", "git"}
"""Root modules that import none of ours but each other; every package may use them."""
NAMED_BY_OTHERS = {"hear": {"probing"}}
"""Root modules with the interface of others' programs, and the packages they offer; no package uses them."""
ARROWS = {
    "datasets": set(),
    "signal": set(),
    "shards": {"datasets", "signal"},
    "model": set(),
    "training": {"datasets", "shards", "model"},
    "probing": {"datasets", "signal", "shards", "model", "training"},
    "report": {"datasets", "signal", "shards", "model", "training", "probing"},
}
STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return modules | {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }


def packages_of(path: Path) -> set[str]:
    """Our packages and root modules that a file imports."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("matpac.")}


def all_it_needs(packages: set[str]) -> set[str]:
    closure = packages.union(*(ARROWS.get(name, set()) for name in packages))
    return closure if closure == packages else all_it_needs(closure)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_imports_follow_the_arrows(path):
    parts = path.relative_to(PROJECT).parts
    if len(parts) > 2:
        assert packages_of(path) <= ARROWS[parts[1]] | SHARED | {parts[1]}
    elif parts[1].removesuffix(".py") in SHARED:
        assert packages_of(path) <= SHARED
    elif parts[1].removesuffix(".py") in NAMED_BY_OTHERS:
        assert packages_of(path) <= NAMED_BY_OTHERS[parts[1].removesuffix(".py")] | SHARED


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_the_library_imports_neither_prefect_nor_dvc(path):
    assert not {name.split(".")[0] for name in imports_of(path)} & {"prefect", "dvc"}


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("matpac", {"numpy", "torch", "pydantic"}),
        ("matpac.cli", {"numpy", "torch", "pydantic"}),
        ("matpac.shards.build", {"torch", "zarr"}),
        ("flows.shards", {"torch", "matplotlib"}),
        ("matpac.training.run", {"sklearn", "matplotlib"}),
        ("matpac.probing.probe", {"timm", "sklearn", "matplotlib"}),
    ],
)
def test_what_takes_seconds_to_import_is_imported_where_it_is_used(module, late):
    code = f"import {module}, sys; print(*(set({sorted(late)!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("stage", ["download", "shards"])
def test_a_data_stage_depends_on_all_the_code_it_runs(stage):
    used = packages_of(PROJECT / "flows" / f"{stage}.py") | packages_of(PROJECT / "flows" / "stage.py")
    needed = all_it_needs(used - SHARED)
    deps = STAGES[stage]["do"]["deps"]
    assert {dep.split("/")[1] for dep in deps if dep.startswith("matpac/")} == needed
    assert {f"flows/{stage}.py", "flows/stage.py"} <= set(deps)


@pytest.mark.parametrize(
    ("stage", "package"), [("pretrain", "training"), ("embed", "probing"), ("report", "report")]
)
def test_a_compute_stage_depends_on_all_the_code_it_runs(stage, package):
    deps = (STAGES[stage].get("do") or STAGES[stage])["deps"]
    declared = {dep.split("/")[1] for dep in deps if dep.startswith("matpac/")}
    assert declared == all_it_needs({package})


def test_every_section_of_the_parameters_is_a_dependency_of_some_stage():
    declared = {
        key.split(".")[0] for stage in STAGES.values() for key in (stage.get("do") or stage).get("params", [])
    }
    # Schedules say when stages run, `compute` how one does; neither what they make.
    assert declared | {"schedules", "compute"} == set(
        yaml.safe_load((PROJECT / "presets/demo.yaml").read_text())
    )


def test_the_readme_has_a_line_for_every_source_file():
    readme = (PROJECT / "README.md").read_text()
    sources = [*SOURCES, *(PROJECT / "flows").glob("*.py")]
    named = {path.name for path in sources if not path.name.startswith("__")}
    assert {name for name in named if f" {name} " not in readme} == set()
