"""MATPAC: self-supervised audio representation learning, from raw recordings to probe scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matpac.classifier.classifier import Classifier
    from matpac.clip import UnusableAudio
    from matpac.encoder.encoder import AudioEncoder

__version__ = "0.1.0"
__all__ = ["AudioEncoder", "Classifier", "UnusableAudio", "load", "load_classifier"]


def load(
    name: str | Path,
    *,
    device: str | None = None,
    num_heads: int | None = None,
    precision: str = "float32",
) -> "AudioEncoder":
    """Open a trained encoder.

        encoder = matpac.load("data/checkpoints/pretrained")
        encoder = matpac.load("matpac_10_2048")  # the authors' weights, downloaded at first use
        embedding = encoder.embed(waveform, sample_rate)  # [clip, dim]

    Args:
        name: Checkpoint folder, folder of `save_pretrained`, `.pt` file in the authors' format, or
            released name: `matpac_10_2048`, `matpac_plus_6s_2048_enconly` or
            `matpac_plus_music_6s_2048_enconly`.
        device: Device as torch names it; None takes a GPU if there is one.
        num_heads: Attention heads of the encoder. Only needed for a `.pt` file, which does not say, and
            only if its dimensions are not those of a usual ViT (192, 384, 768 or 1,024, 64 a head).
        precision: Precision of the encoder's matrix products, float32 or bfloat16. bfloat16 is meant for
            GPUs, which have units for it. It turns an embedding by a fifth of a degree at most.

    Returns:
        The encoder, on `device`.

    Raises:
        ValueError: There are no such weights; a file holds anything but plain tensors, NaN or infinity;
            files are edited and do not fit each other; `num_heads` is missing or does not fit; or
            `precision` is another. One line names the file and the field.
    """
    from matpac.encoder.encoder import load_encoder

    return load_encoder(name, device, num_heads=num_heads, precision=precision)


def load_classifier(path: str | Path, *, device: str | None = None) -> "Classifier":
    """Open a classifier: an encoder with a head that was trained on labelled clips.

        classifier = matpac.load_classifier("data/classifiers/esc10")
        probabilities = classifier.predict(waveform, sample_rate)  # [clip, class]

    Args:
        path: Folder that `matpac fit` or `Classifier.save_pretrained` wrote.
        device: Device as torch names it; None takes a GPU if there is one.

    Returns:
        The classifier, on `device`.

    Raises:
        ValueError: The folder holds no classifier, a file is damaged, or its files do not fit each
            other. One line names the file and the field.
    """
    from matpac.classifier.classifier import load_classifier

    return load_classifier(path, device)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    """Import the classes when they are asked for: torch takes seconds."""
    if name == "AudioEncoder":
        from matpac.encoder.encoder import AudioEncoder

        return AudioEncoder
    if name == "Classifier":
        from matpac.classifier.classifier import Classifier

        return Classifier
    if name == "UnusableAudio":
        from matpac.clip import UnusableAudio

        return UnusableAudio
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
