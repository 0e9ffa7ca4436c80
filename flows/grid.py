"""presets/grids/<name>.yaml -> an experiment for each of its values, then the report with all of them.

python -m flows.grid alpha            one after another, here
python -m flows.grid alpha --seeds 3  each with three seeds of pre-training
python -m flows.grid alpha --queue    for `dvc queue start --jobs <GPUs>`; then the line above collects
python -m flows.grid alpha --cost     what pre-training with each would cost; runs nothing

Experiments run in this folder, and not in DVC's copies of it: recordings, half-finished trainings and the
records of other experiments stay at hand. What the queue has computed comes back from DVC's run cache.
"""

import argparse
import copy
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import yaml

from flows.dvc import dvc
from flows.lent import lent, put_back
from matpac.files import WORK, locked
from matpac.params import Params, load_params, parse_params

GRIDS = Path("presets/grids")
PARAMS = Path("params.yaml")
SHARDS = Path("data/shards")
FOLDER = WORK / "grid"
SEED = "pretrain.seed"


class Cell(NamedTuple):
    changes: dict[str, Any]
    """To params.yaml: `pretrain.alpha: 0.5`. None are those of params.yaml itself."""
    raw: dict[str, Any]
    """All of params.yaml with them, as YAML holds it."""
    params: Params

    @property
    def assignments(self) -> list[str]:
        """As DVC takes them."""
        return [f"{key}={json.dumps(value)}" for key, value in self.changes.items()]

    @property
    def name(self) -> str:
        return " ".join(self.assignments) or str(PARAMS)

    @property
    def text(self) -> str:
        """Of a params.yaml."""
        written = f"# {self.name}, for now, by `python -m flows.grid`. Before: {FOLDER / PARAMS}"
        return f"{written}\n{yaml.safe_dump(self.raw, sort_keys=False)}"

    def with_changes(self, changes: Mapping[str, Any], where: str) -> "Cell":
        """Raises ValueError for values that cannot be."""
        raw = copy.deepcopy(self.raw)
        for key, value in changes.items():
            *sections, last = key.split(".")
            section = raw
            for name in sections:
                section = section.setdefault(name, {})
            section[last] = value
        return Cell({**self.changes, **changes}, raw, parse_params(raw, where))


def cell_of(params: Path) -> Cell:
    checked = load_params(params)
    return Cell({}, yaml.safe_load(params.read_text(encoding="utf-8")), checked)


def cells_of(grid: Path, params: Path) -> list[Cell]:
    """One for each value.

    Raises ValueError for a grid that does not exist, and for values that `params` cannot take.
    """
    if not grid.is_file():
        names = ", ".join(path.stem for path in sorted(grid.parent.glob("*.yaml")))
        raise ValueError(f"need a grid of {grid.parent} ({names}), got {grid.stem}")
    base = cell_of(params)
    return [
        base.with_changes({key: value}, f"{params} with {grid}")
        for key, values in yaml.safe_load(grid.read_text(encoding="utf-8")).items()
        for value in values
    ]


def with_seeds(base: Cell, cells: Sequence[Cell], num_seeds: int) -> list[Cell]:
    """Every cell with the seed of `base`, then every one with the next, and so on.

    Where no cell is `base` itself, `base` gets the further seeds as well: the report compares with it.
    """
    if num_seeds > 1 and any(SEED in cell.changes for cell in cells):
        raise ValueError(f"--seeds: need a grid of something else than {SEED}, got one of it")
    rows = cells if any(cell.raw == base.raw for cell in cells) else [base, *cells]
    first = base.params.pretrain.seed
    seeds = range(first + 1, first + num_seeds)
    return [*cells, *(row.with_changes({SEED: seed}, str(PARAMS)) for seed in seeds for row in rows)]


def possible(base: Cell, cells: Sequence[Cell], shards: Path) -> tuple[list[Cell], list[str]]:
    """Cells that the finished shards have clips for; a line on each that they have none for, or others.

    Raises ValueError where they have none for any cell, or for `base`.
    """
    _, left_out_of_base = clips_of(base, shards)
    found, lines = [], []
    for cell in cells:
        try:
            num_clips, left_out = clips_of(cell, shards)
        except ValueError as error:
            lines.append(f"{cell.name} is left out: {error}")
            continue
        found.append(cell)
        if left_out != left_out_of_base:
            lines.append(
                f"{cell.name} learns from {num_clips:,} of {num_clips + left_out:,} clips: the others are "
                f"shorter than its crops. {PARAMS} leaves out {left_out_of_base:,}."
            )
    if not found:
        raise ValueError(f"no value of the grid can be run. {' '.join(lines)}")
    return found, lines


def clips_of(cell: Cell, shards: Path) -> tuple[int, int]:
    """That are learned from, and that are too short; 0 and 0 without training, or without shards so far.

    Raises ValueError where they do not make a single update.
    """
    from matpac.shards.crops import crops_of_finished
    from matpac.training.schedules import durations

    pretrain = cell.params.pretrain
    crops = crops_of_finished(shards, cell.params.logmel, pretrain) if pretrain.num_epochs else None
    if crops is None:
        return 0, 0
    durations(crops.num_clips, pretrain)
    return crops.num_clips, crops.num_dropped


def run(cells: Sequence[Cell], lock: int) -> None:
    """One after another, up to their record; then the run of params.yaml itself, with the report of all.

    One that fails does not keep the others from theirs. Raises RuntimeError with their names then.
    """
    failed = []
    for number, cell in enumerate(cells, 1):
        say(f"{cell.name} ({number} of {len(cells)})")
        with lent(PARAMS, cell.text.encode(), FOLDER):
            if not succeeds(["repro", "record"], lock):
                failed.append(cell.name)
    if not succeeds(["repro"], lock):
        failed.append(f"{PARAMS} itself and the report")
    if failed:
        raise RuntimeError(
            f"failed, see above: {', '.join(failed)}. Run the grid again: what is finished is kept."
        )


def succeeds(arguments: Sequence[str], lock: int) -> bool:
    with dvc(arguments, held=[lock]) as process:
        return process.wait() == 0


@contextmanager
def alone() -> Iterator[int]:
    """The descriptor of a lock: children that inherit it hold it too. Raises RuntimeError if it is held."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with locked(path := FOLDER / "lock") as file:
        if file is None:
            raise RuntimeError(
                "a grid is at work in this folder, or what it ran is still stopping. "
                f"Wait for it (`fuser {path}` names it), and run again."
            )
        yield file.fileno()


def end_softly() -> None:
    """Let SIGTERM, SIGHUP and Ctrl-C end this process as an error would, so that all is put back."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def end(number: int, _frame: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in numbers:
        # Under nohup, SIGHUP stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def say(line: str) -> None:
    sys.stderr.write(f"grid: {line}\n")
    sys.stderr.flush()


def main() -> None:
    """`python -m flows.grid`; what the user can put right ends in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.grid",
        description="Run an ablation. Killed at any moment, it goes on where it was when it is run again.",
    )
    parser.add_argument("name", help="a file of presets/grids, such as alpha")
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="pre-train each with N seeds, from pretrain.seed on: only these tell what is chance of training",
    )
    parser.add_argument("--queue", action="store_true", help="only line up: `dvc queue start` runs them")
    parser.add_argument("--cost", action="store_true", help="only say what pre-training would cost")
    wanted = parser.parse_args()
    end_softly()
    try:
        load_params(PARAMS)  # In a wrong folder, nothing is made.
        with alone() as lock:
            try:
                if put_back(PARAMS, FOLDER):
                    say(f"{PARAMS} had the values of a grid that was killed: it is as it was before.")
                do(wanted, lock)
            finally:
                put_back(PARAMS, FOLDER)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"grid: {error}")
    except SystemExit as stopped:
        say(f"stopped (signal {int(stopped.code or 128) - 128}). Run it again: it goes on where it was.")
        raise


def do(wanted: argparse.Namespace, lock: int) -> None:
    if wanted.seeds < 1:
        raise ValueError(f"--seeds: need 1 or more, got {wanted.seeds}")
    base, cells = cell_of(PARAMS), cells_of(GRIDS / f"{wanted.name}.yaml", PARAMS)
    if not (wanted.cost or wanted.queue) and not succeeds(["repro", "corpus"], lock):
        raise RuntimeError(f"the shards of {PARAMS} cannot be made, see above; nothing was run.")
    cells, lines = possible(base, cells, SHARDS)
    for line in lines:
        say(line)
    cells = with_seeds(base, cells, wanted.seeds)
    if wanted.cost:
        from matpac.training.cost import cost_table

        runs = {cell.name: cell.params for cell in [base, *cells]}
        sys.stdout.write(f"{cost_table(runs, SHARDS)}\n")
    elif wanted.queue:
        for cell in cells:
            changes = [part for one in cell.assignments for part in ("--set-param", one)]
            if not succeeds(["exp", "run", "--queue", *changes, "record"], lock):
                raise RuntimeError(f"{cell.name} could not be lined up, see above.")
    else:
        run(cells, lock)
        for line in lines:
            say(line)


if __name__ == "__main__":
    main()
