import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import yaml

from matpac import __version__, cli
from matpac.files import WORK, exclusive


def command(*arguments, cwd):
    """The command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "matpac", *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch, project):
    monkeypatch.setenv("PYTHONPATH", str(project))
    return tmp_path


@pytest.fixture
def matpac(monkeypatch, capsys):
    """The same in this process: imports take seconds."""

    def run(*arguments, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["matpac", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    return run


def test_help_names_every_stage(matpac, folder):
    code, said, _ = matpac("--help", cwd=folder)
    assert code == 0
    for command in ("corpus", "cost", "pretrain", "embed", "probe", "record", "report"):
        assert f"  {command} " in said


def test_help_of_80_columns_cuts_no_summary(matpac, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, said, _ = matpac("--help", cwd=folder)
    summaries = said.partition("Commands:\n")[2].splitlines()
    assert len(summaries) >= 12
    assert [line for line in summaries if line.endswith("...")] == []


@pytest.mark.parametrize(
    ("arguments", "work"),
    [
        (["sources"], "sources"),
        (["corpus"], "corpus"),
        (["embed", "--dataset", "esc10"], "embed/esc10"),
        (["probe", "esc10"], "probe/esc10"),
        (["record"], "record"),
        (["report"], "report"),
    ],
)
def test_a_stage_is_turned_away_while_another_process_is_at_it(matpac, folder, project, arguments, work):
    """Even one that outlived the `dvc repro` which started it; and it must not touch anything."""
    shutil.copy(project / "presets/demo.yaml", folder / "params.yaml")
    with exclusive(folder / WORK / work):
        code, _, said = matpac(*arguments, cwd=folder)
    assert code == 1
    assert said.startswith(f"matpac: data/.work/{work} is in use by another process")
    assert [path.name for path in (folder / "data").iterdir()] == [".work"]


def test_what_has_not_been_embedded_is_answered_with_what_has(matpac, folder, project):
    shutil.copy(project / "presets/demo.yaml", folder / "params.yaml")
    (folder / "data/embeddings/esc10").mkdir(parents=True)
    code, _, said = matpac("probe", "esc1", cwd=folder)
    assert code == 1
    assert said == (
        "matpac: data/embeddings/esc1: need a store of embeddings, found those of esc10. "
        "`dvc repro embed` makes them for all of probe.datasets (params.yaml).\n"
    )


def test_trouble_is_one_line_and_no_traceback(matpac, folder):
    code, _, said = matpac("pretrain", cwd=folder)
    assert code == 1
    assert said.startswith("matpac: params.yaml: no such file.")
    assert said.count("\n") == 1


def test_cost_lays_parameter_files_side_by_side(matpac, folder, project):
    presets = [project / f"presets/{name}.yaml" for name in ("paper", "cheaper")]
    code, said, _ = matpac("cost", *presets, "--clips", 2_012_615, "--tflops", 300, cwd=folder)
    assert code == 0
    paper, cheaper = (line.split() for line in said.splitlines()[1:])
    assert (paper[0], paper[-4:]) == (str(presets[0]), ["100%", "603,783,168", "55,500", "51.34"])
    assert cheaper[-4:-2] == ["46%", "603,783,168"]


def test_cost_on_a_gpu_has_a_price_only_if_one_is_given(matpac, folder, project):
    paper = project / "presets/paper.yaml"
    code, said, _ = matpac(
        "cost", paper, "--clips", 2_012_615, "--gpu", "H100", "--gpus", 8, "--price", 2.5, cwd=folder
    )
    assert code == 0
    assert "on 8 x H100 SXM" in said
    assert "An hour of one GPU costs 2.5" in said
    code, said, _ = matpac("cost", paper, "--clips", 2_012_615, "--gpu", "h100", cwd=folder)
    assert code == 0
    assert "price" not in said
    for wrong, complaint in (
        (["--gpu", "v100"], "--gpu: need one of h100, h200, a100, l40s, 4090, got v100"),
        (["--price", 2.5], "need --gpu with --gpus or --price"),
    ):
        code, _, said = matpac("cost", paper, *wrong, cwd=folder)
        assert code == 1
        assert complaint in said


def test_names_of_recordings_neither_forge_lines_nor_steer_the_terminal(matpac, folder, project, monkeypatch):
    monkeypatch.setattr("matpac.signal.audio.mute_c_libraries", lambda: None)  # It mutes pytest, too.
    name = "b\x1b[31m\nmatpac: all is well.wav"
    for label in ("a", "b", "c"):
        (folder / "mine" / label).mkdir(parents=True)
        (folder / "mine" / label / name).write_text(f"no audio but {label}")
    params = yaml.safe_load((project / "presets/demo.yaml").read_text())
    labels = {"labels": "folders", "multi_label": False, "num_folds": 3, "split_fractions": None}
    params["datasets"]["mine"] = {"kind": "folder", "source": "mine"} | labels
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    code, said, progress = matpac("inspect", "mine", cwd=folder)
    assert code == 0, progress
    assert r"          a/b\x1b[31m\nmatpac: all is well.wav" in said.splitlines()
    assert "\x1b" not in said + progress
    code, said, _ = matpac("inspect", "mine", "--json", cwd=folder)
    [examples] = json.loads(said)["rejected_examples"].values()
    assert examples == [f"a/{name}", f"b/{name}", f"c/{name}"]
    code, _, said = matpac("embed", f"missing\x1b[31m\n{name}", "--out", "e.npz", cwd=folder)
    assert code == 1
    assert said == (
        "matpac: embed: need files and folders that are there, found no "
        "missing\\x1b[31m\\nb\\x1b[31m\\nmatpac: all is well.wav\n"
    )


def test_init_makes_parameters_that_inspect_takes(matpac, folder, project, monkeypatch):
    monkeypatch.setattr("matpac.signal.audio.mute_c_libraries", lambda: None)  # It mutes pytest, too.
    shutil.copytree(project / "presets", folder / "presets")
    shutil.copy(project / "presets/demo.yaml", folder / "params.yaml")
    for number in range(20):
        path = folder / "My birds" / ("wren", "robin")[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(scale=0.1, size=8000)
        soundfile.write(path, noise, 8000, subtype="PCM_16")
    code, said, _ = matpac("init", "My birds", cwd=folder)
    assert code == 0
    assert said.endswith("    matpac inspect my_birds\n    dvc repro\n")
    code, said, _ = matpac("inspect", "my_birds", cwd=folder)
    assert code == 0
    assert "2 classes, one label per clip, accuracy" in said
    made = (folder / "params.yaml").read_text()
    code, _, said = matpac("init", "My birds", cwd=folder)
    assert code == 1
    assert said == (
        "matpac: params.yaml: need a copy of a preset, or no file, found one that was edited. "
        "Name another file with --out, or replace it with --force.\n"
    )
    code, said, _ = matpac("init", "My birds", "--out", "birds.yaml", "--name", "birds", cwd=folder)
    assert code == 0
    assert said.endswith(
        "matpac inspect birds --params birds.yaml\n    cp birds.yaml params.yaml && dvc repro\n"
    )
    assert (folder / "params.yaml").read_text() == made
    code, _, _ = matpac("init", "My birds", "--force", cwd=folder)
    assert code == 0


def test_embed_says_what_it_needs(matpac, folder):
    code, _, said = matpac("embed", "a.wav", cwd=folder)
    assert code == 1
    assert "need either files and --out, or --dataset" in said


def test_the_version_is_that_of_the_package(folder):
    assert command("--version", cwd=folder) == (0, f"matpac {__version__}\n", "")


def test_a_missing_checkpoint_is_named_with_what_to_do(matpac, folder, monkeypatch):
    monkeypatch.setattr("matpac.signal.audio.mute_c_libraries", lambda: None)  # It mutes pytest, too.
    (folder / "a.wav").touch()
    code, _, said = matpac("embed", "a.wav", "--out", "e.npz", "--checkpoint", "some/birds", cwd=folder)
    assert code == 1
    assert said.startswith("matpac: some/birds: need a checkpoint, a saved folder or a released .pt file")
    assert "matpac_10_2048" in said
    assert "hf download user/repository --local-dir folder" in said
    assert said.count("\n") == 1
