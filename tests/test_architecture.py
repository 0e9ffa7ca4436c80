"""The shape of the project, kept by tests: who may import whom, and what a stage depends on."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from dvc.config import Config
from dvc.repo import Repo
from networkx import dfs_postorder_nodes

PROJECT = Path(__file__).resolve().parent.parent
SOURCES = sorted((PROJECT / "matpac").rglob("*.py"))
ALL_ALIKE = {PROJECT / "matpac/datasets/public"}
"""Packages with files of one kind, which need no list."""
PACKAGES = sorted(
    {path.parent for path in SOURCES if len(path.relative_to(PROJECT).parts) > 2} - ALL_ALIKE
    | {PROJECT / "flows"}
)
SHARED = {
    *(
        "params",
        "clip",
        "files",
        "progress",
        "threads",
        "git",
        "walk",
        "devices",
        "elsewhere",
        "neighbors",
        "digests",
    ),
}
"""Root modules that import none of ours but each other; every package may use them."""
AT_THE_TOP = {"hear": {"encoder"}, "verify": {"datasets"}, "grids": {"training"}}
"""Root modules that none of the others use, and the packages they use."""
ARROWS = {
    "fetch": set(),
    "datasets": {"fetch"},
    "signal": set(),
    "shards": set(),
    "prepare": {"datasets", "signal", "shards"},
    "model": set(),
    "weights": {"fetch", "signal", "model"},
    "training": {"signal", "shards", "model", "weights"},
    "encoder": {"signal", "model", "weights"},
    "classifier": {"signal", "model", "weights", "encoder"},
    "probing": {"datasets", "signal", "shards", "model", "weights", "encoder", "classifier"},
    "finetuning": {"shards", "weights", "training", "encoder", "classifier", "probing"},
    "report": {
        *("datasets", "signal", "shards", "model", "weights", "training", "encoder", "probing"),
        *("finetuning", "grids"),
    },
}
STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
IMPORTED_BY_NAME = {"matpac/datasets/registry.py": "matpac.datasets.public"}
"""Files that import every module of a package, whatever its name."""
UNTRACKED = {"matpac/__init__.py", "matpac/__main__.py", "matpac/cli.py", "matpac/params.py"}
"""Code that no result depends on although every stage runs it; DVC tracks values of parameters."""


@cache
def imports_in(path: Path) -> frozenset[str]:
    """Names of all modules that a file imports; each file is read for many questions."""
    return frozenset(imports_of(ast.parse(path.read_text())))


def imports_of(tree: ast.AST) -> set[str]:
    """Names of all imported modules, inside functions too, but not those for annotations only."""
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if file_of(name) else node.module for name in submodules}
    return found


def file_of(module: str) -> Path | None:
    """The file of one of our modules, relative to the project."""
    path = Path(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if (PROJECT / file).is_file()), None)


def closure(modules: set[str]) -> set[Path]:
    """Files of the modules and of all that they import, as far as they are ours."""
    files: set[Path] = set()
    while modules:
        file = file_of(modules.pop())
        if file is not None and file not in files:
            files.add(file)
            modules |= imports_in(PROJECT / file)
            if package := IMPORTED_BY_NAME.get(str(file)):
                folder = PROJECT.joinpath(*package.split("."))
                modules |= {f"{package}.{path.stem}" for path in folder.glob("*.py")}
    return files


def as_dependencies(files: set[Path]) -> set[str]:
    """The same files by their folders, if all modules of a folder are among them."""
    named = {str(file) for file in files if file.name != "__init__.py"} - UNTRACKED
    folders = sorted(path.parent.relative_to(PROJECT) for path in (PROJECT / "matpac").rglob("__init__.py"))
    for folder in folders:
        modules = {
            str(path.relative_to(PROJECT))
            for path in (PROJECT / folder).rglob("*.py")
            if path.name != "__init__.py"
        }
        if modules and modules <= named:
            named = (named - modules) | {str(folder)}
    return named


def packages_of(path: Path) -> set[str]:
    """Our packages and root modules that a file imports."""
    return {name.split(".")[1] for name in imports_in(path) if name.startswith("matpac.")}


def entry_of(command: str) -> set[str]:
    """Modules that the command of a stage begins with."""
    program, *words = command.split()
    assert (program, words[0]) == ("python", "-m"), command
    if words[1] != "matpac":
        return {words[1]}
    cli = ast.parse((PROJECT / "matpac/cli.py").read_text())
    functions = {node.name: node for node in cli.body if isinstance(node, ast.FunctionDef)}
    name = "_embed_dataset" if words[2] == "embed" else words[2]
    return imports_of(functions[name])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_imports_follow_the_arrows(path):
    parts = path.relative_to(PROJECT).parts
    if len(parts) > 2:
        assert packages_of(path) <= ARROWS[parts[1]] | SHARED | {parts[1]}
    elif parts[1].removesuffix(".py") in SHARED:
        assert packages_of(path) <= SHARED
    elif parts[1].removesuffix(".py") in AT_THE_TOP:
        assert packages_of(path) <= AT_THE_TOP[parts[1].removesuffix(".py")] | SHARED


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_the_library_imports_neither_prefect_nor_dvc(path):
    assert not {name.split(".")[0] for name in imports_in(path)} & {"prefect", "dvc"}


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("matpac", {"numpy", "torch", "pydantic"}),
        ("matpac.cli", {"numpy", "torch", "pydantic"}),
        ("matpac.params", {"numpy", "pyarrow", "matpac.datasets"}),
        ("matpac.prepare.build", {"torch", "librosa", "zarr"}),
        ("flows.shards", {"torch", "matplotlib"}),
        ("matpac.training.run", {"sklearn", "matplotlib"}),
        ("matpac.probing.probe", {"timm", "sklearn", "matplotlib"}),
        ("matpac.report.experiments", {"torch", "matplotlib", "sklearn"}),
        ("matpac.report.page", {"torch", "sklearn"}),
    ],
)
def test_what_takes_seconds_to_import_is_imported_where_it_is_used(module, late):
    code = f"import {module}, sys; print(*(set({sorted(late)!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_a_process_that_only_starts_others_imports_no_network():
    assert Path("matpac/model/encoder.py") not in closure({"matpac.training.ranks"})


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_code_it_runs(stage):
    spec = STAGES[stage].get("do") or STAGES[stage]
    declared = {dep for dep in spec.get("deps", []) if dep.startswith(("matpac/", "flows/"))}
    if STAGES[stage].get("always_changed"):
        assert declared == set(), "a stage that always runs needs none"
        return
    tables = {"matpac/training/references"} if stage == "report" else set()  # read, and no code
    assert declared == as_dependencies(closure(entry_of(spec["cmd"]))) | tables


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of a library that DVC uses
@pytest.mark.parametrize("online", ["demo_melodies", None])
def test_a_broken_dataset_stops_only_what_needs_it(tmp_path, online):
    """What `dvc repro --keep-going` skips after a failure is what can be reached in DVC's graph."""
    params = yaml.safe_load((PROJECT / "presets/demo.yaml").read_text())
    params["online"]["dataset"] = online
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(PROJECT / "dvc.yaml", tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    with Repo(str(tmp_path)) as repo:
        graph = repo.index.graph.reverse()
    stages = {stage.name: stage for stage in graph}
    [broken, learned, watched] = (
        {stage.name for stage in dfs_postorder_nodes(graph, stages[f"shards@{name}"])}
        for name in ("demo_rhythms", "demo_corpus", "demo_melodies")
    )
    last = {"record", "report"}
    assert broken == {f"{stage}@demo_rhythms" for stage in ("shards", "embed", "probe")} | last
    assert {"fingerprint@demo_corpus", "corpus", "pretrain", "probe@demo_rhythms"} < learned
    assert ("pretrain" in watched) == (online == "demo_melodies")


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of a library that DVC uses
def test_fine_tuning_lies_between_pre_training_and_the_report(tmp_path):
    params = yaml.safe_load((PROJECT / "presets/demo.yaml").read_text())
    params["finetune"]["datasets"] = ["demo_melodies"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(PROJECT / "dvc.yaml", tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    with Repo(str(tmp_path)) as repo:
        graph = repo.index.graph.reverse()
    names = {stage.name: {other.name for other in dfs_postorder_nodes(graph, stage)} for stage in graph}
    tuned = "finetune@demo_melodies"
    assert tuned in names["pretrain"] & names["shards@demo_melodies"]
    assert names[tuned] == {tuned, "record", "report"}


def test_pre_training_depends_on_little():
    assert len(closure(entry_of(STAGES["pretrain"]["cmd"]))) <= 45


def test_no_stage_depends_on_the_inspection_of_data():
    inspection = {Path("matpac/prepare/inspect.py"), Path("matpac/prepare/inspect_text.py")}
    stages = [stage.get("do") or stage for stage in STAGES.values()]
    assert not inspection & set().union(*(closure(entry_of(stage["cmd"])) for stage in stages))


def test_every_section_of_the_parameters_is_a_dependency_of_some_stage():
    declared = {
        key.split(".")[0] for stage in STAGES.values() for key in (stage.get("do") or stage).get("params", [])
    }
    # Schedules say when stages run, `compute` how one does; neither what they make.
    assert declared | {"schedules", "compute"} == set(
        yaml.safe_load((PROJECT / "presets/demo.yaml").read_text())
    )


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_package_says_what_each_of_its_files_is_for(package):
    page = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    listed = re.findall(r"^(\w+\.py) +\S", page, re.MULTILINE)
    assert listed == sorted(path.name for path in package.glob("*.py") if path.name != "__init__.py")


def test_dvc_needs_git_in_a_clone_and_not_in_an_archive(tmp_path):
    if not (PROJECT / ".git").exists():
        pytest.skip("this is an archive")
    archive = subprocess.run(["git", "archive", "HEAD", ".dvc"], cwd=PROJECT, capture_output=True, check=True)
    subprocess.run(["tar", "x"], cwd=tmp_path, input=archive.stdout, check=True)
    assert Config(PROJECT / ".dvc")["core"]["no_scm"] is False
    assert Config(tmp_path / ".dvc")["core"]["no_scm"] is True


def test_hosted_ci_runs_the_local_script_on_the_first_and_the_last_python():
    workflow = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())
    [job] = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    first, end = re.fullmatch(r">=3\.(\d+)\.\d+,<3\.(\d+)", project["requires-python"]).groups()
    assert job["strategy"]["matrix"]["python"] == [f"3.{first}", f"3.{int(end) - 1}"]


def test_hooks_before_a_commit_are_the_linters_of_make_lint():
    lint = (PROJECT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        assert f"\t$(RUN) {hook['name']}" in lint
        assert hook["entry"].startswith(f".venv/bin/{hook['name']}")


def test_one_module_writes_to_terminals():
    """It escapes the control characters of names. `flows.serve` prints a file."""
    writing = re.compile(r"sys\.(stdout|stderr)\.write\(|sys\.exit\(f?\"|\bprint\(")
    paths = [*SOURCES, *sorted((PROJECT / "flows").glob("*.py"))]
    found = {
        str(path.relative_to(PROJECT)): lines
        for path in paths
        if (lines := [line.strip() for line in path.read_text().splitlines() if writing.search(line)])
    }
    assert found.pop("flows/serve.py") == ["sys.stdout.write(prefect_yaml(params))"]
    assert [*found] == ["matpac/progress.py"]
