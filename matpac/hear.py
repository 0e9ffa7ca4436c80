"""The encoder with the HEAR 2021 API, which benchmarks of audio embeddings call by the name of a module.

    hear-validator matpac.hear --model data/checkpoints/pretrained

https://hearbenchmark.com/hear-api.html
"""

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor, nn

import matpac
from matpac.encoder.encoder import LOUDEST, AudioEncoder

PRETRAINED = "data/checkpoints/pretrained"
"""What the pipeline trains, from the project's folder: the default."""


class Model(nn.Module):
    """What `load_model` returns and the other functions take; `to(device)` moves it.

    The API suggests a timestamp every 50 ms or less, for onsets. One every 160 ms is what the encoder has.
    """

    def __init__(self, audio_encoder: AudioEncoder) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        # Modules of this one too, so that they move with it.
        self.patches, self.encoder = audio_encoder.patches, audio_encoder.encoder
        self.sample_rate = audio_encoder.logmel.sample_rate_hz
        self.scene_embedding_size = self.timestamp_embedding_size = audio_encoder.dim


def load_model(model_file_path: str = "") -> Model:
    """Of anything that `matpac.load` opens, on a GPU where there is one.

    Raises ValueError where the path holds no encoder.
    """
    return Model(matpac.load(model_file_path or PRETRAINED))


def get_timestamp_embeddings(
    audio: Tensor, model: Model
) -> tuple[Float32[Tensor, "batch step dim"], Float32[Tensor, "batch step"]]:
    """Embeddings every 160 ms, and the times in ms that they are centered at (`step_centers_ms`).

    `audio`: `[batch, time]`, floats in -1 to 1 at `model.sample_rate`. Timestamps lie within the sound: a
    last step that is centered after its end, and so is mostly silence, is left out. Of a sound shorter than
    that (87.5 ms) one embedding remains, at its middle. Raises ValueError where `audio` is anything else.
    """
    timed = model.audio_encoder.embed_in_time(sounds_of(audio), model.sample_rate)
    steps, centers_ms = np.stack([embeddings for embeddings, _ in timed]), timed[0].centers_ms
    duration_ms = 1000 * audio.shape[1] / model.sample_rate
    centers_ms = centers_ms[centers_ms <= duration_ms]
    if len(centers_ms) == 0:
        centers_ms = np.array([duration_ms / 2], dtype=np.float32)
    embeddings = torch.from_numpy(steps[:, : len(centers_ms)]).to(audio.device)
    return embeddings, torch.from_numpy(centers_ms).to(audio.device).repeat(len(audio), 1)


def get_scene_embeddings(audio: Tensor, model: Model) -> Float32[Tensor, "batch dim"]:
    """What `encoder.embed` gives: means over time. `audio` and errors as in `get_timestamp_embeddings`."""
    embeddings = model.audio_encoder.embed(sounds_of(audio), model.sample_rate)
    return torch.from_numpy(embeddings).to(audio.device)


def sounds_of(audio: object) -> list[NDArray[np.float32]]:
    """Raises ValueError where it is not what the API demands, beyond what resampling adds to full scale."""
    needed = "hear: need a tensor [n_sounds, n_samples] of floats in -1 to 1"
    if not isinstance(audio, Tensor) or audio.ndim != 2 or audio.numel() == 0:
        found = list(audio.shape) if isinstance(audio, Tensor) else type(audio).__name__
        raise ValueError(f"{needed}, got {found}. One sound is audio[None].")
    if not audio.is_floating_point():
        raise ValueError(f"{needed}, got {audio.dtype}. Divide by the full scale of your samples.")
    sounds = audio.detach().cpu().float().numpy()
    loudest = np.abs(sounds).max()
    if not loudest <= LOUDEST:
        raise ValueError(f"{needed}, got one of {loudest:g}. Divide by the full scale of your samples.")
    return list(sounds)
