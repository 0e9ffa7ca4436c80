"""a trained encoder by itself <-> config.json and model.safetensors in a folder.

config.json          sizes, front end, statistics, facts about the training
model.safetensors    patches and student encoder, in the names of Pretext; the mel filterbank

No file holds code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from matpac.files import read_json, write_json
from matpac.params import LogMel
from matpac.weights.checkpoint import Standard
from matpac.weights.tensors import MEL_FILTERS, write_tensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LIBRARY, FORMAT = "matpac", 1


class Config(NamedTuple):
    """config.json."""

    dim: int
    depth: int
    num_heads: int
    chunk_frames: int
    logmel: LogMel
    standard: Standard
    origin: Mapping[str, Any]
    """Facts about the training."""

    def as_json(self) -> dict[str, Any]:
        plain = {
            "logmel": self.logmel.model_dump(mode="json"),
            "standard": self.standard._asdict(),
            "origin": dict(self.origin),
        }
        return {"library_name": LIBRARY, "format": FORMAT, **self._asdict(), **plain}


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
        ValueError: The file is missing, damaged, or another library's.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder}: need an encoder saved by save_pretrained, found no {CONFIG}")
    raw = read_json(path)
    found = (raw.get("library_name"), raw.get("format")) if isinstance(raw, dict) else type(raw).__name__
    if found != (LIBRARY, FORMAT):
        raise ValueError(f"{path}: need library_name {LIBRARY} and format {FORMAT}, found {found}")
    try:
        fields = {name: raw[name] for name in Config._fields}
        return Config(**fields | {"logmel": LogMel(**raw["logmel"]), "standard": Standard(**raw["standard"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: need {', '.join(Config._fields)}, found others: {error!r}") from None
