"""pretrain.init -> the weights a run begins with."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from matpac.files import checksum
from matpac.model.pretext import Pretext
from matpac.model.sizes import SIZES
from matpac.params import LogMel
from matpac.weights.checkpoint import Standard, read_meta, read_tensors
from matpac.weights.names import AUDIOSET, PAPER_LOGMEL, find_weights
from matpac.weights.pretrained import WEIGHTS, is_saved, read_config
from matpac.weights.released import read_released

FIELDS = {
    "predictor.hypotheses.": "model.num_predictor_heads",
    "center.": "model.num_clusters",
    "student_head.scale": "model.num_clusters",
    "student_head.direction": "model.num_clusters",
    "teacher_head.scale": "model.num_clusters",
    "teacher_head.direction": "model.num_clusters",
}
"""What decides about the shape of these tensors; of all others it is model.size."""


@dataclass(frozen=True)
class Initial:
    """Weights, and what belongs to them: front end and statistics of the data they were trained on."""

    source: str
    """As params.yaml names them."""
    path: Path
    logmel: LogMel
    standard: Standard
    num_heads: int | None
    """Of the encoder's attention, which no tensor's shape tells; None where nobody says (released files)."""
    digest: str
    """SHA-256 of the file at `path`."""

    def networks(self) -> dict[str, Tensor]:
        """In the names of Pretext: the student's encoder at least."""
        if self.path.suffix == ".safetensors":
            return read_tensors(self.path)
        return read_released(self.path, self.logmel.num_mels).networks


def read_initial(source: str) -> Initial:
    """Open a checkpoint folder, a folder of `save_pretrained`, a released file, or the one of that name.

    Raises ValueError where `source` is none of these.
    """
    path = find_weights(source)
    if is_saved(path):
        config, file = read_config(path), path / WEIGHTS
        return Initial(source, file, config.logmel, config.standard, config.num_heads, checksum(file))
    if path.is_dir():
        meta, file = read_meta(path), path / "networks.safetensors"
        num_heads = SIZES[meta.model.size].encoder_heads
        return Initial(source, file, meta.logmel, meta.standard, num_heads, checksum(file))
    return Initial(source, path, PAPER_LOGMEL, AUDIOSET, None, checksum(path))


@torch.no_grad()
def begin_with_(pretext: Pretext, initial: Initial, logmel: LogMel) -> None:
    """Give every network the weights that there are for it; the others keep those they have.

    A teacher encoder without weights becomes a copy of the student's, as a mean over a student that has
    stood still for long would be. M2D and the paper draw it anew because their student is new as well:
    here that would spend the first epochs on forgetting.

    Raises ValueError, which names the field, where front end or sizes are others.
    """
    field = initial.logmel.first_difference(logmel)
    if field is not None:
        raise ValueError(
            f"logmel.{field}: need {getattr(initial.logmel, field)}, with which the weights of pretrain.init "
            f"({initial.source}) were trained, got {getattr(logmel, field)}"
        )
    networks = initial.networks()
    _check_sizes(pretext, networks, initial.source)
    num_heads = pretext.student_encoder.blocks.num_heads
    if initial.num_heads not in (None, num_heads):
        raise ValueError(
            f"model.size: the weights of pretrain.init ({initial.source}) have another: "
            f"{initial.num_heads} attention heads, {num_heads} in this run"
        )
    pretext.load_state_dict(networks, strict=False)
    if not any(key.startswith("teacher_encoder.") for key in networks):
        pretext.teacher_encoder.load_state_dict(pretext.student_encoder.state_dict())


def _check_sizes(pretext: Pretext, networks: dict[str, Tensor], source: str) -> None:
    given = {key.partition(".")[0] for key in networks}
    found = {key: list(value.shape) for key, value in networks.items()}
    needed = {
        key: list(value.shape)
        for key, value in pretext.state_dict().items()
        if key.partition(".")[0] in given
    }
    for key in [*needed, *found]:
        if needed.get(key) != found.get(key):
            field = next((FIELDS[prefix] for prefix in FIELDS if key.startswith(prefix)), "model.size")
            raise ValueError(
                f"{field}: the weights of pretrain.init ({source}) have another: {key} is "
                f"{found.get(key, 'not there')} in them, {needed.get(key, 'not there')} in this run"
            )
