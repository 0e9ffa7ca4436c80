"""a run's networks, optimizer and history <-> a folder that explains itself.

networks.safetensors    every network and the center, in the names of Pretext; the mel filterbank
optimizer.safetensors   AdamW's moments and step counts, one per trained weight, in order
metrics.csv             one row per logged update
online.csv              one row per evaluation of the student on labelled clips (`online` in params.yaml)
meta.json               parameters, front end, statistics, update, data digest, provenance
digests.parquet         the recordings it learned from (matpac/digests.py); only in a finished checkpoint
SHA256SUMS              checksums of the others

No file holds code: tensors are safetensors, everything else is text. The states from which a run
resumes have the same format as the finished checkpoint.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn
from torch.optim import Optimizer

from matpac.files import damage, flush_to_disk, seal, sums_of, write_json
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.model.pretext import Pretext
from matpac.model.sizes import PATCH, SIZES, Size
from matpac.params import BEFORE, LogMel, Model, NonNegative, Online, Pretrain, Section, read_section
from matpac.signal.mel import mel_filters
from matpac.weights.tensors import (
    MEL_FILTERS,
    Shapes,
    first_misfit,
    read_networks,
    read_tensors,
    shapes_of,
    write_tensors,
)

HEAD = {"format": 2}
"""First key of meta.json."""
META, NETWORKS, OPTIMIZER = "meta.json", "networks.safetensors", "optimizer.safetensors"


FIELDS = {
    "predictor.hypotheses.": "model.num_predictor_heads",
    "center.": "model.num_clusters",
    "student_head.scale": "model.num_clusters",
    "student_head.direction": "model.num_clusters",
    "teacher_head.scale": "model.num_clusters",
    "teacher_head.direction": "model.num_clusters",
    MEL_FILTERS: "logmel",
}
"""Parameter that decides the shape of these tensors; for all others it is model.size."""


def field_of(tensor: str) -> str:
    """Parameter that decides the shape of a tensor of NETWORKS."""
    return next((FIELDS[prefix] for prefix in FIELDS if tensor.startswith(prefix)), "model.size")


SMALLEST_STD = 1e-6
"""Division by less would leave the range of float32."""


class Standard(Section):
    """Mean and deviation of all log-mel values of the pre-training set."""

    # Natural logarithms of float32 energies lie between these, and float16 rounds them more coarsely.
    mean: Annotated[float, Field(ge=-100, le=100)]
    std: Annotated[float, Field(ge=SMALLEST_STD, le=100)]


class Meta(Section):
    """meta.json: what it takes to use a checkpoint, and how it was made."""

    update: NonNegativeInt
    """Updates done."""
    total_updates: NonNegativeInt
    """Updates planned."""
    num_clips: NonNegativeInt
    logmel: LogMel
    model: Model
    pretrain: Pretrain
    standard: Standard
    data_digest: str
    git_revision: str
    hardware: str
    versions: dict[str, str]
    duration_s: NonNegative
    online: Online | None = None
    """Parameters of online.csv."""
    init_digest: str = ""
    """SHA-256 of the weights named by `pretrain.init`; empty if the run began with random ones."""

    num_recordings: dict[str, NonNegativeInt] | None = None
    """Number of recordings learned from by dataset, those behind the initial weights included. None in the
    states of a run and in older checkpoints: nobody knows."""
    unknown_recordings: tuple[str, ...] = ()
    """Names of initial weights, also those of the initial weights' run, that learned from recordings nobody
    knows."""

    def as_json(self) -> dict[str, Any]:
        return HEAD | self.model_dump(mode="json")


def new_pretext(logmel: LogMel, model: Model, pretrain: Pretrain) -> Pretext:
    """Networks with random weights drawn from the seed of the run, as before the first update."""
    pretext = blank_pretext(logmel, model, pretrain)
    pretext.initialize_(torch.Generator().manual_seed(pretrain.seed))
    return pretext


def blank_pretext(
    logmel: LogMel, model: Model, pretrain: Pretrain, most_blocks: int | None = None
) -> Pretext:
    """Networks of the right sizes, not initialized, and with `most_blocks` blocks at most."""
    size = size_of(model)
    if most_blocks is not None:
        size = size._replace(
            encoder_depth=min(size.encoder_depth, most_blocks),
            predictor_depth=min(size.predictor_depth, most_blocks),
        )
    return Pretext(
        size,
        num_mels=logmel.num_mels,
        crop_frames=pretrain.crop_frames,
        num_clusters=model.num_clusters,
        num_hypotheses=model.num_predictor_heads,
        center_momentum=pretrain.center_momentum,
        standardize_targets=pretrain.standardize_targets,
    )


def blank_encoder(num_mels: int, dim: int, depth: int) -> nn.ModuleDict:
    """Patches and student encoder; their weights have these shapes for any input and number of heads."""
    patches, encoder = Patches(num_mels, PATCH, dim), Encoder(dim, depth, num_heads=1)
    return nn.ModuleDict({"patches": patches, "student_encoder": encoder})


def shapes_without_memory(described: Path, blank: Callable[[], nn.Module]) -> Shapes:
    """Shapes of the weights of networks that are made without memory for them.

    Raises:
        ValueError: The sizes that stand in `described` are too large for any computer.
    """
    try:
        with torch.device("meta"):
            return shapes_of(blank().state_dict())
    except RuntimeError as error:
        what = " ".join(str(error).split())
        raise ValueError(
            f"{described}: need sizes of networks, found some that are too large ({what})"
        ) from None


def size_of(model: Model) -> Size:
    """Dimensions of the networks, of a size with a name or of `model.custom`."""
    return SIZES[model.size] if model.custom is None else Size(**model.custom.model_dump())


def save_checkpoint(folder: Path, pretext: Pretext, optimizer: Optimizer, meta: Meta) -> None:
    """Write into an existing folder and seal it; the caller renames it once it is whole."""
    write_json(folder / META, meta.as_json())
    tensors = {name: value.cpu().contiguous() for name, value in pretext.state_dict().items()}
    tensors[MEL_FILTERS] = torch.from_numpy(mel_filters(meta.logmel))
    write_tensors(folder / NETWORKS, tensors)
    write_tensors(folder / OPTIMIZER, _flat(optimizer))
    seal(folder)


def read_meta(folder: Path) -> Meta:
    path = folder / META
    if not path.exists():
        raise ValueError(
            f"{folder}: no checkpoint here ({META} is missing). "
            f"`dvc repro pretrain` makes one in data/checkpoints/pretrained."
        )
    return read_section(Meta, path, HEAD, older={"pretrain": BEFORE})


def resume_(folder: Path, pretext: Pretext, optimizer: Optimizer) -> None:
    """Restore networks and optimizer from a saved state.

    Raises:
        ValueError: A file is damaged or belongs to another network; the error names it.
    """
    # States of older versions have no checksums. Plots join a finished run, which is then sealed again.
    sealed = [name for name in sums_of(folder) or () if "/" not in name]
    if sealed and (found := damage(folder, sealed)):
        raise ValueError(f"{folder}: need a state as it was saved, found {found}.")
    networks, tensors = read_networks(folder / NETWORKS), read_tensors(folder / OPTIMIZER)
    _check_shapes(folder / NETWORKS, shapes_of(pretext.state_dict()), shapes_of(networks))
    _check_shapes(folder / OPTIMIZER, _shapes_of_state(optimizer, set(tensors)), shapes_of(tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    pretext.load_state_dict(networks)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _check_shapes(path: Path, needed: Shapes, found: Shapes) -> None:
    if misfit := first_misfit(needed, found):
        raise ValueError(f"{path}: {misfit.name}: need {misfit.needed} in this run, found {misfit.found}.")


def _shapes_of_state(optimizer: Optimizer, names: set[str]) -> dict[str, list[int]]:
    """All tensors that AdamW keeps of the weights named; weights without a gradient have none."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    known = {name.partition(".")[0] for name in names}
    return {
        f"{index}.{name}": shape
        for index, weight in enumerate(weights)
        if str(index) in known
        for name, shape in {
            "step": [],
            "exp_avg": list(weight.shape),
            "exp_avg_sq": list(weight.shape),
        }.items()
    }


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
