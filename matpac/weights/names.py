"""a name or a path -> trained weights on this disk; the authors' files are downloaded at their first use."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matpac.fetch.http import PATIENT, Patience, RemoteFile, download
from matpac.files import checksum, locked, write_text
from matpac.params import LogMel
from matpac.progress import Progress
from matpac.weights.checkpoint import Standard

MB = 1_000_000


@dataclass(frozen=True)
class ReleasedFile:
    url: str
    model: str
    trained_on: str


RELEASES = "https://github.com/aurianworld/matpac/releases/download"
RELEASED = {
    "matpac_10_2048": ReleasedFile(
        f"{RELEASES}/Initial_release/matpac_10_2048.pt",
        "MATPAC (ICASSP 2025), 2,048 classes",
        "AudioSet, 2,012,615 clips, 294,816 updates of 2,048 crops",
    ),
    "matpac_plus_6s_2048_enconly": ReleasedFile(
        f"{RELEASES}/MATPAC%2B%2B/matpac_plus_6s_2048_enconly.pt", "MATPAC++, 2,048 classes", "AudioSet"
    ),
    "matpac_plus_music_6s_2048_enconly": ReleasedFile(
        f"{RELEASES}/MATPAC%2B%2B/matpac_plus_music_6s_2048_enconly.pt", "MATPAC++, 2,048 classes", "music"
    ),
}
"""The authors' pre-trained encoders (https://github.com/aurianworld/matpac, inference_matpac/README.md)."""

PAPER_LOGMEL = LogMel(
    sample_rate_hz=16_000,
    window_ms=25,
    hop_ms=10,
    num_mels=80,
    fmin_hz=50,
    fmax_hz=8_000,
    resampler="kaiser_best",
)
"""Front end of the authors' released weights."""

AUDIOSET = Standard(mean=-7.056, std=4.193)
"""Statistics the released weights were trained with."""


def find_weights(
    name: str | Path, released: Mapping[str, ReleasedFile] = RELEASED, *, patience: Patience = PATIENT
) -> Path:
    """The path itself where something is there, else the released file of that name, downloaded if need be.

    Nobody publishes checksums of these files, so the first use decides: the SHA-256 goes into
    `<name>.pt.sha256` in the cache, and the file must have it ever after. Processes wait for each other.
    Raises ValueError where there is neither a path nor a name, the file cannot be had, or it has changed.
    """
    if Path(name).exists():
        return Path(name)
    name = str(name)
    if name not in released:
        raise ValueError(
            f"{name}: need a checkpoint, a saved folder or a released .pt file, found none "
            f"(released files that have a name: {', '.join(released)}; a repository of the Hugging Face Hub "
            f"is put into a folder first: `hf download user/repository --local-dir folder`)"
        )
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{name}.lock", wait=True):
        path = on_disk(name)
        if path is None:
            path = cache / f"{name}.pt"
            _download(released[name].url, path, patience)
        _agree_with_first_use(path, cache / f"{name}.pt.sha256")
    return path


def cache_folder() -> Path:
    """$MATPAC_HOME, else ~/.cache/matpac."""
    return Path(os.environ.get("MATPAC_HOME") or Path.home() / ".cache" / "matpac")


def on_disk(name: str) -> Path | None:
    """The released file of that name in this folder, in data/checkpoints or in the cache."""
    folders = (Path(), Path("data/checkpoints"), cache_folder())
    return next((folder / f"{name}.pt" for folder in folders if (folder / f"{name}.pt").is_file()), None)


def _download(url: str, path: Path, patience: Patience) -> None:
    progress = Progress(path.name, 0, "MB")

    def report(done_bytes: int, total_bytes: int) -> None:
        progress.total = total_bytes // MB
        progress.advance(done_bytes // MB - progress.done)

    otherwise = f"put a copy of it into this folder, data/checkpoints or {path.parent}"
    file = RemoteFile(path.name, (url,), checksum=None, otherwise=otherwise)
    download([file], path.parent, report, patience=patience)


def _agree_with_first_use(path: Path, record: Path) -> None:
    """`record` is a line that `sha256sum --check` reads."""
    found = checksum(path)
    if not record.exists():
        write_text(record, f"{found}  {path.name}\n")
        return
    first = record.read_text(encoding="utf-8").split()[0]
    if found != first:
        raise ValueError(
            f"{path}: need the file of the first use (sha256 {first}, noted in {record}), "
            f"found {found}. Remove {path} to download it again, or the note if it was replaced on purpose."
        )
