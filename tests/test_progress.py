"""Rates and remaining times, and sizes and tables as text."""

import time

import pytest

from matpac.progress import Progress, in_columns, size


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


def test_there_is_no_estimate_before_two_moments_can_be_compared(clock):
    """A batch of 256 every 2 s after a warm-up of 6 s."""
    first, second, *_, last = lines_of(clock, [(6, 256), *[(2, 256)] * 14, (2, 160)])
    assert first == "embed: 256/4,000 files (6%)"
    assert second == "embed: 1,024/4,000 files (26%), 128/s, 23 s left"
    assert last == "embed: 4,000/4,000 files (100%), 111/s"


def test_a_batch_that_is_counted_one_by_one_is_no_pace(clock):
    one_by_one = [(5, 1), *[(0, 1)] * 255]
    first, second, third, *_ = lines_of(clock, 3 * one_by_one)
    assert first == "embed: 1/4,000 files (0%)"
    assert second == "embed: 257/4,000 files (6%), 51.2/s, 1 min 13 s left"
    assert third == "embed: 513/4,000 files (13%), 51.2/s, 1 min 08 s left"


def test_hearing_that_nothing_is_done_yet_is_no_beginning(clock):
    """The first file takes longer than the others together."""
    *_, last = lines_of(clock, [(1, 0), (60, 1), (6, 60)], total=100)
    assert last == "embed: 61/100 files (61%), 10/s, 4 s left"


def test_without_a_total_there_is_a_pace_and_nothing_left(clock):
    assert lines_of(clock, [(6, 10), (6, 12)], total=0) == ["embed: 10 files", "embed: 22 files, 2/s"]


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [["name", "n"], ["a", "1,000"], ["longer", "2"]]
    assert in_columns(rows, right={1}) == ["name        n", "a       1,000", "longer      2"]


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(2e3, "2 kB"), (1.4e6, "1 MB"), (2.6e9, "2.6 GB"), (2.4e10, "24 GB"), (9.99e8, "999 MB")],
)
def test_sizes_as_a_person_says_them(num_bytes, said):
    assert size(num_bytes) == said
