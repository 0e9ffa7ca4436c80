"""Weight files as the authors write them, with weights of ours."""

from pathlib import Path

import torch

from matpac.model.pretext import Pretext
from matpac.model.sizes import SIZES
from matpac.weights.released import PREFIXES

TINY_HEADS = SIZES["tiny"].encoder_heads
ENCODER = ("patches.", "student_encoder.")


def tiny_pretext(crop_frames: int = 608) -> Pretext:
    pretext = Pretext(
        SIZES["tiny"],
        num_mels=80,
        crop_frames=crop_frames,
        num_clusters=64,
        num_hypotheses=1,
        center_momentum=0.9,
    )
    pretext.initialize_(torch.Generator().manual_seed(5))
    return pretext


def released_state(pretext: Pretext, parts: tuple[str, ...] = ENCODER) -> dict[str, torch.Tensor]:
    """The networks whose names begin so, under the authors' names."""
    state = {}
    for key, value in pretext.state_dict().items():
        if key.startswith(parts):
            theirs, ours = next((theirs, ours) for theirs, ours in PREFIXES.items() if key.startswith(ours))
            state[theirs + key.removeprefix(ours)] = value
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].reshape(-1, 1, 16, 16)
    positions = pretext.patches.positions
    state["pos_embed"] = torch.cat([torch.zeros(1, positions.shape[1]), positions])[None]
    return state


def write_released(path: Path, pretext: Pretext, parts: tuple[str, ...] = ENCODER) -> Path:
    torch.save(released_state(pretext, parts), path)
    return path
