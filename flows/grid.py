"""presets/grids/<name>.yaml -> an experiment for each of its settings, then a report on all of them.

python -m flows.grid alpha            one after another, here
python -m flows.grid alpha --seeds 3  each with three seeds of pre-training
python -m flows.grid alpha --queue    queue them for `dvc queue start --jobs <GPUs>`
python -m flows.grid alpha --cost     print what pre-training would cost; run nothing

matpac/grids.py says what a grid looks like.

Experiments run in this folder and not in DVC's copies of it, so that recordings, half-finished
trainings and records of other experiments stay at hand. Run the grid without `--queue` once the
queue is empty: its results come from DVC's run cache, and the report is written.
"""

import argparse
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import yaml

from flows.dvc import dvc
from flows.temporary_params import restore, temporary_params
from matpac.files import WORK, line_of, locked
from matpac.grids import GRIDS, changed, read_grid, with_setting
from matpac.params import PARAMS, Params, load_params, parse_params, read_yaml
from matpac.progress import say, stop

SHARDS = Path("data/shards")
FOLDER = WORK / "grid"
SEED = "pretrain.seed"


class Cell(NamedTuple):
    changes: dict[str, Any]
    """Changes to params.yaml, such as `pretrain.alpha: 0.5`; empty for params.yaml itself."""
    raw: dict[str, Any]
    """The whole params.yaml with the changes, as YAML holds it."""
    params: Params
    label: str = ""
    """Name of the setting in its grid, if it has one."""

    @property
    def assignments(self) -> list[str]:
        """The changes in the form that `dvc exp run --set-param` takes."""
        return [f"{key}={assigned(value)}" for key, value in self.changes.items()]

    @property
    def name(self) -> str:
        changes = " ".join(self.assignments)
        return f"{self.label}: {changes or PARAMS}" if self.label else changes or str(PARAMS)

    @property
    def text(self) -> str:
        """Content of a params.yaml with the changes."""
        written = f"# {self.name}, for now, by `python -m flows.grid`. Original: {FOLDER / PARAMS}"
        return f"{written}\n{yaml.safe_dump(self.raw, sort_keys=False)}"

    def with_changes(self, changes: Mapping[str, Any], where: str) -> "Cell":
        """Raises ValueError for values that params.yaml cannot have."""
        raw = changed(self.raw, changes)
        return Cell({**self.changes, **changes}, raw, parse_params(raw, where), self.label)


def assigned(value: Any) -> str:  # noqa: ANN401 - any value of a parameter
    """A value in the grammar of `--set-param`, which is JSON but for names of keys without quotes."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{assigned(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(assigned, value))}]"
    return json.dumps(value)


def cell_of(params: Path) -> Cell:
    checked = load_params(params)
    return Cell({}, read_yaml(params), checked)


def cells_of(grid: Path, params: Path, shards: Path = SHARDS) -> list[Cell]:
    """One cell for each setting of the grid, with equal compute if the grid asks for it.

    Raises ValueError if the grid does not exist or has values that `params` cannot take.
    """
    found, base, cells = read_grid(grid), cell_of(params), []
    for label, changes in found.settings:
        where = f"{params} with {grid}, {label}" if label else f"{params} with {grid}"
        changes, ours = with_setting(base.params, changes, found, shards, where)
        cells.append(Cell(changes, changed(base.raw, changes), ours, label))
    return cells


def with_seeds(base: Cell, cells: Sequence[Cell], num_seeds: int) -> list[Cell]:
    """All cells with the seed of `base`, then all with the next seed, and so on.

    If no cell equals `base`, the further seeds are also run for `base`: the report compares with
    it.
    """
    if num_seeds > 1 and any(SEED in cell.changes for cell in cells):
        raise ValueError(f"--seeds: need a grid of something else than {SEED}, found a grid of {SEED}")
    rows = cells if any(cell.raw == base.raw for cell in cells) else [base, *cells]
    first = base.params.pretrain.seed
    seeds = range(first + 1, first + num_seeds)
    return [*cells, *(row.with_changes({SEED: seed}, str(PARAMS)) for seed in seeds for row in rows)]


def possible(base: Cell, cells: Sequence[Cell], shards: Path) -> tuple[list[Cell], list[str]]:
    """Cells that the finished shards have clips for, and lines about the rest.

    A line says that a cell is left out, or that it learns from other clips than `base`.
    Raises ValueError if the shards have too few clips for `base` or for every cell.
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
    """Numbers of clips used and of clips too short; both 0 without training or without shards yet.

    Raises ValueError if the clips do not suffice for a single update.
    """
    from matpac.shards.crops import crops_of_finished
    from matpac.training.schedules import durations_of

    pretrain = cell.params.pretrain
    crops = crops_of_finished(shards, cell.params.logmel, pretrain) if pretrain.num_epochs else None
    if crops is None:
        return 0, 0
    durations_of(crops.num_clips, pretrain)
    return crops.num_clips, crops.num_dropped


def make_shards(base: Cell, cells: Sequence[Cell], lock: int) -> None:
    """Make the shards that the cells learn from; those of `base` come last.

    Equal compute counts clips. A setting without shards would get other epochs now than in the report, or
    when the grid is run again. Raises RuntimeError if shards cannot be made.
    """
    others = {cell.params.pretrain.datasets: cell for cell in cells}
    others.pop(base.params.pretrain.datasets, None)
    for cell in (*others.values(), base):
        with nullcontext() if cell is base else temporary_params(PARAMS, cell.text.encode(), FOLDER):
            if not succeeds(["repro", "corpus"], lock):
                raise RuntimeError(f"the shards of {cell.name} cannot be made, see above; nothing was run.")


def run(cells: Sequence[Cell], lock: int) -> None:
    """Run each cell up to its record, then params.yaml itself with the report on all.

    A cell that fails does not stop the others. Raises RuntimeError with the names of failed cells.
    """
    failed = []
    for number, cell in enumerate(cells, 1):
        say(f"grid: {cell.name} ({number} of {len(cells)})")
        with temporary_params(PARAMS, cell.text.encode(), FOLDER):
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
    """Hold the lock of grids; yields its descriptor, for children to inherit and so hold too.

    Raises RuntimeError if another process holds it.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with locked(path := FOLDER / "lock") as file:
        if file is None:
            raise RuntimeError(
                "a grid is at work in this folder, or what it ran is still stopping. "
                f"Wait for it (`fuser {path}` names it), and run again."
            )
        yield file.fileno()


def end_softly() -> None:
    """Let SIGTERM, SIGHUP and Ctrl-C end this process like an error, which restores params.yaml."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def end(number: int, _frame: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in numbers:
        # Under nohup, SIGHUP stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def main() -> None:
    """`python -m flows.grid`; an error that the user can fix ends in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.grid",
        description="Run an ablation: an experiment for each value, then the report. "
        "A grid that was stopped or killed continues when it is run again.",
    )
    parser.add_argument("name", help="a file in presets/grids, such as alpha")
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="pre-train each with N seeds, from pretrain.seed on; the spread over seeds is chance",
    )
    parser.add_argument("--queue", action="store_true", help="queue them; `dvc queue start` runs them")
    parser.add_argument("--cost", action="store_true", help="print what pre-training would cost and stop")
    wanted = parser.parse_args()
    end_softly()
    try:
        load_params(PARAMS)  # First, so that nothing is created in a wrong folder.
        with alone() as lock:
            try:
                if restore(PARAMS, FOLDER):
                    say(f"grid: {PARAMS} held the values of a grid that was killed; it is restored.")
                do(wanted, lock)
            finally:
                restore(PARAMS, FOLDER)
    except (ValueError, RuntimeError, OSError) as error:
        stop(f"grid: {line_of(error)}")
    except SystemExit as stopped:
        say(f"grid: stopped (signal {int(stopped.code or 128) - 128}). Run it again to continue.")
        raise


def do(wanted: argparse.Namespace, lock: int) -> None:
    if wanted.seeds < 1:
        raise ValueError(f"--seeds: need 1 or more, found {wanted.seeds}")
    grid = GRIDS / f"{wanted.name}.yaml"
    base, cells = cell_of(PARAMS), cells_of(grid, PARAMS)
    if not wanted.cost:
        make_shards(base, cells, lock)
    # Again: finished shards tell how many clips are long enough for each setting.
    cells, lines = possible(base, cells_of(grid, PARAMS), SHARDS)
    for line in lines:
        say(f"grid: {line}")
    named = [cell for cell in cells if cell.label]
    rows, cells = [base, *cells], with_seeds(base, cells, wanted.seeds)
    if wanted.cost or named:
        from matpac.training.cost import cost_table

        runs = {cell.label or cell.name: cell.params for cell in (rows if named else [base, *cells])}
        say(*cost_table(runs, SHARDS).split("\n"), out=True)
    if wanted.cost:
        return
    if wanted.queue:
        for cell in cells:
            changes = [part for one in cell.assignments for part in ("--set-param", one)]
            if not succeeds(["exp", "run", "--queue", *changes, "record"], lock):
                raise RuntimeError(f"{cell.name} could not be queued, see above.")
    else:
        run(cells, lock)
        for line in lines:
            say(f"grid: {line}")


if __name__ == "__main__":
    main()
