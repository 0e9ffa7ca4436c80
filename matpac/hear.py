"""The encoder with the HEAR 2021 API, as benchmarks of audio embeddings import it.

    hear-validator matpac.hear --model data/checkpoints/pretrained

https://hearbenchmark.com/hear-api.html
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

import matpac
from matpac.encoder.encoder import AudioEncoder
from matpac.encoder.inputs import sounds_of
from matpac.params import PATCH

PRETRAINED = "data/checkpoints/pretrained"
"""Default encoder: the one that the pipeline trains, relative to the project's folder."""


class Model(nn.Module):
    """Model that `load_model` returns and the other functions take; `to(device)` moves it.

    Timestamps are `hop_ms` apart, as for `AudioEncoder.embed_in_time`. The API suggests 50 ms or less, for
    onsets, so they are a quarter of a step apart, 40 ms in the paper. With `model.hop_ms = None` they are
    160 ms apart, and take a quarter of the time. Scenes are means, whatever `probe.pooling` says.
    """

    hop_ms: float | None

    def __init__(self, audio_encoder: AudioEncoder) -> None:
        super().__init__()
        self.hop_ms = PATCH / 4 * audio_encoder.logmel.hop_ms
        self.audio_encoder = audio_encoder
        self.sample_rate = audio_encoder.sample_rate
        self.scene_embedding_size = self.timestamp_embedding_size = audio_encoder.dim


def load_model(model_file_path: str = "") -> Model:
    """Open an encoder, on a GPU if there is one.

    Args:
        model_file_path: Path or name that `matpac.load` opens; empty opens `PRETRAINED`.

    Returns:
        A model with the attributes `sample_rate` (Hz), `scene_embedding_size` and
        `timestamp_embedding_size`.

    Raises:
        ValueError: The path holds no encoder.
    """
    return Model(matpac.load(model_file_path or PRETRAINED))


def get_timestamp_embeddings(
    audio: Tensor, model: Model
) -> tuple[Float32[Tensor, "batch step dim"], Float32[Tensor, "batch step"]]:
    """Embed sounds step by step, one step every `model.hop_ms`.

    Timestamps lie within the sound: a last step centered after its end, and thus mostly silence, is
    left out. A sound shorter than 87.5 ms keeps one embedding, at its middle.

    Args:
        audio: Sounds `[batch, time]`, floats in -1 to 1 at `model.sample_rate`.
        model: Model from `load_model`.

    Returns:
        Embeddings `[batch, step, dim]` and the centers of the steps in ms, `[batch, step]`.

    Raises:
        ValueError: `audio` has another shape or type, or exceeds -1 to 1 by far.
    """
    timed = model.audio_encoder.embed_in_time(sounds_of(audio), model.sample_rate, hop_ms=model.hop_ms)
    steps, centers_ms = np.stack([embeddings for embeddings, _ in timed]), timed[0].centers_ms
    duration_ms = 1000 * audio.shape[1] / model.sample_rate
    centers_ms = centers_ms[centers_ms <= duration_ms]
    if len(centers_ms) == 0:
        centers_ms = np.array([duration_ms / 2], dtype=np.float32)
    embeddings = torch.from_numpy(steps[:, : len(centers_ms)]).to(audio.device)
    return embeddings, torch.from_numpy(centers_ms).to(audio.device).repeat(len(audio), 1)


def get_scene_embeddings(audio: Tensor, model: Model) -> Float32[Tensor, "batch dim"]:
    """Embed sounds, each by the mean over its steps, like `AudioEncoder.embed`.

    Args:
        audio: Sounds `[batch, time]`, floats in -1 to 1 at `model.sample_rate`.
        model: Model from `load_model`.

    Returns:
        Embeddings `[batch, dim]`.

    Raises:
        ValueError: `audio` has another shape or type, or exceeds -1 to 1 by far.
    """
    embeddings = model.audio_encoder.embed(sounds_of(audio), model.sample_rate)
    return torch.from_numpy(embeddings).to(audio.device)
