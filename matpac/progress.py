"""Progress, sizes, times and tables as text for people.

Progress is one moving line on a terminal. Elsewhere, as in pipeline stages, it is a line every few
seconds.
"""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 5.0
SECONDS_UNTIL_RATE = 1.0
"""Seconds of work before a rate is shown; start-up cost would distort it."""


class Progress:
    """Counts work; shows how much is done, how fast it goes and how long the rest will take.

    `write` receives finished lines (a logger's `info`, for example) instead of standard error. A
    total of 0 means that it is unknown.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self._done_at_start = done
        self._write = write
        self._moving = write is None and sys.stderr.isatty()
        self._started = time.monotonic()
        self._shown = self._started
        self._first: tuple[float, int] | None = None
        """Time of the first work done, and the amount done by then."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count work; show a line if one is due or all work is done."""
        self.done += amount
        now = time.monotonic()
        if self._first is None and amount:
            self._first = now, self.done
        finished = 0 < self.total <= self.done
        if finished or now - self._shown >= (0.2 if self._moving else SECONDS_BETWEEN_LINES):
            self._shown = now
            self._show(self.line(note), finished=finished)

    def line(self, note: str = "") -> str:
        rate = self._rate()
        speed = f", {rate:,.3g}/s" if rate else ""
        if not self.total:
            return f"{self.label}: {self.done:,} {self.unit}{speed}  {note}".rstrip()
        left = (
            f", {duration((self.total - self.done) / rate)} left" if rate and self.done < self.total else ""
        )
        share = self.done / self.total
        text = f"{self.label}: {self.done:,}/{self.total:,} {self.unit} ({share:.0%}){speed}{left}"
        return f"{text}  {note}".rstrip()

    def _rate(self) -> float | None:
        """Units a second since the first work was done; once all is done, over the whole time.

        None until a rate is meaningful. Batched work is measured between batch ends.
        """
        now = time.monotonic()
        if 0 < self.total <= self.done:
            return (self.done - self._done_at_start) / max(now - self._started, 1e-9)
        if self._first is None or now - self._first[0] < SECONDS_UNTIL_RATE:
            return None
        return (self.done - self._first[1]) / (now - self._first[0])

    def _show(self, line: str, *, finished: bool) -> None:
        if self._write is not None:
            self._write(line)
        elif self._moving:
            sys.stderr.write(f"\r\x1b[2K{line}" + ("\n" if finished else ""))
            sys.stderr.flush()
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def counted(items: Iterable[Item], advance: Callable[[], object]) -> Iterator[Item]:
    """The same items; `advance` is called for each, as by `Progress.advance`."""
    for item in items:
        advance()
        yield item


def in_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lines with cells padded to equal width; the columns in `right` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def size(num_bytes: float) -> str:
    """`12 kB`, `3 MB`, `1.2 GB`, `24 GB`."""
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.0f} kB"
    if num_bytes < 1e9:
        return f"{num_bytes / 1e6:.0f} MB"
    return f"{num_bytes / 1e9:.{0 if num_bytes >= 1e10 else 1}f} GB"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
