"""MATPAC: self-supervised audio representation learning, from raw recordings to probe scores."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matpac.probing.encoder import AudioEncoder

__version__ = "0.1.0"


def load(path: str | Path, *, device: str | None = None) -> "AudioEncoder":
    """Open a trained encoder: one of our checkpoint folders, or a released `.pt` file.

        encoder = matpac.load("data/checkpoints/pretrained")
        embedding = encoder.embed(waveform, sample_rate)  # [clip, dim]

    Raises ValueError where the path holds neither.
    """
    from matpac.probing.encoder import load_encoder

    return load_encoder(Path(path), device)
