"""Commands in README.md, docs/ and --help are ones that the programs understand."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from matpac.cli import app

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(
    r"^ {4}(?:\$ )?((?:matpac|dvc|python|make|cp|torchrun|prefect|hear-validator) .*)$", re.MULTILINE
)
OTHER_PROGRAMS = {"source", "export", "xdg-open", "pip", "prefect", "hear-validator", "cd", "git", "mkdocs"}


def commands() -> list[str]:
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
        lines += INDENTED.findall(FENCED.sub("", text)) if path.name == "README.md" else []
        for line in lines:
            # A word of the pages stands for what the reader puts there.
            words = re.split(r"\s+#\s", line)[0].replace("<", "").replace(">", "")
            found += [one.strip() for one in words.split("&&") if one.strip()]
    return sorted(set(found))


def test_the_pages_are_found():
    assert len(PAGES) > 5
    assert {"make repro", "make test", "dvc repro"} <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_pages_is_understood(command, project):
    program, *words = shlex.split(command)
    if program == "matpac":
        understood_by_matpac(words)
    elif program == "dvc":
        understood_by_dvc(words)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        assert get_args_parser().parse_args(words).training_script == "matpac"
    elif program == "python":
        understood_by_python(words)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (project / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets)
    elif program == "cp":
        assert (project / words[0]).is_file()
    else:
        assert program in OTHER_PROGRAMS


def understood_by_matpac(words: list[str]) -> None:
    group = typer.main.get_command(app)
    if words == ["--help"]:
        return
    command = group.get_command(None, words[0])
    assert command is not None, f"no command {words[0]}"
    if "--help" not in words:
        command.make_context(words[0], words[1:])


def understood_by_dvc(words: list[str]) -> None:
    from dvc.cli import parse_args

    wanted = parse_args(words)
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    for change in getattr(wanted, "params", None) or []:
        section, key = change.split("=")[0].split(".")
        assert key in params[section]


def understood_by_python(words: list[str]) -> None:
    if words[0] != "-m":
        assert (PROJECT / words[0]).is_file()
        return
    assert importlib.util.find_spec(words[1]) is not None
    if words[1] == "flows.grid":
        assert (PROJECT / "presets/grids" / f"{words[2]}.yaml").is_file()
    if words[1] == "matpac":
        understood_by_matpac(words[2:])
