import pytest

from matpac.text import in_columns, size


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [["name", "n"], ["a", "1,000"], ["longer", "2"]]
    assert in_columns(rows, right={1}) == ["name        n", "a       1,000", "longer      2"]


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(2e3, "2 kB"), (1.4e6, "1 MB"), (2.6e9, "2.6 GB"), (2.4e10, "24 GB"), (9.99e8, "999 MB")],
)
def test_sizes_as_a_person_says_them(num_bytes, said):
    assert size(num_bytes) == said
