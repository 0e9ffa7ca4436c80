"""log-mels -> their mean and standard deviation, exact for any order and number of workers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import FiniteFloat, PositiveInt

from matpac.params import read_section

VALUES_AT_ONCE = 2**22
"""Values that are in memory as float64 (32 MB), which takes four times the memory of float16."""


@dataclass(frozen=True)
class Statistics:
    """Sums over all log-mel values of one or more datasets, as stored (float16)."""

    num_values: PositiveInt
    sum: FiniteFloat
    sum_of_squares: FiniteFloat

    @property
    def mean(self) -> float:
        return self.sum / self.num_values

    @property
    def std(self) -> float:
        return math.sqrt(max(self.sum_of_squares / self.num_values - self.mean**2, 0.0))


def statistics_of(log_mel: NDArray[np.float16]) -> Statistics:
    values = np.ascontiguousarray(log_mel).reshape(-1)
    return Statistics(values.size, *_sums(values))


def _sums(values: NDArray[np.float16]) -> tuple[float, float]:
    """Sums of the values and of their squares in float64, as NumPy rounds them: it adds halves, too."""
    if values.size > VALUES_AT_ONCE:
        half = values.size // 2
        half -= half % 8
        parts = _sums(values[:half]), _sums(values[half:])
        return parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
    exact = values.astype(np.float64)
    return float(exact.sum()), float(np.square(exact).sum())


def combined(parts: Iterable[Statistics]) -> Statistics:
    """Statistics of all parts together. fsum rounds once, so the order cannot matter."""
    parts = list(parts)
    return Statistics(
        sum(part.num_values for part in parts),
        math.fsum(part.sum for part in parts),
        math.fsum(part.sum_of_squares for part in parts),
    )


def read_statistics(folder: Path) -> Statistics:
    return read_section(Statistics, folder / "statistics.json")
