"""checkpoint, saved encoder or released file -> trained weights and what belongs to them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from torch import Tensor, nn

from matpac.files import SUMS, checksum, sums_of
from matpac.params import LogMel
from matpac.signal.mel import mel_filters
from matpac.weights.checkpoint import (
    META,
    NETWORKS,
    Meta,
    Standard,
    blank_encoder,
    blank_pretext,
    field_of,
    read_meta,
    shapes_without_memory,
    size_of,
)
from matpac.weights.pretrained import CONFIG, WEIGHTS, is_saved, read_config
from matpac.weights.released import (
    AUDIOSET,
    PAPER_LOGMEL,
    RELEASED,
    ReleasedFile,
    find_weights,
    read_released,
)
from matpac.weights.tensors import (
    MEL_FILTERS,
    first_misfit,
    read_networks,
    read_shapes,
    read_tensors,
    shapes_of,
)

TENSORS_OF_BLOCK = 12
"""Weights and biases of two norms and four linear layers."""


@dataclass(frozen=True)
class Weights:
    """Trained weights, with the front end and the statistics of the data they were trained on.

    The tensors of a safetensors file stay on disk until `networks` reads them.
    """

    name: str
    """Name or path that was opened."""
    path: Path
    """Folder, or the released file."""
    file: Path
    """File that holds the tensors."""
    dim: int
    depth: int
    num_heads: int | None
    """Attention heads of the encoder; None if neither the file nor its sizes tell (released files)."""
    logmel: LogMel
    standard: Standard
    chunk_frames: int
    """Frames of a training crop: the longest input of one forward pass."""
    origin: Meta | ReleasedFile | Mapping[str, Any] | None
    """What is known about the training: of a checkpoint, a released file or a saved encoder."""
    held: Mapping[str, Tensor] | None = None
    """Tensors of a released file, which can only be read as a whole."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `file`.

        Raises:
            ValueError: SHA256SUMS beside it, which a checkpoint has, names another; the file is damaged.
        """
        found = checksum(self.file)
        sealed = (sums_of(self.file.parent) or {}).get(self.file.name, found)
        if found != sealed:
            raise ValueError(
                f"{self.file}: need the weights of {SUMS} beside it ({sealed[:8]}...), "
                f"found others ({found[:8]}...). Get a whole copy of the folder; `matpac verify` says how."
            )
        return found

    @cached_property
    def mel_filters(self) -> Float32[np.ndarray, "bin mel"]:
        """Filterbank that the weights were trained with; made anew if the file is too old to hold it.

        Raises:
            ValueError: The file holds one of another shape, or librosa is needed but not installed.
        """
        stored = {} if self.held is not None else read_tensors(self.file, (MEL_FILTERS,))
        if not stored:
            return mel_filters(self.logmel)
        found = stored[MEL_FILTERS].numpy()
        needed = (self.logmel.window_samples // 2 + 1, self.logmel.num_mels)
        if found.shape != needed or found.dtype != np.float32:
            raise ValueError(
                f"{self.file}: {MEL_FILTERS}: need {needed} in float32, found {found.shape} in {found.dtype}"
            )
        return found

    def networks(self, prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
        """Tensors whose names in Pretext begin with one of the prefixes; at least the student's encoder.

        Raises:
            ValueError: The file is damaged; the error names it.
        """
        if self.held is None:
            return read_networks(self.file, prefixes)
        return {name: value for name, value in self.held.items() if name.startswith(prefixes)}

    def shapes(self) -> dict[str, list[int]]:
        """Shape of each tensor of `networks()`.

        Raises:
            ValueError: The file is damaged; the error names it.
        """
        if self.held is None:
            return {name: shape for name, shape in read_shapes(self.file).items() if name != MEL_FILTERS}
        return shapes_of(self.held)


def open_weights(name: str | Path) -> Weights:
    """Open a checkpoint folder, a folder of `save_pretrained`, a released file or a released name.

    Sizes are compared with the shapes in the header of the file, which reads no tensor. `networks` looks
    for NaN and infinity when it reads the tensors. For a ViT-L (303 million weights, 1.2 GB) the first
    took 0.1 to 0.5 s and the second 0.3 to 1.3 s, on one core of a machine with four times the load.

    Raises:
        ValueError: `name` is none of these, or its files are damaged or do not fit each other; one line
            that names the file and the field.
    """
    path = find_weights(name)
    if is_saved(path):
        return open_saved(path)
    return open_checkpoint(path) if path.is_dir() else _open_released(str(name), path)


def open_checkpoint(folder: Path) -> Weights:
    """Open the folder of a run.

    Raises:
        ValueError: The folder holds no checkpoint, one of another format, or files that do not fit.
    """
    meta = read_meta(folder)
    size, file = size_of(meta.model), folder / NETWORKS
    _check_fit(
        folder / META,
        file,
        lambda most_blocks: blank_pretext(meta.logmel, meta.model, meta.pretrain, most_blocks),
        meta.logmel,
        field_of,
    )
    return Weights(
        name=str(folder),
        path=folder,
        file=file,
        dim=size.encoder_dim,
        depth=size.encoder_depth,
        num_heads=size.encoder_heads,
        logmel=meta.logmel,
        standard=meta.standard,
        chunk_frames=meta.pretrain.crop_frames,
        origin=meta,
    )


def open_saved(folder: Path) -> Weights:
    """Open a folder of `save_pretrained`.

    Raises:
        ValueError: The folder holds anything else, or files that do not fit.
    """
    config, file = read_config(folder), folder / WEIGHTS
    _check_fit(
        folder / CONFIG,
        file,
        lambda most_blocks: blank_encoder(config.logmel.num_mels, config.dim, min(config.depth, most_blocks)),
        config.logmel,
        _field_of_saved,
    )
    return Weights(
        name=str(folder),
        path=folder,
        file=file,
        dim=config.dim,
        depth=config.depth,
        num_heads=config.num_heads,
        logmel=config.logmel,
        standard=config.standard,
        chunk_frames=config.chunk_frames,
        origin=config.origin,
    )


def _open_released(name: str, path: Path) -> Weights:
    released = read_released(path, PAPER_LOGMEL.num_mels)
    return Weights(
        name=name,
        path=path,
        file=path,
        dim=released.dim,
        depth=released.depth,
        num_heads=released.usual_heads,
        logmel=PAPER_LOGMEL,
        standard=AUDIOSET,
        chunk_frames=released.crop_frames,
        origin=RELEASED.get(path.stem),
        held=released.networks,
    )


def _check_fit(
    described: Path,
    file: Path,
    blank: Callable[[int], nn.Module],
    logmel: LogMel,
    field_of_tensor: Callable[[str], str],
) -> None:
    """Compare the shapes in `file` with those of the networks that `described` describes.

    `blank` makes the networks with no more blocks than its argument: a wrong depth shows in one block more
    than the file can hold, and a huge one would never end.
    """
    found = read_shapes(file)
    filters = {MEL_FILTERS: [logmel.window_samples // 2 + 1, logmel.num_mels]}
    needed = shapes_without_memory(described, lambda: blank(len(found) // TENSORS_OF_BLOCK + 1))
    if misfit := first_misfit({**needed, **(filters if MEL_FILTERS in found else {})}, found):
        raise ValueError(
            f"{described}: {field_of_tensor(misfit.name)}: need a value that fits {file.name}. "
            f"{misfit.name} is {misfit.found} in it, and {misfit.needed} by this value. "
            f"Get whole copies of both files."
        )


def _field_of_saved(tensor: str) -> str:
    """Key of config.json that decides the shape of a tensor of WEIGHTS."""
    if tensor == MEL_FILTERS:
        return "logmel"
    return "depth" if tensor.startswith("student_encoder.blocks.") else "dim"
