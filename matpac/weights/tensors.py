"""tensors <-> a safetensors file: networks by the names of Pretext, and the mel filterbank."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from matpac.files import whole_file

MEL_FILTERS = "mel_filters"
"""Name of the filterbank `[bin, mel]` that the networks were trained with. Older files have none."""


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
        ValueError: The file is damaged or missing; the error names it.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118 - no mapping


def read_networks(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """Read the same, without the mel filterbank."""
    tensors = read_tensors(path, prefixes)
    tensors.pop(MEL_FILTERS, None)
    return tensors


def read_shapes(path: Path) -> dict[str, list[int]]:
    """Read the shape of each tensor of `read_networks` from the header of the file.

    Raises:
        ValueError: The file is damaged or missing; the error names it.
    """
    with _opened(path) as file:
        names = [name for name in file.keys() if name != MEL_FILTERS]  # noqa: SIM118 - no mapping
        return {name: file.get_slice(name).get_shape() for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: need whole weights, found a damaged file or none ({error})") from None
