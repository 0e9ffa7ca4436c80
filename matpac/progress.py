"""Progress that a person can read: one moving line on a terminal, a line every few seconds elsewhere.

Pipeline stages run without a terminal, where a bar of control characters is noise.
"""

import sys
import time
from collections.abc import Callable

from matpac.text import duration

SECONDS_BETWEEN_LINES = 5.0


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

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count work; show a line where it is time for one or all work is done."""
        self.done += amount
        now = time.monotonic()
        finished = 0 < self.total <= self.done
        if finished or now - self._shown >= (0.2 if self._moving else SECONDS_BETWEEN_LINES):
            self._shown = now
            self._show(self.line(note), finished=finished)

    def line(self, note: str = "") -> str:
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self._done_at_start) / elapsed_s
        if not self.total:
            return f"{self.label}: {self.done:,} {self.unit}, {rate:,.3g}/s  {note}".rstrip()
        share = self.done / self.total
        left = f", {duration((self.total - self.done) / rate)} left" if rate > 0 and share < 1 else ""
        text = f"{self.label}: {self.done:,}/{self.total:,} {self.unit} ({share:.0%}), {rate:,.3g}/s{left}"
        return f"{text}  {note}".rstrip()

    def _show(self, line: str, *, finished: bool) -> None:
        if self._write is not None:
            self._write(line)
        elif self._moving:
            sys.stderr.write(f"\r\x1b[2K{line}" + ("\n" if finished else ""))
            sys.stderr.flush()
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
