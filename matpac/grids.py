"""presets/grids/<name>.yaml -> settings to compare, by name.

A grid has one of two forms. One key and its values:

    pretrain.alpha: [0.25, 0.5, 0.75, 1.0]

or settings with names, which may change several keys at once:

    equal_compute: true
    settings:
      paper: {}
      m2d: {pretrain.alpha: 1.0, pretrain.adam_eps: 1.0e-8}

With `equal_compute`, the epochs of each setting are scaled until it costs what params.yaml costs.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matpac.params import PARAMS, Params, parse_params, read_yaml

GRIDS = Path("presets/grids")
EPOCHS = ("pretrain.num_epochs", "pretrain.warmup_epochs", "pretrain.teacher_temperature_epochs")
"""Lengths of the run and of its phases, which equal compute scales together."""


class Grid(NamedTuple):
    settings: list[tuple[str, dict[str, Any]]]
    """Name and changes to params.yaml (`pretrain.alpha: 0.5`) of each run; values have no names."""
    equal_compute: bool


def read_grid(path: Path) -> Grid:
    """Read a grid.

    Raises:
        ValueError: There is no such grid, it has neither form, or it sets what `equal_compute` scales.
    """
    if not path.is_file():
        names = ", ".join(one.stem for one in sorted(path.parent.glob("*.yaml")))
        raise ValueError(f"need a grid of {path.parent} ({names}), found {path.stem}")
    raw = read_yaml(path)
    if not isinstance(raw, dict) or not raw:
        raise ValueError(f"{path}: need a key with its values, or `settings`, found {raw!r}")
    if "settings" not in raw:
        for key, values in raw.items():
            if not isinstance(values, list):
                raise ValueError(f"{path}: {key}: need a list of values, found {values!r}")  # noqa: TRY004
        return Grid([("", {key: value}) for key, values in raw.items() for value in values], False)
    settings, equal_compute = raw["settings"], raw.get("equal_compute", False)
    if unknown := raw.keys() - {"settings", "equal_compute"}:
        raise ValueError(f"{path}: need settings and equal_compute only, found {', '.join(sorted(unknown))}")
    if not isinstance(equal_compute, bool):
        raise ValueError(f"{path}: equal_compute: need true or false, found {equal_compute!r}")  # noqa: TRY004
    if not isinstance(settings, dict) or not all(isinstance(one, dict) for one in settings.values()):
        raise ValueError(f"{path}: settings: need names, each with its keys and values ({{}} for none)")
    for name, changes in settings.items():
        if equal_compute and EPOCHS[0] in changes:
            raise ValueError(
                f"{path}: settings.{name}: need no {EPOCHS[0]} with equal_compute: true, which sets it, "
                f"found {changes[EPOCHS[0]]}. Set it in params.yaml, for all."
            )
    return Grid(list(settings.items()), equal_compute)


def changed(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of params.yaml as YAML holds it, with other values of some keys.

    Raises:
        ValueError: A key lies in something that is no section here, such as null.
    """
    copied = copy.deepcopy(dict(raw))
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = copied
        for name in sections:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise ValueError(f"{key}: need a section {name} in {PARAMS}, found {section!r}")  # noqa: TRY004
        section[last] = value
    return copied


def with_setting(
    params: Params, changes: Mapping[str, Any], grid: Grid, shards: Path, where: str
) -> tuple[dict[str, Any], Params]:
    """Changes of a setting of the grid, with its epochs at equal compute, and `params` with them.

    Raises ValueError if `params` cannot take the changes.
    """
    raw = params.model_dump(mode="json")
    ours = parse_params(changed(raw, changes), where)
    if not grid.equal_compute:
        return dict(changes), ours
    changes = {**changes, **epochs_at_equal_compute(ours, params, shards)}
    return changes, parse_params(changed(raw, changes), where)


def epochs_at_equal_compute(params: Params, base: Params, shards: Path) -> dict[str, float]:
    """Epochs with which `params` costs as many operations as `base`; empty if nothing has to change.

    The run, its warm-up and its rise of the temperature are scaled alike, so phases keep their shares.
    Before the shards are finished, and if no clip is long enough for `params`, both are taken to have clips
    for as many crops an epoch.
    """
    from matpac.training.cost import clips_in, flops_of

    if not params.pretrain.num_epochs or not base.pretrain.num_epochs:
        return {}
    theirs = clips_in(shards, base)
    try:
        ours = clips_in(shards, params)
    except ValueError:
        ours = None
    clips = theirs / ours if ours and theirs else 1
    num_epochs = base.pretrain.num_epochs * clips * flops_of(base).total / flops_of(params).total
    factor = num_epochs / params.pretrain.num_epochs
    if factor == 1:
        return {}
    epochs = {key: getattr(params.pretrain, key.removeprefix("pretrain.")) for key in EPOCHS}
    return {key: float(f"{value * factor:.6g}") for key, value in epochs.items()}
