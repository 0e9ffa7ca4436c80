"""a run's networks, optimizer and history <-> a folder that explains itself.

networks.safetensors    every network and the center, in the names of Pretext; the mel filterbank
optimizer.safetensors   AdamW's moments and step counts, one per trained weight, in order
metrics.csv             one row per logged update
online.csv              one row per evaluation of the student on labelled clips (`online` in params.yaml)
meta.json               parameters, front end, statistics, update, data digest, provenance

No file holds code: tensors are safetensors, everything else is text. The states from which a run
resumes have the same format as the finished checkpoint.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from matpac.files import flush_to_disk, read_json, write_json
from matpac.model.pretext import Pretext
from matpac.model.sizes import SIZES, Size
from matpac.params import BEFORE, LogMel, Model, Online, Pretrain
from matpac.signal.mel import mel_filters
from matpac.weights.tensors import MEL_FILTERS, read_networks, read_tensors, write_tensors

FORMAT = 2
NETWORKS, OPTIMIZER = "networks.safetensors", "optimizer.safetensors"


class Standard(NamedTuple):
    """Mean and deviation of all log-mel values of the pre-training set."""

    mean: float
    std: float


@dataclass(frozen=True)
class Meta:
    """meta.json: what it takes to use a checkpoint, and how it was made."""

    update: int
    """Updates done."""
    total_updates: int
    """Updates planned."""
    num_clips: int
    logmel: LogMel
    model: Model
    pretrain: Pretrain
    standard: Standard
    data_digest: str
    git_revision: str
    hardware: str
    versions: dict[str, str]
    duration_s: float
    online: Online | None = None
    """Parameters of online.csv."""
    init_digest: str = ""
    """SHA-256 of the weights named by `pretrain.init`; empty if the run began with random ones."""

    def as_json(self) -> dict[str, Any]:
        sections = {
            name: getattr(self, name).model_dump(mode="json") for name in ("logmel", "model", "pretrain")
        }
        sections["online"] = self.online and self.online.model_dump(mode="json")
        plain = asdict(self) | sections | {"standard": self.standard._asdict()}
        return {"format": FORMAT, **plain}

    @classmethod
    def from_json(cls, raw: dict[str, Any], where: Path) -> "Meta":
        if raw.get("format") != FORMAT:
            raise ValueError(f"{where}: need checkpoint format {FORMAT}, found {raw.get('format')}")
        fields = {name: value for name, value in raw.items() if name != "format"}
        return cls(
            **fields
            | {
                "logmel": LogMel(**raw["logmel"]),
                "model": Model(**raw["model"]),
                "pretrain": Pretrain(**BEFORE | raw["pretrain"]),
                "standard": Standard(**raw["standard"]),
                "online": Online(**raw["online"]) if raw.get("online") else None,
            }
        )


def new_pretext(logmel: LogMel, model: Model, pretrain: Pretrain) -> Pretext:
    """Networks with random weights drawn from the seed of the run, as before the first update."""
    pretext = blank_pretext(logmel, model, pretrain)
    pretext.initialize_(torch.Generator().manual_seed(pretrain.seed))
    return pretext


def blank_pretext(logmel: LogMel, model: Model, pretrain: Pretrain) -> Pretext:
    """Networks of the right sizes, not initialized."""
    return Pretext(
        size_of(model),
        num_mels=logmel.num_mels,
        crop_frames=pretrain.crop_frames,
        num_clusters=model.num_clusters,
        num_hypotheses=model.num_predictor_heads,
        center_momentum=pretrain.center_momentum,
        standardize_targets=pretrain.standardize_targets,
    )


def size_of(model: Model) -> Size:
    """Dimensions of the networks, of a size with a name or of `model.custom`."""
    return SIZES[model.size] if model.custom is None else Size(**model.custom.model_dump())


def save_checkpoint(folder: Path, pretext: Pretext, optimizer: Optimizer, meta: Meta) -> None:
    """Write into an existing folder, which the caller renames once it is whole."""
    write_json(folder / "meta.json", meta.as_json())
    tensors = {name: value.cpu().contiguous() for name, value in pretext.state_dict().items()}
    tensors[MEL_FILTERS] = torch.from_numpy(mel_filters(meta.logmel))
    write_tensors(folder / NETWORKS, tensors)
    write_tensors(folder / OPTIMIZER, _flat(optimizer))


def read_meta(folder: Path) -> Meta:
    path = folder / "meta.json"
    if not path.exists():
        raise ValueError(
            f"{folder}: no checkpoint here (meta.json is missing). "
            f"`dvc repro pretrain` makes one in data/checkpoints/pretrained."
        )
    return Meta.from_json(read_json(path), path)


def resume_(folder: Path, pretext: Pretext, optimizer: Optimizer) -> None:
    """Restore networks and optimizer from a saved state."""
    pretext.load_state_dict(read_networks(folder / NETWORKS))
    tensors = read_tensors(folder / OPTIMIZER)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _flat(optimizer: Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value.cpu().contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }


def replace_state(folder: Path, partial: Path, older: Path | None) -> None:
    """Rename a whole state into place, then delete the one before it."""
    partial.rename(folder)
    flush_to_disk(folder.parent)
    if older is not None:
        shutil.rmtree(older, ignore_errors=True)
