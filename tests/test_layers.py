"""What is installed without extras is enough to open, embed, save and describe an encoder."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import soundfile

from matpac.cli import PIPELINE
from matpac.encoder.encoder import load_encoder
from tests.checkpoints import untrained_checkpoint
from tests.packages import REFUSING, distributions_below, names_outside
from tests.recordings import LOGMEL

USE = """
import numpy as np
import torch
torch.set_num_threads(1)
import matpac
assert matpac.AudioEncoder.__name__ == "AudioEncoder"
encoder = matpac.load("saved", device="cpu")
assert encoder.embed(np.zeros(16_000, np.float32), 16_000).shape == (1, encoder.dim)
assert encoder.embed_file("noise.wav").shape == (encoder.dim,)
encoder.save_pretrained("again")
assert matpac.load("again", device="cpu").digest() == encoder.digest()
"""

COMMANDS = """
import contextlib, io, json, pathlib
from matpac.cli import main
from matpac.signal import audio
audio.mute_c_libraries = lambda: None  # it would replace the streams that are captured here
said = {}
for command in sys.argv[1:]:
    sys.argv = ["matpac", *command.split()]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as done:
            said[command] = done.code, out.getvalue(), err.getvalue()
pathlib.Path("said.json").write_text(json.dumps(said))
"""

SERVED = ("--help", "embed --help", "info saved", "embed noise.wav --checkpoint saved --out table.npz")
REFUSED = {
    "embed noise.wav --checkpoint saved --out table.parquet": "pyarrow",
    "embed noise.wav --checkpoint saved --out table.zarr": "zarr",
    "datasets": "pyarrow",
    "pretrain --params demo.yaml": "pyarrow",
}


def base_requirements(project) -> list[str]:
    return tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]


@pytest.fixture(scope="module")
def refused(project) -> set[str]:
    """Names that can be imported here, but not from an installation without extras."""
    return names_outside(distributions_below(base_requirements(project)))


@pytest.fixture(scope="module")
def folder(project, tmp_path_factory):
    """A sound, parameters, and an encoder with another filterbank than the paper's, which travels with it."""
    folder = tmp_path_factory.mktemp("base")
    sound = np.random.default_rng(0).normal(scale=0.1, size=20_000)
    soundfile.write(folder / "noise.wav", sound, 16_000)
    shutil.copy(project / "presets/demo.yaml", folder / "demo.yaml")
    (folder / "checkpoint").mkdir()
    checkpoint = untrained_checkpoint(folder / "checkpoint", LOGMEL.model_copy(update={"fmin_hz": 100}))
    load_encoder(checkpoint, "cpu").save_pretrained(folder / "saved")
    return folder


@pytest.fixture(scope="module")
def base(project, refused, folder):
    """A process that found the packages of an installation without extras, used them, and gave commands."""
    command = [sys.executable, "-c", REFUSING + COMMANDS + USE, ",".join(refused), *SERVED, *REFUSED]
    environment = os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def said(base, folder):
    """What each command answered: code, output, errors."""
    return json.loads((folder / "said.json").read_text())


def test_the_base_brings_nothing_of_the_pipeline(refused):
    assert refused >= PIPELINE


def test_the_base_opens_embeds_and_saves(base):
    assert base.returncode == 0, base.stderr


@pytest.mark.parametrize("command", SERVED)
def test_the_base_has_the_command(said, folder, command):
    code, out, errors = said[command]
    assert code == 0, errors
    assert out or np.load(folder / "table.npz")["embeddings"].shape == (1, 128)


@pytest.mark.parametrize(("command", "package"), REFUSED.items())
def test_what_needs_the_pipeline_says_in_one_line_what_to_install(said, command, package):
    line = f"matpac: this needs {package}. Install it: pip install 'matpac[pipeline]'\n"
    assert said[command] == [1, "", line]


def test_the_command_knows_every_package_of_the_pipeline(project, refused):
    """Whatever the library imports comes with Python, the base, or the extras that the command names."""
    imported = set()
    for path in (project / "matpac").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    # Who lacks PyAV is told so by each recording that needs it.
    assert imported & refused <= {*PIPELINE, "av"}


def test_the_public_names_are_listed(project):
    code = (
        "import matpac, sys; print(*matpac.__all__, *(set(matpac.__all__) - set(dir(matpac)))); "
        "print('torch' in sys.modules); print(matpac.UnusableAudio.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "AudioEncoder Classifier UnusableAudio load load_classifier",
        "False",
        "UnusableAudio",
    ]


def test_nothing_in_the_metadata_is_a_placeholder(project):
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert all(re.fullmatch(r"https://[\w./-]+", url) for url in metadata["urls"].values())
