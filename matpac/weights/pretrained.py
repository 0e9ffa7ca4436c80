"""a trained encoder by itself <-> config.json and model.safetensors in a folder.

config.json          sizes, front end, statistics, facts about the training
model.safetensors    patches and student encoder, in the names of Pretext; the mel filterbank

No file holds code.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float32
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from matpac.files import write_json
from matpac.model.sizes import PATCH
from matpac.params import LogMel, Section, read_section
from matpac.weights.checkpoint import Standard
from matpac.weights.tensors import MEL_FILTERS, write_tensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LIBRARY = "matpac"
HEAD = {"library_name": LIBRARY, "format": 1}
"""First keys of config.json, by which we know it as ours."""


class Config(Section):
    """config.json."""

    dim: Annotated[int, Field(gt=0, multiple_of=4)]
    """Width of the encoder, a multiple of 4 for the positions of patches."""
    depth: PositiveInt
    """Its blocks."""
    num_heads: PositiveInt
    """Attention heads of each block."""
    chunk_frames: Annotated[int, Field(gt=0, multiple_of=PATCH)]
    """Frames of the longest input of one forward pass."""
    logmel: LogMel
    standard: Standard
    origin: dict[str, Any]
    """Facts about the training."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "Config":
        if self.dim % self.num_heads:
            raise ValueError(f"num_heads: need a divisor of dim ({self.dim}), got {self.num_heads}")
        return self

    def as_json(self) -> dict[str, Any]:
        return HEAD | self.model_dump(mode="json")


def write_saved(
    folder: Path,
    config: Config,
    networks: dict[str, Tensor],
    mel_filters: Float32[np.ndarray, "bin mel"],
) -> None:
    """Write into an existing folder, and leave its other files alone."""
    tensors = networks | {MEL_FILTERS: torch.from_numpy(mel_filters)}
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    # Written last, so that a folder with this file is whole.
    write_json(folder / CONFIG, config.as_json())


def is_saved(path: Path) -> bool:
    """Whether the folder has a config.json, be it ours or another library's."""
    return (path / CONFIG).is_file()


def read_config(folder: Path) -> Config:
    """Read config.json.

    Raises:
        ValueError: The file is missing, damaged or another library's, or a value of it is wrong.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder}: need an encoder saved by save_pretrained, found no {CONFIG}")
    return read_section(Config, path, HEAD)
