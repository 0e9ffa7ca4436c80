"""presets/grids/<name>.yaml -> an experiment for each of its values, then the report with all of them.

python -m flows.grid alpha            one after another, here
python -m flows.grid alpha --queue    for `dvc queue start --jobs <GPUs>`; then the line above collects
python -m flows.grid alpha --cost     what pre-training with each would cost; runs nothing

Experiments run in this folder, and not in DVC's copies of it: recordings, half-finished trainings and the
records of other experiments stay at hand. What the queue has computed comes back from DVC's run cache.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from matpac.params import Params, load_params, parse_params

GRIDS = Path("presets/grids")
PARAMS = Path("params.yaml")


def overrides(grid: Path, params: Path) -> dict[str, Params]:
    """`key=value` for each experiment, and all of `params` with it.

    Raises ValueError for a grid that does not exist, and for values that `params` cannot take.
    """
    if not grid.is_file():
        names = ", ".join(path.stem for path in sorted(grid.parent.glob("*.yaml")))
        raise ValueError(f"need a grid of {grid.parent} ({names}), got {grid.stem}")
    raw = yaml.safe_load(params.read_text(encoding="utf-8"))
    pairs = [
        (key, value)
        for key, values in yaml.safe_load(grid.read_text(encoding="utf-8")).items()
        for value in values
    ]
    return {
        f"{key}={json.dumps(value)}": parse_params(changed(raw, key, value), f"{params} with {grid}")
        for key, value in pairs
    }


def changed(raw: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    result = copy.deepcopy(raw)
    *sections, last = key.split(".")
    section = result
    for name in sections:
        section = section.setdefault(name, {})
    section[last] = value
    return result


def dvc(*arguments: str) -> None:
    """Raises RuntimeError where DVC fails; it has said why."""
    # Stages call `python`, which must be this one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], env=os.environ | {"PATH": path})
    if done.returncode:
        raise RuntimeError(
            f"`dvc {' '.join(arguments)}` failed, see above. Run the grid again: what is finished is kept."
        )


def run(experiments: Iterable[str]) -> None:
    """One after another, up to their record; then the run of params.yaml as it was, with its report."""
    before = PARAMS.read_bytes()
    try:
        for change in experiments:
            dvc("exp", "run", "--set-param", change, "record")
    finally:
        PARAMS.write_bytes(before)
    dvc("repro")


def main() -> None:
    """`python -m flows.grid`; what the user can put right ends in one line."""
    parser = argparse.ArgumentParser(prog="python -m flows.grid", description="Run an ablation.")
    parser.add_argument("name", help="a file of presets/grids, such as alpha")
    parser.add_argument("--queue", action="store_true", help="only line up: `dvc queue start` runs them")
    parser.add_argument("--cost", action="store_true", help="only say what pre-training would cost")
    wanted = parser.parse_args()
    try:
        experiments = overrides(GRIDS / f"{wanted.name}.yaml", PARAMS)
        if wanted.cost:
            from matpac.training.cost import cost_table

            runs = {str(PARAMS): load_params(PARAMS), **experiments}
            sys.stdout.write(f"{cost_table(runs, Path('data/shards'))}\n")
        elif wanted.queue:
            for change in experiments:
                dvc("exp", "run", "--queue", "--set-param", change, "record")
        else:
            run(experiments)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"grid: {error}")


if __name__ == "__main__":
    main()
