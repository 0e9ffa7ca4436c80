"""A checkpoint to embed with, and the networks of one."""

from pathlib import Path

import torch

from matpac.model.pretext import Pretext
from matpac.params import LogMel, Model, load_params
from matpac.weights.checkpoint import Meta, Standard, new_pretext, read_meta, save_checkpoint
from matpac.weights.open import open_checkpoint
from tests.recordings import LOGMEL


def untrained_checkpoint(folder: Path, logmel: LogMel = LOGMEL, model: Model | None = None) -> Path:
    """A tiny encoder that was trained for no update, with other weights than it began with."""
    params = load_params(Path(__file__).resolve().parents[1] / "presets/demo.yaml")
    model = model or params.model
    pretrain = params.pretrain.model_copy(update={"crop_frames": 64})
    pretext = new_pretext(logmel, model, pretrain)
    with torch.no_grad():
        for parameter in pretext.student_encoder.parameters():
            parameter += 0.05
    meta = Meta(
        update=0,
        total_updates=1,
        num_clips=1,
        logmel=logmel,
        model=model,
        pretrain=pretrain,
        standard=Standard(mean=-7.0, std=4.0),
        data_digest="",
        git_revision="",
        hardware="",
        versions={},
        duration_s=0.0,
    )
    save_checkpoint(folder, pretext, torch.optim.AdamW(pretext.parameters()), meta)
    return folder


def networks_of(folder: Path) -> Pretext:
    """All networks of a checkpoint, on the CPU."""
    meta = read_meta(folder)
    pretext = new_pretext(meta.logmel, meta.model, meta.pretrain)
    pretext.load_state_dict(open_checkpoint(folder).networks())
    return pretext
