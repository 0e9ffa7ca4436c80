"""a trained encoder <-> a folder, or a repository of the Hugging Face Hub, that explains itself.

config.json, model.safetensors    as matpac/weights/pretrained.py has them
README.md                         the model card

Folder and repository have the same files.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

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
from torch import Tensor

from matpac.devices import device_or_default
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.params import LogMel
from matpac.weights import describe as facts
from matpac.weights.checkpoint import Standard, read_tensors
from matpac.weights.model_card import model_card
from matpac.weights.pretrained import CONFIG, LIBRARY, WEIGHTS, Config, read_config, write_saved

Opened = TypeVar("Opened", bound="TrainedEncoder")

TROUBLE = (HTTPError, HFValidationError, OSError, RuntimeError)
"""What huggingface_hub raises, and the libraries that it sends requests with, where those fail."""


@dataclass(frozen=True, eq=False)
class TrainedEncoder(ModelHubMixin):
    """What there is to save of an encoder. Equal to itself only; `digest` tells which embed the same.

    `save_pretrained(folder)`, `from_pretrained(folder or repository)` and `push_to_hub(repository)` come
    from huggingface_hub (https://huggingface.co/docs/huggingface_hub/package_reference/mixins).
    """

    # Neither None nor empty: then the mixin keeps no configuration of its own, and config.json is ours.
    _hub_mixin_config: ClassVar[dict[str, Any]] = {"library_name": LIBRARY}  # type: ignore[misc]

    patches: Patches
    encoder: Encoder
    logmel: LogMel
    standard: Standard
    chunk_frames: int
    """Longest input of one forward pass; longer clips are cut into chunks of this many frames."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained and on what, as far as is known: facts by name, as JSON can hold them."""

    @classmethod
    def from_folder(cls: type[Opened], folder: Path, device: str | None = None) -> Opened:
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
        networks.to(device_or_default(device)).eval()
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
        config = self._config().as_json() | {"origin": None}
        found = hashlib.sha256(json.dumps(config).encode())
        for name, value in self._weights().items():
            found.update(name.encode())
            found.update(value.numpy().tobytes())
        return found.hexdigest()

    def generate_model_card(self, **about: Any) -> ModelCard:  # noqa: ANN401 - as the mixin has it
        """From what is known; `about`: `license`, `scores` and `repo_id` of `model_card`.

        They are given as `model_card_kwargs` of `save_pretrained` and `push_to_hub`, which adds the
        repository. A README.md that is in the folder already is kept.
        """
        return ModelCard(model_card(self.known(), **about))

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:  # noqa: ANN401
        """Write what the Hub takes; the options are those of `ModelHubMixin.save_pretrained`.

        Raises TypeError where `model_card_kwargs` holds a word that the card does not know.
        """
        self._check_card(options)
        return super().save_pretrained(save_directory, **options)

    def _check_card(self, options: Mapping[str, Any]) -> None:
        # The mixin makes the card last: a wrong word would leave weights, or an empty repository, behind.
        self.generate_model_card(**(options.get("model_card_kwargs") or {}))

    def _save_pretrained(self, save_directory: Path) -> None:
        write_saved(save_directory, self._config(), self._weights())

    def _weights(self) -> dict[str, Tensor]:
        networks = torch.nn.ModuleDict({"patches": self.patches, "student_encoder": self.encoder})
        return {name: value.cpu().contiguous() for name, value in networks.state_dict().items()}

    def _config(self) -> Config:
        blocks = self.encoder.blocks
        sizes = blocks.dim, len(blocks), blocks.num_heads, self.chunk_frames
        return Config(*sizes, self.logmel, self.standard, self.origin)

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
        """Open a folder of `save_pretrained`, or a repository of the Hub that holds the same.

        The arguments are those of `huggingface_hub.snapshot_download`, and `device` as of `matpac.load`.
        Raises ValueError, in one line, where a repository cannot be had or holds anything else.
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
        return cls.from_folder(folder, device)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - as the mixin has them
        """Publish what `save_pretrained` writes; the options are those of `ModelHubMixin.push_to_hub`.

        Raises ValueError, in one line, where the Hub does not take it, and TypeError as `save_pretrained`.
        """
        self._check_card(options)
        with trouble_named(repo_id, "published"):
            about = options.pop("model_card_kwargs", None) or {}
            if "/" in repo_id:  # else the Hub puts the user's name before it
                about = {"repo_id": repo_id, **about}
            return super().push_to_hub(repo_id, model_card_kwargs=about, **options)


@contextmanager
def trouble_named(repository: str, done: str) -> Iterator[None]:
    """Turn what huggingface_hub raises, over many lines, into one that says what failed and what to do."""
    try:
        yield
    except TROUBLE as error:
        raise ValueError(f"{repository}: cannot be {done}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # Behind "not on this disk" may be an answer of the Hub.
    answers = (getattr(one, "response", None) for one in (error, error.__cause__))
    status = next((answer.status_code for answer in answers if answer is not None), None)
    match error:
        case HFValidationError():
            return "it is no folder here, and no name of a repository (user/repository). Check it."
        case GatedRepoError():
            return "its owner grants access. Ask for it on its page, then log in: `hf auth login`."
        case RepositoryNotFoundError():
            return (
                "there is no such repository, or it is private. Check the name, or log in: `hf auth login`."
            )
        case RevisionNotFoundError():
            return "it has no such revision. Its page lists those it has."
        case _ if status in (401, 403):
            return f"you have no permission ({status}). Log in with a token that has: `hf auth login`."
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            return (
                "the Hub gave no answer, and this disk has no whole copy. Check the network, HF_ENDPOINT "
                "and HF_HUB_OFFLINE, or give a folder with a copy."
            )
    said = next(iter(str(error).splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {said}. Check network and disk, and try again."
