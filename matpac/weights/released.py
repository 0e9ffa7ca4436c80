"""the authors' weight files -> tensors in our names.

The files (https://github.com/aurianworld/matpac) are flat dictionaries of tensors; inference files hold
only the encoder. Positions are fixed, so they are checked rather than loaded.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from matpac.model.patches import sine_cosine
from matpac.model.sizes import PATCH

PREFIXES = {
    "student_encoder.": "student_encoder.",
    "teacher_encoder.": "teacher_encoder.",
    "decoder.decoder_embed.": "predictor.embedding.",
    "decoder.decoder_blocks.": "predictor.blocks.",
    "decoder.decoder_norm.": "predictor.norm.",
    "decoder.decoder_pred.": "predictor.hypotheses.",
    "decoder.mask_token": "predictor.mask_token",
    "cls_student_head.last_layer.weight_g": "student_head.scale",
    "cls_student_head.last_layer.weight_v": "student_head.direction",
    "cls_student_head.mlp.": "student_head.mlp.",
    "cls_teacher_head.last_layer.weight_g": "teacher_head.scale",
    "cls_teacher_head.last_layer.weight_v": "teacher_head.direction",
    "cls_teacher_head.mlp.": "teacher_head.mlp.",
    "cls_head_loss.center": "center.value",
    "cls_token": "patches.cls_token",
    "patch_embed.proj.": "patches.projection.",
}
POSITIONS = {"pos_embed", "decoder.decoder_pos_embed"}
REQUIRED = {"cls_token", "pos_embed", "student_encoder.blocks.0.norm1.weight", "student_encoder.norm.weight"}
HYPOTHESES = "mcl_heads.mcl_heads."
VIT_DIMS = (192, 384, 768, 1024)
"""ViT-Ti, -S, -B and -L, whose heads have 64 dimensions (https://arxiv.org/abs/2012.12877, Table 1;
https://arxiv.org/abs/2010.11929, Table 1)."""
PICKLES = (b"PK\x03\x04", b"\x80")
"""What a file of `torch.save` or `pickle.dump` begins with: a zip archive of pickles, or one pickle."""


class Released(NamedTuple):
    """What a released file holds."""

    networks: dict[str, Tensor]
    """In the names of Pretext: patches and student encoder, in training states the other networks too."""
    dim: int
    depth: int
    crop_frames: int

    @property
    def usual_heads(self) -> int | None:
        """Attention heads of a usual ViT of these sizes. The file does not say; None where it is none."""
        return self.dim // 64 if self.dim in VIT_DIMS else None


def read_released(path: Path, num_mels: int) -> Released:
    """Raises ValueError, in one line that names the file, where it holds anything but such weights.

    A pickled object is refused before anything of it is run.
    """
    state = _plain_tensors(path)
    missing = REQUIRED - set(state)
    if missing:
        raise ValueError(f"{path}: need the released weights of an encoder, found no {min(missing)}")
    try:
        networks = our_names(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    num_freq, dim = num_mels // PATCH, state["cls_token"].shape[-1]
    positions = state["pos_embed"][0, 1:].float()
    num_time = len(positions) // num_freq
    expected = sine_cosine(num_freq, num_time, dim)
    if positions.shape != expected.shape or not torch.allclose(positions, expected, atol=1e-4):
        raise ValueError(f"{path}: need fixed sine-cosine positions, got others (pos_embed)")
    depth = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("student_encoder.blocks."))
    return Released(networks, dim, depth, num_time * PATCH)


def _plain_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of some files before it refuses them
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise whatever their bytes lead to
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and (named or _begins_as_pickle(path)):
            what = f"a pickled object ({named[1]})" if named else "pickled objects"
            raise ValueError(
                f"{path}: need plain tensors, found {what}, which can run any code. Refused; nothing was run."
            ) from None
        raise ValueError(
            f"{path}: need weights written by torch.save, found a damaged or other file"
        ) from error
    if odd := _odd(state):
        raise ValueError(f"{path}: need a flat dictionary of tensors, found {odd}")
    return dict(state)


def _begins_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(PICKLES)


def _odd(state: Any) -> str | None:  # noqa: ANN401 - whatever the file holds
    if not isinstance(state, dict):
        return type(state).__name__
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            return f"{type(value).__name__} at {key!r}"
    return None


def our_names(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reshape a released state; several prediction heads (MATPAC++) become one layer.

    Raises ValueError naming the first key that is not known.
    """
    ours = {}
    for key, value in released.items():
        if key in POSITIONS or key.startswith(HYPOTHESES):
            continue
        prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), None)
        if prefix is None:
            raise ValueError(f"released weights: unknown key {key} {tuple(value.shape)}")
        ours[PREFIXES[prefix] + key.removeprefix(prefix)] = value
    if "patches.projection.weight" in ours:
        ours["patches.projection.weight"] = ours["patches.projection.weight"].flatten(1)
    if "center.value" in ours:
        ours["center.value"] = ours["center.value"].flatten()
    num_hypotheses = sum(key.startswith(HYPOTHESES) for key in released) // 2
    if num_hypotheses:
        for name in ("weight", "bias"):
            heads = [released[f"{HYPOTHESES}{i}.{name}"] for i in range(num_hypotheses)]
            ours[f"predictor.hypotheses.{name}"] = torch.cat(heads)
    return ours
