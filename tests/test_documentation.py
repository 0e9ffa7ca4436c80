"""Commands in README.md, docs/ and --help are ones that the programs understand."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import pytest
import soundfile
import torch
import typer
import yaml

from matpac.cli import app
from matpac.weights.released import PAPER_LOGMEL
from tests.checkpoints import untrained_checkpoint

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
        assert {word for word in words if "=" not in word} <= set(targets)
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
    params = yaml.safe_load((PROJECT / "presets/demo.yaml").read_text())
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


def blocks_of_python(path: Path) -> list[str]:
    return re.findall(r"^```python.*?\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_lines_of_python_that_use_an_encoder_run(project, tmp_path, monkeypatch):
    untrained_checkpoint(tmp_path / "data/checkpoints/pretrained", PAPER_LOGMEL)
    monkeypatch.chdir(tmp_path)
    blocks = [block for path in PAGES for block in blocks_of_python(path) if "matpac.load(" in block]
    assert len(blocks) >= 2
    for block in blocks:
        names = {"waveform": np.zeros(8_000, dtype=np.float32), "sample_rate": 8_000}
        exec(block, names)
        assert np.isfinite(names["embeddings"]).all()


def test_the_example_of_another_encoder_is_one(project):
    [block] = [block for block in blocks_of_python(project / "docs/encoders.md") if "def load_model" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    model = names["load_model"]()
    embeddings = names["get_scene_embeddings"](torch.randn(3, 2 * model.sample_rate), model)
    assert embeddings.shape == (3, model.scene_embedding_size)
    assert torch.isfinite(embeddings).all()


def test_the_page_on_encoders_runs_from_top_to_bottom(project, tmp_path, monkeypatch):
    untrained_checkpoint(tmp_path / "data/checkpoints/pretrained", PAPER_LOGMEL)
    (tmp_path / "recordings").mkdir()
    noise = np.random.default_rng(0).normal(scale=0.1, size=20_000)
    for name in ("a.wav", "b.flac", "recordings/c.wav", "recordings/d.ogg"):
        soundfile.write(tmp_path / name, noise, 22_050)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"waveform": np.zeros(48_000, dtype=np.float32), "sample_rate": 16_000}
    page = (project / "docs/encoders.md").read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(python|bash)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line, comments=True)
            if program == "matpac":
                app(words, standalone_mode=False)
    assert names["embeddings"].shape == (2, 640)
    assert names["first"].embeddings.shape == (names["first"].centers_ms.size, 640)
    assert names["rows"].num_rows == 2
    assert names["of_first_file"].shape == (6, 640)


def test_the_paper_is_cited_alike_everywhere(project):
    paper = yaml.safe_load((project / "CITATION.cff").read_text())["preferred-citation"]
    names = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in paper["authors"])
    entries = []
    for page in ("README.md", "docs/index.md"):
        entries += re.findall(
            r"^```bibtex\n(.*?)^```", (project / page).read_text(), re.MULTILINE | re.DOTALL
        )
    fields = dict(re.findall(r"^  (\w+) += \{(.*)\},$", entries[0], re.MULTILINE))
    assert entries == [entries[0]] * 2
    assert fields == {
        "author": names,
        "title": paper["title"],
        "booktitle": paper["collection-title"],
        "year": str(paper["year"]),
        "doi": paper["doi"],
    }


def test_a_line_that_begins_with_an_equation_stays_in_its_paragraph(project):
    spec = importlib.util.spec_from_file_location("hooks", project / "docs/hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    html = markdown.markdown(hooks.on_page_markdown(r"\(z\) is a latent, \(x\) a patch."))
    assert html.startswith("<p>")
    assert html.count("<p>") == 1
    assert html.count("<math") == 2
