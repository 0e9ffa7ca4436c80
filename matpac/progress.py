"""Progress, sizes, times and tables as text for people.

Progress is one moving line on a terminal. Elsewhere, as in pipeline stages, it is a line every few
seconds.
"""

import logging
import math
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, TypeVar

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 5.0
SECONDS_AT_ONCE = 0.05
"""Work counted within this time was done together, as the items of a batch are."""
WARM_UP = 2
"""Moments of work that say nothing of the pace: compilers and caches warm up."""
MOST_MOMENTS = 128
CLEAR = "\r\x1b[2K"
"""Moves a terminal to the beginning of an empty line."""
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that begin lines, steer terminals or turn the direction of reading; halves of others."""


def printable(line: str) -> str:
    """The line with control characters as escapes: a name can neither begin a line nor steer a terminal."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


def say(*lines: str, out: bool = False) -> None:
    """Print lines for people: on standard error, or on standard output if they are what was asked for.

    All that matpac prints goes through here. Control characters are escaped, and so are characters that
    the stream's encoding does not have. A moving line makes room, and comes back with its next step.
    """
    Progress.clear()
    stream = sys.stdout if out else sys.stderr
    text = "".join(f"{printable(line)}\n" for line in lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def stop(line: str) -> NoReturn:
    """End the process with one line on standard error and exit status 1."""
    say(line)
    raise SystemExit(1)


_new_record = logging.getLogRecordFactory()


def escape_logs() -> None:
    """Let every log record of this process be one printable line; tracebacks keep their lines.

    A file that may not be opened is one line without a traceback, wherever it is met.
    """
    logging.setLogRecordFactory(_printable_record)
    sys.excepthook = _say_traceback


def _printable_record(*args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: ANN401 - as logging has it
    record = _new_record(*args, **kwargs)
    # Messages that do not fit their arguments are for the handlers to report.
    with suppress(TypeError, ValueError, KeyError):
        message = record.getMessage()
        if (shown := printable(message)) != message:
            record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[0]:
        record.exc_text = "\n".join(map(printable, _lines_of(*record.exc_info)))
    return record


def _say_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if isinstance(error, PermissionError) and error.filename:
        # Before any command begins, too: Prefect looks into its folder when it is imported.
        say(f"{error.filename}: {error.strerror}. Work as its owner, or be given the rights to it.")
    else:
        say(*_lines_of(kind, error, trace))


def _lines_of(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> list[str]:
    return "".join(traceback.format_exception(kind, error, trace)).rstrip().split("\n")


class Progress:
    """Counts work; shows how much is done, how fast it goes and how long the rest will take.

    `write` receives finished lines (a logger's `info`, for example) instead of standard error. A
    total of 0 means that it is unknown.
    """

    _stands = False
    """Whether a moving line stands on the terminal, which has only one, whichever object wrote it."""

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
        self._moments: list[tuple[float, int]] = []
        """Times at which work was done, and the amount done before."""
        self._num_moments = 0

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count work; show a line if one is due or all work is done."""
        self.done += amount
        now = time.monotonic()
        if amount:
            self._remember(now, self.done - amount)
        finished = 0 < self.total <= self.done
        if finished or now - self._shown >= (0.2 if self._moving else SECONDS_BETWEEN_LINES):
            self._shown = now
            self._show(self.line(note), finished=finished)

    def line(self, note: str = "") -> str:
        finished = 0 < self.total <= self.done
        rates = [self._whole_rate()] if finished else self._rates()
        speed = f", {three_digits(rates[-1])}/s" if rates else ""
        if not self.total:
            return f"{self.label}: {self.done:,} {self.unit}{speed}  {note}".rstrip()
        left = "" if finished else self._left(rates)
        share = self.done / self.total
        text = f"{self.label}: {self.done:,}/{self.total:,} {self.unit} ({share:.0%}){speed}{left}"
        return f"{text}  {note}".rstrip()

    def _remember(self, now: float, done_before: int) -> None:
        moments = self._moments
        if moments and now - moments[-1][0] < SECONDS_AT_ONCE:
            return
        moments.append((now, done_before))
        self._num_moments += 1
        if self._num_moments == WARM_UP:
            del moments[:-1]
        if len(moments) > MOST_MOMENTS:
            del moments[1:-1:2]

    def _rates(self) -> list[float]:
        """Units a second since the warm-up, over the last half of that time, and over its last quarter.

        Empty until there are three moments to compare.
        """
        if self._num_moments < WARM_UP + 2:
            return []
        (began, _), (now, done) = self._moments[0], self._moments[-1]
        rates = []
        for share in (1, 1 / 2, 1 / 4):
            since = now - share * (now - began)
            time_then, done_then = [moment for moment in self._moments[:-1] if moment[0] <= since][-1]
            rates.append((done - done_then) / (now - time_then))
        return rates

    def _whole_rate(self) -> float:
        return (self.done - self._done_at_start) / max(time.monotonic() - self._started, 1e-9)

    def _left(self, rates: list[float]) -> str:
        """The time that the rest takes: a range, which narrows as evidence grows."""
        if not rates:
            return ""
        doubt = 0.5 / (self._num_moments - WARM_UP) ** 0.5
        rest = self.total - self.done
        shortest, longest = rest / max(rates) * (1 - doubt), rest / min(rates) * (1 + doubt)
        return f", {duration_between(shortest, longest)} left"

    def _show(self, line: str, *, finished: bool) -> None:
        if self._write is not None:
            self._write(line)
        elif self._moving:
            # Of a line that wraps, only the last row could be cleared.
            columns = shutil.get_terminal_size().columns - 1
            sys.stderr.write(CLEAR + printable(line)[:columns] + ("\n" if finished else ""))
            sys.stderr.flush()
            Progress._stands = not finished
        else:
            say(line)

    @staticmethod
    def clear() -> None:
        """Wipe a moving line off the terminal, so that other lines can be written."""
        if Progress._stands:
            Progress._stands = False
            sys.stderr.write(CLEAR)
            sys.stderr.flush()


def counted(items: Iterable[Item], advance: Callable[[], object]) -> Iterator[Item]:
    """The same items; `advance` is called for each, as by `Progress.advance`."""
    for item in items:
        advance()
        yield item


def in_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lines with cells padded to equal width; the columns in `right` are right-aligned."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def three_digits(value: float) -> str:
    """`1,180`, `42.7`, `2.5`, `0.0131`: rounded to three digits, never with an exponent."""
    if not value:
        return "0"
    places = 2 - math.floor(math.log10(abs(value)))
    text = f"{round(value, places):,.{max(places, 0)}f}"
    return text.rstrip("0").rstrip(".") if places > 0 else text


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


def duration_between(shortest: float, longest: float) -> str:
    """`4 to 7 s`, `about 3 min`, `2 to 3 h`, both in one unit and rounded outwards."""
    unit, seconds = next(
        (
            (name, length)
            for name, length in (("d", 86400), ("h", 3600), ("min", 60))
            if longest >= 2 * length
        ),
        ("s", 1),
    )
    # Tens of seconds are exact enough.
    step = 10 if unit == "s" and longest > 30 else 1
    low = math.floor(shortest / seconds / step) * step
    high = math.ceil(longest / seconds / step) * step
    if low == high:
        return f"about {high} {unit}"
    return f"{low} to {high} {unit}" if low else f"at most {high} {unit}"
