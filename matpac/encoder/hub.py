"""a trained encoder <-> a folder, or a repository of the Hugging Face Hub, that explains itself.

config.json, model.safetensors    see matpac/weights/pretrained.py
README.md                         the model card

Folder and repository have the same files.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from jaxtyping import Float32
from torch import Tensor

from matpac.devices import device_or_default
from matpac.encoder.module import EncoderModule
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.params import LogMel, Precision
from matpac.weights import describe
from matpac.weights.checkpoint import Standard
from matpac.weights.open import Weights, open_saved
from matpac.weights.pretrained import CONFIG, LIBRARY, WEIGHTS, Config, write_saved
from matpac.weights.released import ENCODER

Opened = TypeVar("Opened", bound="TrainedEncoder")

TROUBLE = (HTTPError, HFValidationError, OSError, RuntimeError)
"""Errors of huggingface_hub, and of the libraries it sends requests with."""


class TrainedEncoder(EncoderModule, ModelHubMixin):
    """An encoder as far as it is saved. Equal only to itself; `digest` tells which encoders embed the same.

    `save_pretrained(folder)`, `from_pretrained(folder or repository)` and `push_to_hub(repository)` come
    from huggingface_hub (https://huggingface.co/docs/huggingface_hub/package_reference/mixins).
    """

    # Neither None nor empty, so the mixin keeps no configuration of its own and config.json stays ours.
    _hub_mixin_config: ClassVar[dict[str, Any]] = {"library_name": LIBRARY}  # type: ignore[misc]

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

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:  # noqa: ANN401
        """Write a folder that `matpac.load` opens and the Hub takes.

        Args:
            save_directory: Folder to write to; its other files stay.
            **options: Options of `huggingface_hub.ModelHubMixin.save_pretrained`, among them
                `model_card_kwargs`.

        Raises:
            TypeError: `model_card_kwargs` holds a key that `model_card` does not take.
        """
        self._check_card(options)
        return super().save_pretrained(save_directory, **options)

    def _check_card(self, options: Mapping[str, Any]) -> None:
        # The mixin writes the card last, so a wrong key would leave weights or an empty repository behind.
        self.generate_model_card(**(options.get("model_card_kwargs") or {}))

    def _save_pretrained(self, save_directory: Path) -> None:
        write_saved(save_directory, self._config(), self._weights(), self.mel_filters)

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
    def from_pretrained(  # type: ignore[override]  # no arguments but these have a meaning
        cls: type[Opened],
        pretrained_model_name_or_path: str | Path,
        *,
        device: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Opened:
        """Open a folder of `save_pretrained`, or a repository of the Hub with the same files.

        Args:
            pretrained_model_name_or_path: Folder, or `user/repository`.
            device: Device as torch names it; None takes a GPU if there is one.
            revision: Branch, tag or commit of the repository.
            cache_dir: Folder for downloads, instead of the Hub's own.
            force_download: Whether to download again what is in the cache.
            local_files_only: Whether to use only the cache.
            token: Access token, or whether to use the stored one.

        Returns:
            The encoder, on `device`.

        Raises:
            ValueError: The repository cannot be opened or holds anything else; one line.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            repository = str(pretrained_model_name_or_path)
            with trouble_named(repository, "opened"):
                copy = snapshot_download(
                    repository,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=[CONFIG, WEIGHTS],
                    library_name=LIBRARY,
                )
            folder = Path(copy)
        return cls.from_weights(open_saved(folder), device)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - as the mixin has them
        """Publish the files of `save_pretrained`.

        Args:
            repo_id: Repository, `user/repository`.
            **options: Options of `huggingface_hub.ModelHubMixin.push_to_hub`, among them
                `model_card_kwargs`.

        Returns:
            Address of the commit.

        Raises:
            ValueError: The Hub refuses or cannot be reached; one line.
            TypeError: `model_card_kwargs` holds a key that `model_card` does not take.
        """
        self._check_card(options)
        with trouble_named(repo_id, "published"):
            about = options.pop("model_card_kwargs", None) or {}
            if "/" in repo_id:  # otherwise the Hub puts the user's name before it
                about = {"repo_id": repo_id, **about}
            return super().push_to_hub(repo_id, model_card_kwargs=about, **options)


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


@contextmanager
def trouble_named(repository: str, done: str) -> Iterator[None]:
    """Turn the long errors of huggingface_hub into one line that says what failed and what to do."""
    try:
        yield
    except TROUBLE as error:
        raise ValueError(f"{repository}: cannot be {done}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # An error "not on this disk" may be caused by an answer of the Hub.
    answers = (getattr(one, "response", None) for one in (error, error.__cause__))
    status = next((answer.status_code for answer in answers if answer is not None), None)
    match error:
        case HFValidationError():
            return "it is neither a folder nor the name of a repository (user/repository). Check it."
        case GatedRepoError():
            return "its owner grants access. Ask for it on its page, then log in: `hf auth login`."
        case RepositoryNotFoundError():
            return (
                "there is no such repository, or it is private. Check the name, or log in: `hf auth login`."
            )
        case RevisionNotFoundError():
            return "it has no such revision. Its page lists them."
        case _ if status in (401, 403):
            return f"you have no permission ({status}). Log in with a token that has it: `hf auth login`."
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            return (
                "the Hub gave no answer, and this disk has no whole copy. Check the network, HF_ENDPOINT "
                "and HF_HUB_OFFLINE, or give a folder with a copy."
            )
    said = next(iter(str(error).splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {said}. Check network and disk, and try again."
