"""the authors' weight files: by name, downloaded once, and as tensors in our names.

The files (https://github.com/aurianworld/matpac) are flat dictionaries of tensors; inference files hold
only the encoder. Positions are fixed, so they are checked rather than loaded.
"""

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from matpac.fetch.http import PATIENT, Patience, RemoteFile, download
from matpac.files import checksum, locked, write_text
from matpac.model.patches import sine_cosine
from matpac.model.sizes import PATCH
from matpac.params import LogMel
from matpac.progress import Progress
from matpac.weights.checkpoint import Standard, blank_encoder, shapes_without_memory
from matpac.weights.tensors import check_finite, first_misfit, shapes_of

MB = 1_000_000


@dataclass(frozen=True)
class ReleasedFile:
    """A file that the authors publish, and what they say about it."""

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
"""Front end of the released weights."""

AUDIOSET = Standard(mean=-7.056, std=4.193)
"""Statistics that the released weights were trained with."""

PREFIXES = {
    "student_encoder.": "student_encoder.",
    "teacher_encoder.": "teacher_encoder.",
    "decoder.decoder_embed.": "predictor.embedding.",
    "decoder.decoder_blocks.": "predictor.blocks.",
    "decoder.decoder_norm.": "predictor.norm.",
    "decoder.decoder_pred.": "predictor.hypotheses.",
    "decoder.mask_token": "predictor.mask_token",
    "cls_student_head.last_layer.weight_g": "student_head.scale",
    "cls_student_head.last_layer.weight_v": "student_head.direction",
    "cls_student_head.mlp.": "student_head.mlp.",
    "cls_teacher_head.last_layer.weight_g": "teacher_head.scale",
    "cls_teacher_head.last_layer.weight_v": "teacher_head.direction",
    "cls_teacher_head.mlp.": "teacher_head.mlp.",
    "cls_head_loss.center": "center.value",
    "cls_token": "patches.cls_token",
    "patch_embed.proj.": "patches.projection.",
}
POSITIONS = {"pos_embed", "decoder.decoder_pos_embed"}
REQUIRED = {"cls_token", "pos_embed", "student_encoder.blocks.0.norm1.weight", "student_encoder.norm.weight"}
AXES = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4}
"""Axes of tensors that we reshape."""
BLOCK = re.compile(r"student_encoder\.blocks\.(\d+)\.")
ENCODER = ("patches.", "student_encoder.")
HYPOTHESES = "mcl_heads.mcl_heads."
VIT_DIMS = (192, 384, 768, 1024)
"""ViT-Ti, -S, -B and -L, whose heads have 64 dimensions (https://arxiv.org/abs/2012.12877, Table 1;
https://arxiv.org/abs/2010.11929, Table 1)."""
PICKLES = (b"PK\x03\x04", b"\x80")
"""First bytes of a file by `torch.save` or `pickle.dump`: a zip archive of pickles, or one pickle."""


def find_weights(
    name: str | Path, released: Mapping[str, ReleasedFile] = RELEASED, *, patience: Patience = PATIENT
) -> Path:
    """Return `name` itself if it is an existing path, else the released file of that name.

    The file is downloaded at its first use; processes wait for each other. The authors publish no
    checksums, so we trust the first use: the SHA-256 goes into `<name>.pt.sha256` in the cache, and
    the file must have it from then on.

    Raises:
        ValueError: `name` is neither a path nor a released name, the file cannot be downloaded, or it
            has changed since its first use.
    """
    if Path(name).exists():
        return Path(name)
    name = str(name)
    if name not in released:
        raise ValueError(
            f"{name}: need a checkpoint, a saved folder or a released .pt file, found none "
            f"(released files that have a name: {', '.join(released)}; for a repository of the Hugging "
            f"Face Hub, first run `hf download user/repository --local-dir folder`)"
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
    """Look for the released file `name` in this folder, in data/checkpoints and in the cache."""
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
    """Compare a file with its `record`, a line that `sha256sum --check` reads; write it at the first use."""
    found = checksum(path)
    if not record.exists():
        write_text(record, f"{found}  {path.name}\n")
        return
    first = record.read_text(encoding="utf-8").split()[0]
    if found != first:
        raise ValueError(
            f"{path}: need the file of the first use (sha256 {first}, noted in {record}), found {found}. "
            f"Remove {path} to download it again, or the note if you replaced the file on purpose."
        )


class Released(NamedTuple):
    """The contents of a released file."""

    networks: dict[str, Tensor]
    """Tensors in the names of Pretext: the encoder, and in training states the other networks too."""
    dim: int
    depth: int
    crop_frames: int

    @property
    def usual_heads(self) -> int | None:
        """Attention heads of the usual ViT of this size; None if there is none. The file does not say."""
        return self.dim // 64 if self.dim in VIT_DIMS else None


def read_released(path: Path, num_mels: int) -> Released:
    """Read a released file without running anything in it.

    Raises:
        ValueError: The file holds pickled objects, other weights, or weights that are not finite; one line
            that names the file.
    """
    state = _plain_tensors(path)
    missing = REQUIRED - set(state)
    if missing:
        raise ValueError(f"{path}: need the released weights of an encoder, found no {min(missing)}")
    for name, num_axes in AXES.items():
        if name in state and state[name].ndim != num_axes:
            raise ValueError(f"{path}: {name}: need {num_axes} axes, found {list(state[name].shape)}")
    check_finite(path, state)
    try:
        networks = our_names(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    num_freq, dim = num_mels // PATCH, state["cls_token"].shape[-1]
    positions = state["pos_embed"][0, 1:].float()
    num_time = len(positions) // num_freq
    if not _are_fixed(positions, num_freq, num_time, dim):
        raise ValueError(f"{path}: need fixed sine-cosine positions, got others (pos_embed)")
    blocks = {block[1] for key in state if (block := BLOCK.match(key))}
    needed = shapes_without_memory(path, lambda: blank_encoder(num_mels, dim, len(blocks)))
    found = {name: shape for name, shape in shapes_of(networks).items() if name.startswith(ENCODER)}
    if misfit := first_misfit(needed, found):
        raise ValueError(
            f"{path}: {misfit.name} (our name): need {misfit.needed} beside the other tensors, "
            f"found {misfit.found}. Get a whole copy of the file."
        )
    return Released(networks, dim, len(blocks), num_time * PATCH)


def _are_fixed(positions: Tensor, num_freq: int, num_time: int, dim: int) -> bool:
    if dim % 4 or num_time == 0 or positions.shape != (num_freq * num_time, dim):
        return False
    return torch.allclose(positions, sine_cosine(num_freq, num_time, dim), atol=1e-4)


def _plain_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about some files before it refuses them
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise whatever their bytes lead to
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and (named or _begins_as_pickle(path)):
            what = f"a pickled object ({named[1]})" if named else "pickled objects"
            raise ValueError(
                f"{path}: need plain tensors, found {what}, which can run any code. Refused; nothing was run."
            ) from None
        raise ValueError(
            f"{path}: need weights written by torch.save, found a damaged or other file"
        ) from error
    if odd := _odd(state):
        raise ValueError(f"{path}: need a flat dictionary of tensors, found {odd}")
    return dict(state)


def _begins_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(PICKLES)


def _odd(state: Any) -> str | None:  # noqa: ANN401 - whatever the file holds
    if not isinstance(state, dict):
        return type(state).__name__
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            return f"{type(value).__name__} at {key!r}"
    return None


def our_names(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reshape a released state; several prediction heads (MATPAC++) become one layer.

    Raises:
        ValueError: A key is unknown; the error names it.
    """
    ours = {}
    for key, value in released.items():
        if key in POSITIONS or key.startswith(HYPOTHESES):
            continue
        prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), None)
        if prefix is None:
            raise ValueError(f"released weights: unknown key {key} {tuple(value.shape)}")
        ours[PREFIXES[prefix] + key.removeprefix(prefix)] = value
    if "patches.projection.weight" in ours:
        ours["patches.projection.weight"] = ours["patches.projection.weight"].flatten(1)
    if "center.value" in ours:
        ours["center.value"] = ours["center.value"].flatten()
    num_hypotheses = sum(key.startswith(HYPOTHESES) for key in released) // 2
    if num_hypotheses:
        for name in ("weight", "bias"):
            names = [f"{HYPOTHESES}{i}.{name}" for i in range(num_hypotheses)]
            if absent := [head for head in names if head not in released]:
                raise ValueError(f"released weights: need {absent[0]}, found none")
            heads = [released[head] for head in names]
            ours[f"predictor.hypotheses.{name}"] = torch.cat(heads)
    return ours
