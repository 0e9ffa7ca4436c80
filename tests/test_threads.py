import time
from contextlib import closing
from functools import partial
from itertools import islice

import pytest

from matpac.threads import ahead


def test_results_come_in_the_order_of_the_jobs():
    jobs = (partial(pow, number, 2) for number in range(20))
    assert list(ahead(jobs, 4, num_threads=3)) == [number**2 for number in range(20)]


def test_jobs_are_read_no_further_than_asked_for():
    begun = []

    def jobs():
        for number in range(20):
            begun.append(number)
            yield partial(int, number)

    assert list(islice(ahead(jobs(), 4), 2)) == [0, 1]
    assert begun == [0, 1, 2, 3, 4]


def test_a_job_that_fails_is_heard_of_in_its_turn():
    results = ahead([partial(int, "1"), partial(int, "one")], 2)
    assert next(results) == 1
    with pytest.raises(ValueError, match="one"):
        next(results)


def test_results_come_in_order_and_only_a_few_ahead():
    begun = []

    def slow_first(number):
        begun.append(number)
        time.sleep(0.05 if number == 0 else 0)
        return number

    with closing(ahead((partial(slow_first, number) for number in range(100)), 8, 4)) as results:
        assert next(results) == 0
        assert len(begun) <= 8
        assert list(results) == list(range(1, 100))


def test_closed_early_it_leaves_out_what_has_not_begun():
    begun = []

    def slow(number):
        begun.append(number)
        time.sleep(0.05)

    with closing(ahead((partial(slow, number) for number in range(100)), 8, 1)) as results:
        next(results)
    assert len(begun) <= 3
