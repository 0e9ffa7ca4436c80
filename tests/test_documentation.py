"""Commands, Python, links and sizes of the pages for people: what they say is true."""

import csv
import importlib.util
import json
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

import benchmarks.__main__ as benchmarks
from matpac.cli import app
from matpac.clip import Task
from matpac.datasets.inventory import Recording
from matpac.encoder.over_time import OverTime
from matpac.params import Custom, load_params
from matpac.probing.store import EmbeddedClips, write_embeddings
from matpac.weights.open import open_checkpoint
from matpac.weights.released import PAPER_LOGMEL
from tests.checkpoints import untrained_checkpoint
from tests.classifiers import tiny_checkpoint
from tests.recordings import NETWORKS

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((PROJECT / "docs").glob("*.md")),
]
FENCED = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}((?:matpac|dvc|python|make|cp|torchrun|prefect|pip) .*)$", re.MULTILINE)
OTHER_PROGRAMS = {
    *("source", "export", "xdg-open", "pip", "prefect", "hear-validator", "cd", "git", "mkdocs"),
    *("rsync", "ssh", "find", "sha256sum"),
}


def commands() -> list[str]:
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
        lines += INDENTED.findall(FENCED.sub("", text)) if path.name == "README.md" else []
        for line in lines:
            # <word> is for the reader to replace.
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
    # A block is enough, and the export into ONNX looks for patterns in each.
    custom = Custom(**NETWORKS | {"encoder_dim": 128})
    model = load_params(project / "presets/demo.yaml").model
    model = model.model_copy(update={"size": "custom", "custom": custom})
    untrained_checkpoint(tmp_path / "data/checkpoints/pretrained", PAPER_LOGMEL, model)
    monkeypatch.chdir(tmp_path)
    blocks = [block for path in PAGES for block in blocks_of_python(path) if "matpac.load(" in block]
    assert len(blocks) >= 2
    for block in blocks:
        names = {
            "waveform": np.zeros(8_000, dtype=np.float32),
            "sample_rate": 8_000,
            "batch": torch.zeros(2, 16_000),
        }
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
    # A block is enough, and the export into ONNX looks for patterns in each.
    custom = Custom(**NETWORKS | {"encoder_dim": 128})
    model = load_params(project / "presets/demo.yaml").model
    model = model.model_copy(update={"size": "custom", "custom": custom})
    untrained_checkpoint(tmp_path / "data/checkpoints/pretrained", PAPER_LOGMEL, model)
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


def test_the_page_on_classifiers_runs_from_top_to_bottom(project, tmp_path, monkeypatch, capfd):
    checkpoint, recordings = tmp_path / "data/checkpoints/pretrained", tmp_path / "recordings"
    tiny_checkpoint(checkpoint)
    embedded_noise(tmp_path / "data/embeddings/esc10", checkpoint)
    params = (project / "presets/demo.yaml").read_text().replace("max_epochs: 500", "max_epochs: 5")
    (tmp_path / "params.yaml").write_text(params)
    recordings.mkdir()
    noise = np.random.default_rng(0).normal(scale=0.1, size=20_000)
    soundfile.write(recordings / "a.wav", noise, 22_050)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"waveform": noise, "sample_rate": 22_050}
    page = (project / "docs/classifiers.md").read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(python|bash)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line, comments=True)
            # Exporting takes its time; tests/classifier/test_onnx.py does it.
            if program == "matpac" and words[0] != "export":
                app(words, standalone_mode=False)
    assert names["probabilities"].shape == (1, 2)
    assert names["best"] in ("dog", "rain")
    assert names["unlike"].shape == (1,)
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"tags.csv", "tags.csv.json", "events.csv", "tracks", "selections", "classifier"}
    assert re.search(
        r"data/classifiers/esc10: 2 classes, [\d.]+ ± [\d.]+ % accuracy \(3-fold\) on held-out clips; "
        r"calibration error [\d.]+ -> [\d.]+ %; linear probe trained on all 12 clips for \d+ epochs",
        capfd.readouterr().out,
    )


def embedded_noise(store: Path, checkpoint: Path) -> None:
    """Embeddings over time of twelve clips in three folds."""
    random, labels = np.random.default_rng(0), np.eye(2, dtype=np.uint8)[np.arange(12) % 2]
    clips = EmbeddedClips(
        dataset=store.name,
        checkpoint=open_checkpoint(checkpoint).digest,
        task=Task(("dog", "rain"), multi_label=False, metric="accuracy", num_folds=3),
        ids=[str(number) for number in range(12)],
        splits=[""] * 12,
        folds=np.arange(12) // 2 % 3 + 1,
        labels=labels,
        observed=np.ones_like(labels),
    )
    steps = [random.normal(size=(4, 16)).astype(np.float32) + number % 2 for number in range(12)]
    write_embeddings(store, clips, {"pretrained": [OverTime(one.mean(0), one.std(0), one) for one in steps]})


def test_the_front_page_is_short(project):
    text = (project / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 9_000


@pytest.mark.parametrize("page", [*PAGES, PROJECT / "NOTES.md"], ids=lambda path: path.name)
def test_lines_of_prose_end_at_column_100(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    not_prose = ("|", "    ", "![", "<!--", "$$", "Measured on ")
    assert [line for line in text.splitlines() if len(line) > 100 and not line.startswith(not_prose)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_files_that_a_page_names_exist(page, project):
    text = page.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    named = re.findall(r"`((?:matpac|flows|tests|docs|presets|benchmarks)/[\w./-]+)`", text)
    missing += [name for name in named if not (project / name).exists() and "birds" not in name]
    assert missing == []


def test_every_fault_of_the_page_on_faults_has_a_test_or_the_day_it_was_tried(project):
    page = (project / "docs/faults.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| (?!fault )\S", line)]
    assert len(rows) > 20
    for row in rows:
        held_by = row.removesuffix(" |").rpartition(" | ")[2]
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", held_by)
        assert named or re.search(r"by hand, \d{4}-\d\d-\d\d", held_by), row
        for file, name in named:
            text = (project / "tests" / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{file}: no {name}"


def test_the_front_page_names_every_package(project):
    named = re.findall(r"^\| `matpac/(\w+)` \|", (project / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(path.parent.name for path in (project / "matpac").glob("*/__init__.py"))


def test_the_example_table_of_labels_is_understood(project, tmp_path, monkeypatch, capfd):
    text = (project / "docs/data.md").read_text(encoding="utf-8")
    [table] = re.findall(r"^```csv\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    [example] = re.findall(r"^```yaml\n(datasets:.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "table.csv").write_text(table)
    random = np.random.default_rng(0)
    for row in csv.DictReader(table.splitlines()):
        (tmp_path / "recordings" / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "recordings" / row["path"], random.normal(scale=0.1, size=48_000), 16_000)
    params = yaml.safe_load((project / "presets/demo.yaml").read_text()) | yaml.safe_load(example)
    params["datasets"]["mine"] |= {"source": "recordings", "labels": "table.csv"}
    params["pretrain"]["datasets"] = params["probe"]["datasets"] = ["mine"]
    params["online"]["dataset"] = "mine"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    app(["inspect", "mine"], standalone_mode=False)
    printed = " ".join(capfd.readouterr().out.split())
    assert "2 classes, one label per clip, accuracy" in printed
    assert "train 2 6 s 2 of 2 validation 2 6 s 2 of 2 test 2 6 s 2 of 2" in printed


def test_the_example_of_a_public_dataset_gives_clips(project):
    text = (project / "CONTRIBUTING.md").read_text(encoding="utf-8")
    module, test = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    compile(test, "test_birds.py", "exec")
    names: dict[str, Any] = {}
    exec(module, names)
    recording = Recording("calls/wren_jane_07.wav", 1, "0" * 64, "calls/wren_jane_07.wav")
    [clip] = names["clips"](None, project, [recording])
    assert (clip.labels, clip.split, clip.group) == (("wren",), "train", "jane")
    assert len(names["CLASSES"]) == names["PAGE"].num_classes


def test_the_table_of_speed_is_made_from_the_recorded_figures(project, tmp_path, monkeypatch):
    page = (project / "benchmarks/README.md").read_text(encoding="utf-8")
    [name] = re.findall(r"^Measured on .*\((results/.*\.json)\)", page, re.MULTILINE)
    before, rest = page.split(benchmarks.BEGIN)
    _, after = rest.split(benchmarks.END)
    emptied = tmp_path / "README.md"
    emptied.write_text(f"{before}{benchmarks.BEGIN}{benchmarks.END}{after}", encoding="utf-8")
    monkeypatch.setattr(benchmarks, "PAGE", emptied)
    recorded = json.loads((project / "benchmarks" / name).read_text(encoding="utf-8"))
    benchmarks.show(recorded, tmp_path / name)
    assert emptied.read_text(encoding="utf-8") == page


def test_the_paper_is_cited_as_in_its_record(project):
    paper = yaml.safe_load((project / "CITATION.cff").read_text())["preferred-citation"]
    names = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in paper["authors"])
    text = (project / "README.md").read_text(encoding="utf-8")
    [entry] = re.findall(r"^```bibtex\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    fields = dict(re.findall(r"^  (\w+) += \{(.*)\},$", entry, re.MULTILINE))
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
