"""Rates and remaining times, and sizes and tables as text."""

import io
import logging
import re
import sys
import time

import pytest

from matpac.progress import (
    Progress,
    duration_between,
    escape_logs,
    in_columns,
    printable,
    say,
    size,
    three_digits,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def lines_of(clock, steps, total=4000):
    """Said at `steps`: seconds that pass, and work that is done after them."""
    said: list[str] = []
    progress = Progress("embed", total, "files", write=said.append)
    for seconds, amount in steps:
        clock.now += seconds
        progress.advance(amount)
    return said


def test_there_is_no_estimate_before_the_warm_up_is_over_and_moments_can_be_compared(clock):
    """A batch of 256 every 6 s after a warm-up of a minute."""
    first, second, third, fourth, *_, last = lines_of(clock, [(60, 256), *[(6, 256)] * 14, (6, 160)])
    assert first == "embed: 256/4,000 files (6%)"
    assert second == "embed: 512/4,000 files (13%)"
    assert third == "embed: 768/4,000 files (19%)"
    assert fourth == "embed: 1,024/4,000 files (26%), 42.7/s, 40 to 100 s left"
    assert last == "embed: 4,000/4,000 files (100%), 26.7/s"


def test_a_first_step_that_takes_minutes_frightens_nobody(clock):
    """Compilation: two updates in ten minutes, then five a second."""
    said = lines_of(clock, [(300, 1), (300, 1), *[(0.2, 1)] * 400], total=1000)
    assert all("left" not in line for line in said[:2])
    assert all("h left" not in line and " d left" not in line for line in said)


def test_the_range_narrows_and_follows_a_change_of_pace(clock):
    said = lines_of(clock, [*[(1, 10)] * 60, *[(4, 10)] * 60], total=2000)
    middle, end = said[11], said[-1]
    assert "10/s, 2 to 3 min left" in middle, middle
    assert "2.5/s" in end
    assert "3 to 6 min left" in end, end


def test_a_batch_that_is_counted_one_by_one_is_no_pace(clock):
    one_by_one = [(5, 1), *[(0, 1)] * 255]
    *_, third, fourth = lines_of(clock, 4 * one_by_one)
    assert third == "embed: 513/4,000 files (13%)"
    assert fourth == "embed: 769/4,000 files (19%), 51.2/s, 40 to 90 s left"


def test_without_a_total_there_is_a_pace_and_nothing_left(clock):
    assert lines_of(clock, [(6, 12)] * 4, total=0)[2:] == ["embed: 36 files", "embed: 48 files, 2/s"]


@pytest.mark.parametrize(
    ("shortest", "longest", "said"),
    [
        (3.2, 4.8, "3 to 5 s"),
        (0.2, 0.8, "at most 1 s"),
        (33, 78, "30 to 80 s"),
        (170, 178, "2 to 3 min"),
        (180, 180, "about 3 min"),
        (2 * 3600, 5.5 * 3600, "2 to 6 h"),
        (2 * 86400, 3 * 86400, "2 to 3 d"),
    ],
)
def test_ranges_as_a_person_says_them(shortest, longest, said):
    assert duration_between(shortest, longest) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1_183.4, "1,180"),
        (999.9, "1,000"),
        (12_345_678, "12,300,000"),
        (42.67, "42.7"),
        (100, "100"),
        (2, "2"),
        (2.5, "2.5"),
        (0.0131, "0.0131"),
        (0.00001, "0.00001"),
        (0, "0"),
    ],
)
def test_rates_have_three_digits_and_no_exponent(value, said):
    assert three_digits(value) == said


class Terminal(io.StringIO):
    """80 columns wide."""

    def isatty(self):
        return True

    def rows(self):
        """What it shows."""
        rows = [""]
        for part in re.findall(r"\n|\r|\x1b\[2K|.", self.getvalue()):
            if part == "\x1b[2K":
                rows[-1] = ""
            elif part == "\n":
                rows.append("")
            elif part != "\r":
                rows += [""] * (len(rows[-1]) == 80)
                rows[-1] += part
        return rows


def on_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def test_a_message_makes_the_moving_line_go_until_its_next_step(clock, monkeypatch):
    terminal = on_terminal(monkeypatch)
    progress = Progress("pretrain", 4000, "updates")
    for done in range(3):
        clock.now += 1
        progress.advance()
        say(f"WARNING {done}")
    assert terminal.rows() == ["WARNING 0", "WARNING 1", "WARNING 2", ""]
    clock.now += 1
    progress.advance()
    assert terminal.rows()[-1].startswith("pretrain: 4/4,000 updates")


def test_a_moving_line_is_cut_where_the_terminal_ends(clock, monkeypatch):
    terminal = on_terminal(monkeypatch)
    progress = Progress("pretrain", 4, "updates")
    for _ in range(4):
        clock.now += 1
        progress.advance(note="loss 0.5 " * 20)
    [row, after] = terminal.rows()
    assert row.startswith("pretrain: 4/4 updates (100%), 1/s  loss 0.5")
    assert after == ""


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [["name", "n"], ["a", "1,000"], ["longer", "2"]]
    assert in_columns(rows, right={1}) == ["name        n", "a       1,000", "longer      2"]


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(2e3, "2 kB"), (1.4e6, "1 MB"), (2.6e9, "2.6 GB"), (2.4e10, "24 GB"), (9.99e8, "999 MB")],
)
def test_sizes_as_a_person_says_them(num_bytes, said):
    assert size(num_bytes) == said


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nmatpac: done", r"a\nmatpac: done"),
        ("\x1b]0;title\x07.wav", r"\x1b]0;title\x07.wav"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb\x7f", r"a\rb\x7f"),
        ("gpj.\u202ewav", r"gpj.\u202ewav"),
        ("caf\udce9.wav", r"caf\udce9.wav"),
        ("naïve 東京 😀.wav", "naïve 東京 😀.wav"),
    ],
)
def test_names_are_shown_on_one_line_that_steers_no_terminal(name, shown):
    assert printable(name) == shown
    assert printable(shown) == shown
    assert in_columns([[name, "x"]]) == [f"{shown}  x"]


def test_a_terminal_without_the_characters_of_a_name_shows_their_escapes(tmp_path, monkeypatch):
    with (tmp_path / "terminal").open("w", encoding="ascii") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        say("café", "two", out=True)
    assert (tmp_path / "terminal").read_bytes() == b"caf\\xe9\ntwo\n"


def test_a_log_record_is_one_line_and_a_traceback_keeps_its_lines():
    before, hook = logging.getLogRecordFactory(), sys.excepthook
    stream = io.StringIO()
    logger, handler = logging.Logger("names"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    escape_logs()
    try:
        logger.warning("left out: %s", "a\x1b[31m\nforged.wav")
        logger.debug("%d of them", "not a number")  # A mistake of a library's must not end the work.
        try:
            raise ValueError("\x1b[2J")
        except ValueError:
            logger.exception("it failed")
    finally:
        logging.setLogRecordFactory(before)
        sys.excepthook = hook
    first, second, *lines = stream.getvalue().splitlines()
    assert first == r"left out: a\x1b[31m\nforged.wav"
    assert second == "it failed"
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == r"ValueError: \x1b[2J"


def test_a_file_that_may_not_be_opened_is_one_line_even_while_modules_are_imported(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = logging.getLogRecordFactory()
    escape_logs()
    logging.setLogRecordFactory(before)
    error = PermissionError(13, "Permission denied", ".prefect/profiles.toml")
    sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == (
        ".prefect/profiles.toml: Permission denied. Work as its owner, or be given the rights to it.\n"
    )
