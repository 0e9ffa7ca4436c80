"""a trained encoder <-> a folder, or a repository of the Hugging Face Hub, that explains itself.

config.json          sizes, front end, statistics, how and on what it was trained
model.safetensors    patches and student encoder, in the names of Pretext
README.md            the model card

No file holds code. Folder and repository have the same files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from safetensors.torch import save_file
from torch import Tensor

from matpac.files import read_json, whole_file, write_json
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.params import LogMel
from matpac.probing import facts
from matpac.probing.model_card import model_card
from matpac.training.checkpoint import Standard, read_tensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1


class Config(NamedTuple):
    """config.json"""

    dim: int
    depth: int
    num_heads: int
    chunk_frames: int
    logmel: LogMel
    standard: Standard
    origin: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class TrainedEncoder(ModelHubMixin):
    """What there is to save of an encoder. Equal to itself only; `digest` tells which embed the same.

    `save_pretrained(folder)`, `from_pretrained(folder or repository)` and `push_to_hub(repository)` come
    from huggingface_hub (https://huggingface.co/docs/huggingface_hub/package_reference/mixins).
    """

    # Neither None nor empty: then the mixin keeps no configuration of its own, and config.json is ours.
    _hub_mixin_config: ClassVar[dict[str, Any]] = {"library_name": "matpac"}  # type: ignore[misc]

    patches: Patches
    encoder: Encoder
    logmel: LogMel
    standard: Standard
    chunk_frames: int
    """Longest input of one forward pass; longer clips are cut into chunks of this many frames."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained and on what, as far as is known: facts by name, as JSON can hold them."""

    @classmethod
    def from_folder(cls, folder: Path, device: str | None = None) -> "TrainedEncoder":
        """Open what `save_pretrained` has written. On `device`: a GPU where there is one.

        Raises ValueError where the folder holds anything else.
        """
        config = read_config(folder)
        patches = Patches(config.logmel.num_mels, config.chunk_frames, config.dim)
        encoder = Encoder(config.dim, config.depth, config.num_heads)
        networks = torch.nn.ModuleDict({"patches": patches, "student_encoder": encoder})
        tensors = read_tensors(folder / WEIGHTS)
        try:
            networks.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{folder / WEIGHTS}: {' '.join(str(error).split())}") from None
        networks.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        return cls(patches, encoder, config.logmel, config.standard, config.chunk_frames, dict(config.origin))

    def known(self) -> dict[str, Any]:
        """Facts by name, as JSON can hold them."""
        dim, depth = self.encoder.blocks.dim, len(self.encoder.blocks)
        return {
            **facts.of_encoder(dim, depth, self.logmel),
            **facts.of_front_end(self.logmel, self.standard),
            **facts.of_input(self.chunk_frames, self.logmel),
            **self.origin,
        }

    def digest(self) -> str:
        """SHA-256 of all that embeddings depend on, whatever file it was opened from."""
        config = self._config() | {"origin": None}
        found = hashlib.sha256(json.dumps(config).encode())
        for name, value in self._weights().items():
            found.update(name.encode())
            found.update(value.numpy().tobytes())
        return found.hexdigest()

    def generate_model_card(self, **about: Any) -> ModelCard:  # noqa: ANN401 - as the mixin has it
        """From what is known; `about`: `license`, `scores` and `repo_id` of `model_card`.

        They are given as `model_card_kwargs` of `save_pretrained` and `push_to_hub`. A README.md that is in
        the folder already is kept.
        """
        return ModelCard(model_card(self.known(), **about))

    def _save_pretrained(self, save_directory: Path) -> None:
        with whole_file(save_directory / WEIGHTS) as partial:
            save_file(self._weights(), partial, metadata={"format": "pt"})
        # Last: a folder with this file is whole.
        write_json(save_directory / CONFIG, self._config())

    def _weights(self) -> dict[str, Tensor]:
        networks = torch.nn.ModuleDict({"patches": self.patches, "student_encoder": self.encoder})
        return {name: value.cpu().contiguous() for name, value in networks.state_dict().items()}

    def _config(self) -> dict[str, Any]:
        blocks = self.encoder.blocks
        return {
            **self._hub_mixin_config,
            "format": FORMAT,
            "dim": blocks.dim,
            "depth": len(blocks),
            "num_heads": cast(Any, blocks[0]).attn.num_heads,
            "chunk_frames": self.chunk_frames,
            "logmel": self.logmel.model_dump(mode="json"),
            "standard": self.standard._asdict(),
            "origin": dict(self.origin),
        }

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        device: str | None = None,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_of_config: Any,  # noqa: ANN401 - what the mixin has read; `read_config` checks it
    ) -> "TrainedEncoder":
        if Path(model_id).is_dir():
            return cls.from_folder(Path(model_id), device)
        folder = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[CONFIG, WEIGHTS],
            library_name="matpac",
        )
        return cls.from_folder(Path(folder), device)


def is_pretrained(path: Path) -> bool:
    """Whether `save_pretrained` has written there, or something that calls itself so."""
    return (path / CONFIG).is_file()


def read_config(folder: Path) -> Config:
    """Raises ValueError where config.json is missing, or is that of something else."""
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder}: need an encoder saved by save_pretrained, found no {CONFIG}")
    raw = read_json(path)
    found = (raw.get("library_name"), raw.get("format")) if isinstance(raw, dict) else type(raw).__name__
    if found != ("matpac", FORMAT):
        raise ValueError(f"{path}: need library_name matpac and format {FORMAT}, found {found}")
    try:
        fields = {name: raw[name] for name in Config._fields}
        return Config(**fields | {"logmel": LogMel(**raw["logmel"]), "standard": Standard(**raw["standard"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: need {', '.join(Config._fields)}, found others: {error!r}") from None
