"""tensors <-> a safetensors file: networks by the names of Pretext, and the mel filterbank.

Whatever is read from a file is checked here: its tensors are of floating point and finite, and have the
shapes that the file beside it says.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from matpac.files import whole_file

MEL_FILTERS = "mel_filters"
"""Name of the filterbank `[bin, mel]` that the networks were trained with. Older files have none."""
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

Shapes = Mapping[str, list[int]]


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a whole file or none.

    Raises:
        OSError: The file cannot be written; the error names it.
    """
    with whole_file(path) as partial:
        try:
            save_file(tensors, partial, metadata)
        except SafetensorError as error:
            found = re.search(r"os error (\d+)", str(error))
            number = int(found[1]) if found else errno.EIO
            raise OSError(number, os.strerror(number), str(path)) from error


def read_tensors(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """Read the tensors whose names begin with one of the prefixes, onto the CPU.

    Raises:
        ValueError: The file is damaged or missing, or a tensor of it is not finite; the error names it.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118 - no mapping
    check_finite(path, tensors)
    return tensors


def read_networks(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """Read the same, without the mel filterbank."""
    tensors = read_tensors(path, prefixes)
    tensors.pop(MEL_FILTERS, None)
    return tensors


def read_shapes(path: Path) -> dict[str, list[int]]:
    """Read the shape of each tensor from the header of the file.

    Raises:
        ValueError: The file is damaged or missing; the error names it.
    """
    with _opened(path) as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that no sound training leaves behind.

    Raises:
        ValueError: A tensor is not of floating point, or has NaN or infinity; the error names file and
            tensor.
    """
    for name, value in tensors.items():
        if value.dtype not in FLOATS:
            raise ValueError(
                f"{path}: {name}: need numbers of floating point, found {value.dtype}. Get a sound copy."
            )
        # The sum shows every NaN and infinity in one pass without a copy; it may also overflow.
        if not value.sum().isfinite() and (num_odd := int((~value.isfinite()).sum())):
            raise ValueError(
                f"{path}: {name}: need finite numbers, found NaN or infinity in {num_odd:,} of "
                f"{value.numel():,}. Get a sound copy of it, or train again."
            )


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in tensors.items()}


class Misfit(NamedTuple):
    """A tensor whose shape is not the one that is needed; a shape is "not there" if there is no tensor."""

    name: str
    needed: list[int] | str
    found: list[int] | str


def first_misfit(needed: Shapes, found: Shapes) -> Misfit | None:
    for name in [*needed, *found]:
        if needed.get(name) != found.get(name):
            return Misfit(name, needed.get(name, "not there"), found.get(name, "not there"))
    return None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: need whole weights, found a damaged file or none ({error})") from None
