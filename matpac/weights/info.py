"""checkpoint, saved encoder or released file -> what is known of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from matpac.files import checksum
from matpac.model.sizes import SIZES
from matpac.weights import describe as facts
from matpac.weights.checkpoint import damage_named, read_meta
from matpac.weights.names import AUDIOSET, PAPER_LOGMEL, RELEASED, find_weights, on_disk
from matpac.weights.pretrained import WEIGHTS, is_saved, read_config
from matpac.weights.released import read_released


def known_of(name: str | Path) -> dict[str, Any]:
    """Facts by name, as JSON can hold them. Nothing is downloaded: of released files that are not here, less.

    Raises ValueError where `name` is neither a checkpoint folder, a folder of `save_pretrained`, a released
    `.pt` file nor a released name.
    """
    if str(name) in RELEASED and not Path(name).exists() and on_disk(str(name)) is None:
        return {
            **facts.of_release(str(name)),
            **facts.of_front_end(PAPER_LOGMEL, AUDIOSET),
            "file": "not here yet: matpac.load downloads it",
        }
    path = find_weights(name)
    if is_saved(path):
        return _of_pretrained(path)
    return _of_checkpoint(path) if path.is_dir() else _of_released(path)


def _of_pretrained(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    return {
        "file": str(folder),
        **facts.of_encoder(config.dim, config.depth, config.logmel),
        **_num_weights(_shapes(folder / WEIGHTS)),
        **facts.of_front_end(config.logmel, config.standard),
        **facts.of_input(config.chunk_frames, config.logmel),
        **config.origin,
    }


def _of_checkpoint(folder: Path) -> dict[str, Any]:
    meta = read_meta(folder)
    size = SIZES[meta.model.size]
    return {
        "file": str(folder),
        **facts.of_encoder(size.encoder_dim, size.encoder_depth, meta.logmel),
        **_num_weights(_shapes(folder / "networks.safetensors")),
        **facts.of_front_end(meta.logmel, meta.standard),
        **facts.of_input(meta.pretrain.crop_frames, meta.logmel),
        **facts.of_run(meta),
    }


def _of_released(path: Path) -> dict[str, Any]:
    released = read_released(path, PAPER_LOGMEL.num_mels)
    return {
        "file": str(path),
        "sha256": checksum(path),
        **facts.of_encoder(released.dim, released.depth, PAPER_LOGMEL),
        **_num_weights({key: list(value.shape) for key, value in released.networks.items()}),
        **facts.of_front_end(PAPER_LOGMEL, AUDIOSET),
        **facts.of_input(released.crop_frames, PAPER_LOGMEL),
        **facts.of_release(path.stem),
    }


def _shapes(weights: Path) -> dict[str, list[int]]:
    with damage_named(weights), safe_open(weights, framework="pt") as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - no mapping


def _num_weights(shapes: Mapping[str, list[int]]) -> dict[str, int]:
    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    encoder = sum(size for key, size in sizes.items() if key.startswith(("patches.", "student_encoder.")))
    return {"weights_of_encoder": encoder, "weights_of_all_networks": sum(sizes.values())}
