"""released weight files <-> our names.

The authors' files (https://github.com/aurianworld/matpac) are flat dictionaries of tensors; inference
files hold only the encoder. Positions are fixed, so they are checked rather than loaded.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

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
HYPOTHESES = "mcl_heads.mcl_heads."


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
