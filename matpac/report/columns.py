"""probed datasets -> columns of the paper's tables."""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from matpac.params import Params


class Column(NamedTuple):
    title: str
    printed: str
    """Name in printed.yaml; empty if the papers print no such column."""
    datasets: tuple[str, ...]
    """Datasets to average; empty if params.yaml does not probe all of them."""
    not_probed: tuple[str, ...] = ()
    """Kinds of the datasets that params.yaml does not probe."""


@cache
def printed() -> dict[str, Any]:
    """The numbers of the papers, from printed.yaml."""
    text = files("matpac.report").joinpath("printed.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def columns_of_paper(params: Params) -> list[Column]:
    """Columns of Table II: a dataset each, their mean, and other probed datasets."""
    kinds = printed()["datasets"]
    columns = [column_of(title, kind, [kind], params) for kind, title in kinds.items()]
    return [*columns, column_of("Mean", "mean", kinds, params), *columns_of_own(own_datasets(params))]


def columns_of_groups(params: Params) -> list[Column]:
    """Columns of Table III: means over groups of datasets, and other probed datasets."""
    groups = printed()["groups"]
    columns = [column_of(name.capitalize(), name, kinds, params) for name, kinds in groups.items()]
    return columns + columns_of_own(own_datasets(params))


def columns_of_figure(params: Params) -> list[Column]:
    """Columns of Table III that are probed; the paper prints no numbers for the others."""
    return [column for column in columns_of_groups(params) if column.datasets]


def column_of(title: str, name: str, kinds: Iterable[str], params: Params) -> Column:
    found = {kind: probed_as(kind, params) for kind in kinds}
    datasets = tuple(dataset for dataset in found.values() if dataset is not None)
    not_probed = tuple(kind for kind, dataset in found.items() if dataset is None)
    return Column(title, name, () if not_probed else datasets, not_probed)


def probed_as(kind: str, params: Params) -> str | None:
    """The first probed dataset of a kind."""
    return next((name for name in params.probe.datasets if params.datasets[name].kind == kind), None)


def own_datasets(params: Params) -> list[str]:
    taken = {probed_as(kind, params) for kind in printed()["datasets"]}
    return [name for name in params.probe.datasets if name not in taken]


def columns_of_own(datasets: Sequence[str]) -> list[Column]:
    """A column for each dataset and, if there are several, one for their mean."""
    columns = [Column(name, "", (name,)) for name in datasets]
    return columns + ([Column("Mean of these", "", tuple(datasets))] if len(datasets) > 1 else [])
