"""a model <-> a folder, or a repository of the Hugging Face Hub, that explains itself.

Folder and repository have the same files, with README.md, the model card, among them.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from matpac.weights.pretrained import LIBRARY

Model = TypeVar("Model", bound="Published")

TROUBLE = (HTTPError, HFValidationError, OSError, RuntimeError)
"""Errors of huggingface_hub, and of the libraries it sends requests with."""


class Published(ModelHubMixin):
    """What encoders and classifiers have from huggingface_hub.

    Subclasses write their files (`_save_pretrained`) and the model card (`generate_model_card`), and
    open a folder with them (`_opened`).
    """

    # Neither None nor empty, so the mixin keeps no configuration of its own and config.json stays ours.
    _hub_mixin_config: ClassVar[dict[str, Any]] = {"library_name": LIBRARY}  # type: ignore[misc]
    _files: ClassVar[tuple[str, ...]]
    """Files to download."""

    @classmethod
    @abstractmethod
    def _opened(cls: type[Model], folder: Path, device: str | None) -> Model: ...

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:  # noqa: ANN401
        """Write a folder that `from_pretrained` opens and the Hub takes.

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

    @classmethod
    def from_pretrained(  # type: ignore[override]  # no arguments but these have a meaning
        cls: type[Model],
        pretrained_model_name_or_path: str | Path,
        *,
        device: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Model:
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
            What was saved, on `device`.

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
                    allow_patterns=[*cls._files],
                    library_name=LIBRARY,
                )
            folder = Path(copy)
        return cls._opened(folder, device)

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
