"""a trained encoder <-> a folder, or a repository of the Hugging Face Hub, that explains itself.

config.json, model.safetensors    see matpac/weights/pretrained.py
README.md                         the model card
digests.parquet                   what a checkpoint learned from, if it knows, without readable ids

Folder and repository have the same files. The last one is not downloaded: no code here needs it.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from huggingface_hub import ModelCard
from jaxtyping import Float32
from torch import Tensor

from matpac.devices import device_or_default
from matpac.encoder.module import EncoderModule
from matpac.encoder.published import Published
from matpac.files import DIGESTS
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.params import LogMel, Precision
from matpac.weights import describe
from matpac.weights.checkpoint import Standard
from matpac.weights.open import Weights, open_saved
from matpac.weights.pretrained import CONFIG, WEIGHTS, Config, is_saved, write_saved
from matpac.weights.released import ENCODER

Opened = TypeVar("Opened", bound="TrainedEncoder")


class TrainedEncoder(EncoderModule, Published):
    """An encoder as far as it is saved. Equal only to itself; `digest` tells which encoders embed the same.

    `save_pretrained(folder)`, `from_pretrained(folder or repository)` and `push_to_hub(repository)` come
    from huggingface_hub (https://huggingface.co/docs/huggingface_hub/package_reference/mixins).
    """

    _files: ClassVar[tuple[str, ...]] = (CONFIG, WEIGHTS)

    def __init__(
        self,
        patches: Patches,
        encoder: Encoder,
        logmel: LogMel,
        mel_filters: Float32[np.ndarray, "bin mel"],
        standard: Standard,
        chunk_frames: int,
        origin: Mapping[str, Any] | None = None,
        *,
        precision: Precision = "float32",
    ) -> None:
        """`origin`: facts about the training by name, as JSON holds them. Others as for `EncoderModule`."""
        super().__init__(patches, encoder, logmel, mel_filters, standard, chunk_frames, precision)
        self.origin: Mapping[str, Any] = origin or {}
        self.learned_from: Path | None = None
        """Folder with a list of the recordings that the weights have learned from."""

    @classmethod
    def from_weights(
        cls: type[Opened],
        weights: Weights,
        device: str | None = None,
        *,
        num_heads: int | None = None,
        precision: Precision = "float32",
    ) -> Opened:
        """Build the encoder of opened weights, on a GPU if there is one; `matpac.load` has the arguments.

        Raises:
            ValueError: A weight is NaN or infinite, or `num_heads` is missing or wrong.
        """
        patches = Patches(weights.logmel.num_mels, weights.chunk_frames, weights.dim)
        encoder = Encoder(weights.dim, weights.depth, _heads_of(weights, num_heads))
        networks = torch.nn.ModuleDict({"patches": patches, "student_encoder": encoder})
        networks.load_state_dict(weights.networks(ENCODER))
        opened = cls(
            patches,
            encoder,
            weights.logmel,
            weights.mel_filters,
            weights.standard,
            weights.chunk_frames,
            describe.facts_of_training(weights.origin),
            precision=precision,
        )
        opened.learned_from = weights.path if (weights.path / DIGESTS).is_file() else None
        return opened.to(device_or_default(device)).eval()

    def facts(self) -> dict[str, Any]:
        """Facts by name, as JSON can hold them."""
        dim, depth = self.encoder.blocks.dim, len(self.encoder.blocks)
        return {
            **describe.facts_of_sizes(dim, depth, self.logmel),
            **describe.facts_of_input(self.logmel, self.standard, self.chunk_frames),
            **self.origin,
        }

    def digest(self) -> str:
        """SHA-256 of weights, sizes, front end and statistics; the same for every file they come from."""
        config = self._config().as_json() | {"origin": None}
        found = hashlib.sha256(json.dumps(config).encode())
        for name, value in self._weights().items():
            found.update(name.encode())
            found.update(value.numpy().tobytes())
        return found.hexdigest()

    def generate_model_card(self, **about: Any) -> ModelCard:  # noqa: ANN401 - as the mixin has it
        """Write the model card; `about` may hold `license`, `scores` and `repo_id` (see `model_card`).

        `save_pretrained` and `push_to_hub` pass on their `model_card_kwargs`; the latter adds the
        repository. They keep a README.md that is already in the folder.
        """
        return ModelCard(describe.model_card(self.facts(), **about))

    def _save_pretrained(self, save_directory: Path) -> None:
        self._save_digests(save_directory)
        write_saved(save_directory, self._config(), self._weights(), self.mel_filters)

    def _save_digests(self, folder: Path) -> None:
        """Write the list without readable ids, which may name what nobody else should read."""
        source, target = self.learned_from, folder / DIGESTS
        if source is None or not (source / DIGESTS).is_file():
            target.unlink(missing_ok=True)  # that of another encoder
        elif not is_saved(source):
            from matpac.digests import read_digests, without_names, write_digests

            write_digests(folder, without_names(read_digests(source)))
        elif not target.exists() or not target.samefile(source / DIGESTS):
            shutil.copyfile(source / DIGESTS, target)

    def _weights(self) -> dict[str, Tensor]:
        networks = torch.nn.ModuleDict({"patches": self.patches, "student_encoder": self.encoder})
        return {name: value.cpu().contiguous() for name, value in networks.state_dict().items()}

    def _config(self) -> Config:
        blocks = self.encoder.blocks
        return Config(
            dim=blocks.dim,
            depth=len(blocks),
            num_heads=blocks.num_heads,
            chunk_frames=self.chunk_frames,
            logmel=self.logmel,
            standard=self.standard,
            origin=dict(self.origin),
        )

    @classmethod
    def _opened(cls: type[Opened], folder: Path, device: str | None) -> Opened:
        return cls.from_weights(open_saved(folder), device)


def _heads_of(weights: Weights, asked: int | None) -> int:
    if asked is None and weights.num_heads is not None:
        return weights.num_heads
    if weights.path.is_dir():
        raise ValueError(f"{weights.path}: need no num_heads, the folder says how many. Leave it out.")
    if asked is None:
        raise ValueError(
            f"{weights.path}: need num_heads: files of this format do not say how many attention heads there "
            f"are, and {weights.dim} dimensions are no usual ViT's. If 2, "
            f"matpac.load({weights.path.name!r}, num_heads=2).save_pretrained(folder) writes a folder that "
            f"says it, for use in place of the file."
        )
    if asked < 1 or weights.dim % asked:
        raise ValueError(f"{weights.path}: need num_heads that divides {weights.dim} dimensions, got {asked}")
    return asked
