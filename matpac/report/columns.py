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
    """How printed.yaml calls it; empty where papers print nothing."""
    datasets: tuple[str, ...]
    """Whose mean it is; empty where params.yaml does not probe all of them."""
    not_probed: tuple[str, ...] = ()
    """Kinds of the datasets that params.yaml would have to probe."""


@cache
def printed() -> dict[str, Any]:
    return yaml.safe_load(files("matpac.report").joinpath("printed.yaml").read_text(encoding="utf-8"))


def columns_of_paper(params: Params) -> list[Column]:
    """Of Table II: a dataset each, their mean, and what else is probed."""
    kinds = printed()["datasets"]
    columns = [column_of(title, kind, [kind], params) for kind, title in kinds.items()]
    return [*columns, column_of("Mean", "mean", kinds, params), *means_of(own_datasets(params))]


def columns_of_groups(params: Params) -> list[Column]:
    """Of Table III: means over groups of datasets, and what else is probed."""
    groups = printed()["groups"]
    columns = [column_of(name.capitalize(), name, kinds, params) for name, kinds in groups.items()]
    return columns + means_of(own_datasets(params))


def columns_of_figure(params: Params) -> list[Column]:
    """Groups that are not probed whole are left out: the figure prints no numbers to stand there instead."""
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


def means_of(datasets: Sequence[str]) -> list[Column]:
    """A column for each, and one for their mean where there are several."""
    columns = [Column(name, "", (name,)) for name in datasets]
    return columns + ([Column("Mean of these", "", tuple(datasets))] if len(datasets) > 1 else [])
