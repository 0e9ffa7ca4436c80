"""Progress that a person can read: one moving line on a terminal, a line every few seconds elsewhere.

Pipeline stages run without a terminal, where a bar of control characters is noise.
"""

import sys
import time
from collections.abc import Callable

from matpac.text import duration

SECONDS_BETWEEN_LINES = 5.0
SECONDS_UNTIL_RATE = 1.0
"""After the first work that was done, before which comes much that comes once."""


class Progress:
    """Counts work done; says how far it is, how fast it goes and how long it will take.

    `write` receives finished lines (a logger's `info`, say) instead of standard error. A total of 0 stands
    for one that nobody knows.
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
        """When the first work was done, and how much was done then."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count work; show a line where it is time for one or all work is done."""
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
        """Units a second: of all the work once it is done, before that since the first of it was.

        None as long as that says nothing. Whatever is done many at a time is counted from one such moment to
        another.
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
