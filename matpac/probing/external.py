"""recordings -> embeddings of another encoder, through the HEAR 2021 API.

https://hearbenchmark.com/hear-api.html
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import groupby, islice
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import nn

from matpac.clip import UnusableAudio
from matpac.datasets.fingerprints import code_of, content_of
from matpac.datasets.inventory import Recording, read_recordings, unchanged
from matpac.devices import device_or_default
from matpac.params import Channels, Other, digest
from matpac.probing.store import Origin
from matpac.threads import ahead

FUNCTIONS, SIZES = ("load_model", "get_scene_embeddings"), ("sample_rate", "scene_embedding_size")
"""Functions of the module and attributes of the model that we use."""
SOUNDS_AHEAD = 32
"""Decoded recordings that wait for the encoder."""


class Located(NamedTuple):
    """Recordings of a dataset: list and folder."""

    inventory: Path
    """Folder of the list, data/raw/<dataset>."""
    root: Path
    """Folder of the recordings."""
    channels: Channels = "mean"
    """What became of several channels in the shards (`shards.channels`)."""


@dataclass(frozen=True)
class OtherEncoder:
    """A loaded encoder with the HEAR API."""

    name: str
    origin: Origin
    module: ModuleType
    model: Any
    """Result of the module's `load_model`."""
    sample_rate_hz: int
    dim: int
    device: torch.device

    def embed(
        self, ids: Sequence[str], sounds: Iterable[NDArray[np.float32]], batch_size: int
    ) -> Iterator[Float32[np.ndarray, " dim"]]:
        """A scene embedding for each sound [time], in order; equal lengths in a row share a batch.

        Raises ValueError that names encoder and clip if the module fails or returns another shape.
        """
        for _, same_length in groupby(zip(ids, sounds, strict=True), key=lambda clip: len(clip[1])):
            while batch := list(islice(same_length, batch_size)):
                yield from self._scene_embeddings(batch)

    def _scene_embeddings(
        self, batch: Sequence[tuple[str, NDArray[np.float32]]]
    ) -> Float32[np.ndarray, "batch dim"]:
        audio = torch.from_numpy(np.stack([sound for _, sound in batch])).to(self.device)
        where = f"embed.others.{self.name}: {self.module.__name__}.get_scene_embeddings"
        which = f"{tuple(audio.shape)} samples (clip {batch[0][0]}{' and others' * (len(batch) > 1)})"
        try:
            with torch.no_grad():
                given = self.module.get_scene_embeddings(audio, self.model)
        except Exception as error:
            raise ValueError(f"{where} failed on {which}: {said(error)}") from error
        found = given.shape if isinstance(given, torch.Tensor) else type(given).__name__
        if found != (len(batch), self.dim):
            raise ValueError(
                f"{where}: need a tensor {(len(batch), self.dim)} (sounds, scene_embedding_size) "
                f"for {which}, got {tuple(found) if isinstance(found, torch.Size) else found}"
            )
        embeddings: Float32[np.ndarray, "batch dim"] = given.detach().to("cpu", torch.float32).numpy()
        return embeddings


def load_other(name: str, params: Other) -> OtherEncoder:
    """Load the encoder on the GPU if there is one.

    Raises ValueError if the module cannot be imported, lacks a part of the API, or fails.
    """
    where = f"embed.others.{name}"
    module = imported(where, params.module)
    missing = [name for name in FUNCTIONS if not callable(getattr(module, name, None))]
    if missing:
        raise ValueError(f"{where}: need the HEAR API, found no function {missing[0]} in {params.module}")
    try:
        model = module.load_model() if params.model is None else module.load_model(params.model)
    except Exception as error:
        asked = "" if params.model is None else repr(params.model)
        raise ValueError(f"{where}: {params.module}.load_model({asked}) failed: {said(error)}") from error
    for size in SIZES:
        found = getattr(model, size, None)
        if not isinstance(found, int) or found < 1:
            raise ValueError(
                f"{where}: need the HEAR API, a whole number as the model's attribute {size}, got {found!r}"
            )
    device = device_or_default()
    if isinstance(model, nn.Module):
        model.to(device).eval()
    return OtherEncoder(
        name,
        origin_of(params),
        module,
        model,
        sample_rate_hz=model.sample_rate,
        dim=model.scene_embedding_size,
        device=device,
    )


def imported(where: str, module: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"{where}: {module} cannot be imported: {said(error)}. Install it.") from error
        raise ValueError(
            f"{where}: need a module that Python finds, got {module}. "
            f"Install the package it is in, or put the folder it is in on PYTHONPATH."
        ) from error
    except Exception as error:
        raise ValueError(f"{where}: {module} cannot be imported: {said(error)}") from error


def said(error: Exception) -> str:
    """Type and message of any exception, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def origin_of(params: Other) -> Origin:
    contents = content_of(Path(params.model or ""))
    return Origin(params.module, params.model, digest(code_of(params.module), contents))


def recordings_of(paths: Sequence[str], located: Located) -> list[Recording]:
    """The recordings at `paths` (column `path` of a shard folder's index), in this order.

    Raises ValueError if the inventory does not list one of them.
    """
    wanted = set(paths)
    found = {item.path: item for item in read_recordings(located.inventory) if item.path in wanted}
    for path in paths:
        if path not in found:
            raise ValueError(
                f"{located.inventory}: need the recordings that the shards were made of, found no {path}. "
                f"Run `dvc repro`."
            )
    return [found[path] for path in paths]


def read_sounds(
    recordings: Iterable[Recording],
    root: Path,
    sample_rate_hz: int,
    resampler: Literal["soxr_hq", "kaiser_best"],
    channels: Channels,
) -> Iterator[Float32[np.ndarray, " time"]]:
    """Mono samples of each recording, decoded and resampled as for shards, from -1 to 1.

    Values beyond full scale (from MP3 and resampling) are clipped, as the API demands. Threads
    decode the next few recordings ahead. Raises ValueError if a recording is missing or has changed
    since the inventory was taken.
    """
    from matpac.signal.audio import read_waveform

    def decoded(name: Path, source: Path | bytes) -> Float32[np.ndarray, " time"]:
        return read_waveform(source, sample_rate_hz, resampler, name, channels).clip(-1, 1)

    # `unchanged` runs here, in order: rows of a parquet file are found fastest one after the other.
    jobs = (partial(decoded, Path(recording.path), unchanged(recording, root)) for recording in recordings)
    try:
        yield from ahead(jobs, SOUNDS_AHEAD, os.cpu_count())
    except UnusableAudio as error:
        raise ValueError(f"embed.others: need the recordings in {root} as they were; {error}") from error
