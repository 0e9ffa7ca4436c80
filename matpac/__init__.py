"""MATPAC: self-supervised audio representation learning, from raw recordings to probe scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matpac.encoder.encoder import AudioEncoder

__version__ = "0.1.0"


def load(name: str | Path, *, device: str | None = None, num_heads: int | None = None) -> "AudioEncoder":
    """Open a trained encoder: a folder (checkpoint or saved), a released `.pt` file, or a released name.

        encoder = matpac.load("data/checkpoints/pretrained")
        encoder = matpac.load("matpac_10_2048")  # the authors' weights, downloaded at first use
        embedding = encoder.embed(waveform, sample_rate)  # [clip, dim]

    The names: `matpac_10_2048`, `matpac_plus_6s_2048_enconly`, `matpac_plus_music_6s_2048_enconly`.

    `device`: as torch names it; by default a GPU where there is one. `num_heads`: attention heads of the
    encoder in a file of the released format, which does not say; needed where it is no usual ViT of 192, 384,
    768 or 1,024 dimensions, with 64 a head. Raises ValueError where there are no such weights, a file holds
    anything but plain tensors, or `num_heads` is missing or does not fit.
    """
    from matpac.encoder.encoder import load_encoder

    return load_encoder(name, device, num_heads=num_heads)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of a module
    """`matpac.AudioEncoder`, imported when it is asked for: torch takes seconds."""
    if name != "AudioEncoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from matpac.encoder.encoder import AudioEncoder

    return AudioEncoder
