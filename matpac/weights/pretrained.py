"""a trained encoder by itself <-> config.json and model.safetensors in a folder.

config.json          sizes, front end, statistics, how and on what it was trained
model.safetensors    patches and student encoder, in the names of Pretext

No file holds code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from matpac.files import read_json, write_json
from matpac.params import LogMel
from matpac.weights.checkpoint import Standard, write_tensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LIBRARY, FORMAT = "matpac", 1


class Config(NamedTuple):
    """config.json"""

    dim: int
    depth: int
    num_heads: int
    chunk_frames: int
    logmel: LogMel
    standard: Standard
    origin: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        plain = {
            "logmel": self.logmel.model_dump(mode="json"),
            "standard": self.standard._asdict(),
            "origin": dict(self.origin),
        }
        return {"library_name": LIBRARY, "format": FORMAT, **self._asdict(), **plain}


def write_saved(folder: Path, config: Config, weights: dict[str, Tensor]) -> None:
    """Into an existing folder, whose other files stay."""
    write_tensors(folder / WEIGHTS, weights, {"format": "pt"})
    # Last: a folder with this file is whole.
    write_json(folder / CONFIG, config.as_json())


def is_saved(path: Path) -> bool:
    """Whether `write_saved` has written there, or something that calls itself so."""
    return (path / CONFIG).is_file()


def read_config(folder: Path) -> Config:
    """Raises ValueError where config.json is missing, or is that of something else."""
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
