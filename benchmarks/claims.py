"""Results of a benchmark: our figure, the peer's or the limit's from the same run, and the goal.

A benchmark is a module with a function `measure() -> list[Claim]`, and ends with

    if __name__ == "__main__":
        run(measure, __doc__)

It checks that peer and ours give the same results before it times them. Machines are noisy, so both
are timed alternately, several times, and their ratio is reported.

A limit is a part of our work that nobody can do without: decoding, copying, matrix products. Its
rate cannot be passed, so the goal is a share of it.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Claim:
    """One line of the table."""

    what: str
    unit: str
    ours: float
    peer: str | None = None
    """Name of the peer, which does the same work with the same result, or of the limit."""
    theirs: float | None = None
    goal: float | None = None
    """Goal for `ratio` if there is a peer, else for `ours`; None if there is no goal."""
    less_is_better: bool = False
    is_limit: bool = False
    """Whether the peer is a limit; ratio and goal are then shown in percent."""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than the peer's."""
        if self.theirs is None:
            return None
        return self.theirs / self.ours if self.less_is_better else self.ours / self.theirs

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        if self.ratio is not None:
            return self.ratio >= self.goal
        return self.ours <= self.goal if self.less_is_better else self.ours >= self.goal

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "met": self.met}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Claim":
        return cls(**{name: value for name, value in raw.items() if name not in ("ratio", "met")})

    def cells(self) -> list[str]:
        """The cells what, ours, peer, ratio and goal, formatted for people."""
        ours = f"{number(self.ours)} {self.unit}"
        peer = "" if self.theirs is None else f"{self.peer}: {number(self.theirs)}"
        ratio = "" if self.ratio is None else self._as_ratio(self.ratio)
        if self.goal is None:
            return [self.what, ours, peer, ratio, ""]
        goal = f"{number(self.goal)} {self.unit}" if self.ratio is None else self._as_ratio(self.goal)
        side = "at most" if self.less_is_better and self.ratio is None else "at least"
        return [self.what, ours, peer, ratio, f"{side} {goal}{'' if self.met else ' (missed)'}"]

    def _as_ratio(self, value: float) -> str:
        return f"{number(100 * value)} % of it" if self.is_limit else f"{number(value)} x"


COLUMNS = ("what", "ours", "peer", "ratio", "goal")


def number(value: float) -> str:
    """Three digits: 0.123, 12.3, 12,300."""
    if value == 0 or abs(value) >= 100:
        digits = max(len(str(round(abs(value)))) - 3, 0)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def as_text(claims: Sequence[Claim]) -> str:
    lines = [list(COLUMNS), *(claim.cells() for claim in claims)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def seconds(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds per call of each, called in turn so that noise hits all alike."""
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            spent[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in spent.items()}


def run(measure: Callable[[], list[Claim]], about: str | None) -> None:
    """The command line of a benchmark: print its claims, and with `--json` also write them."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the claims")
    arguments = parser.parse_args()
    claims = measure()
    sys.stdout.write(f"{as_text(claims)}\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([claim.as_json() for claim in claims]))
