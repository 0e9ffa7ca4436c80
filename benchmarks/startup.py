"""Waiting times of a fresh process: the command line, the import, the first embedding.

Every figure is the median of several new Python processes, with their files in the page cache; that
of `python -c pass` is the lower bound. There is no peer. Checked: all commands succeed and say
something, and the embedding of ten seconds of noise is finite and of the encoder's size.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.claims import Claim, run, seconds

PROJECT = Path(__file__).resolve().parent.parent
ROUNDS = 5
SLOW_ROUNDS = 2
HELP_S, IMPORT_S = 0.5, 0.3
EMBED = """
import sys
import numpy as np
import matpac

encoder = matpac.load(sys.argv[1], device="cpu")
noise = np.random.default_rng(0).normal(scale=0.1, size=160_000).astype(np.float32)
embedding = encoder.embed(noise, 16_000)
assert embedding.shape == (1, encoder.dim) and np.isfinite(embedding).all()
print(encoder.dim)
"""


def measure() -> list[Claim]:
    with tempfile.TemporaryDirectory() as name:
        checkpoint = untrained_checkpoint(Path(name))
        quick = {
            "nothing": python("-c", "pass", says=False),
            "import": python("-c", "import matpac", says=False),
            "help": python("-m", "matpac", "--help"),
            **{command: python("-m", "matpac", command, "--help") for command in commands()},
            "table of datasets": python("-m", "matpac", "datasets"),
        }
        slow = {
            "torch": python("-c", "import torch", says=False),
            "embedding": python("-c", EMBED, str(checkpoint)),
        }
        for call in (quick | slow).values():
            call()  # Compiles what was not, and fills the page cache.
        spent = seconds(quick, ROUNDS) | seconds(slow, SLOW_ROUNDS)
    slowest = max(commands(), key=spent.__getitem__)

    def claim(what: str, name: str, goal: float | None = None) -> Claim:
        return Claim(what, "s", spent[name], goal=goal, less_is_better=True)

    return [
        claim("python -c pass, the floor", "nothing"),
        claim("import matpac", "import", IMPORT_S),
        claim("matpac --help", "help", HELP_S),
        claim(f"matpac {slowest} --help, the slowest command's", slowest, HELP_S),
        claim("matpac datasets", "table of datasets"),
        claim("import torch, the floor of all that computes", "torch"),
        claim("matpac.load of a tiny model to the first embedding of 10 s", "embedding"),
    ]


def python(*arguments: str, says: bool = True) -> Callable[[], None]:
    """A fresh process; `says`: it must write something to standard output."""
    return partial(start, (sys.executable, *arguments), says=says)


def start(command: tuple[str, ...], *, says: bool) -> None:
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode != 0 or bool(done.stdout) != says:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def commands() -> list[str]:
    from matpac.cli import app

    return [command.callback.__name__ for command in app.registered_commands if command.callback]


def untrained_checkpoint(folder: Path) -> Path:
    """Checkpoint of the model of presets/demo.yaml before its first update."""
    from matpac.params import load_params
    from matpac.training.loop import new_optimizer
    from matpac.weights.checkpoint import Meta, Standard, new_pretext, save_checkpoint

    params = load_params(PROJECT / "presets/demo.yaml")
    pretext = new_pretext(params.logmel, params.model, params.pretrain)
    meta = Meta(
        update=0,
        total_updates=1,
        num_clips=1,
        logmel=params.logmel,
        model=params.model,
        pretrain=params.pretrain,
        standard=Standard(mean=-7.0, std=4.0),
        data_digest="",
        git_revision="",
        hardware="",
        versions={},
        duration_s=0.0,
    )
    save_checkpoint(folder, pretext, new_optimizer(pretext, params.pretrain), meta)
    return folder


if __name__ == "__main__":
    run(measure, __doc__)
