"""student -> how much its embeddings say about labelled clips, while it trains."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from matpac.model.pretext import Pretext
from matpac.model.sizes import PATCH
from matpac.params import Online
from matpac.shards.folder import ShardFolder, read_task
from matpac.training.health import rankme
from matpac.training.history import Row
from matpac.weights.checkpoint import Standard

VOTE_TEMPERATURE = 0.07
"""A neighbour's vote counts e to the cosine over this (Wu et al., 2018, https://arxiv.org/abs/1805.01978)."""
CLIPS_AT_ONCE = 64
"""In one forward pass. No parameter: it bounds the memory and takes no part in the result."""


class Labelled(NamedTuple):
    log_mel: Float16[np.ndarray, "clip frame mel"]
    """The first crop of each clip, as stored."""
    num_frames: Int64[np.ndarray, " clip"]
    """Shorter clips are followed by the mean of all log-mels, and the embedding ends where they do."""
    label: Int64[np.ndarray, " clip"]


class OnlineProbe:
    """Labelled clips that are shown to the student from time to time; it learns nothing from them.

    Clips of the train split vote on those of the validation split, and the test split is never opened. Where
    a dataset has folds this is its first rotation: fold 1 tests and is left out, fold 2 is voted on.
    """

    def __init__(self, shards: Path, params: Online, standard: Standard, crop_frames: int) -> None:
        """Raises ValueError where clips do not have one label each, or too few have a split."""
        self.params, self.standard = params, standard
        folder = ShardFolder(shards)
        task = read_task(shards)
        if task is None or task.multi_label:
            raise ValueError(
                f"online.dataset: need a dataset whose clips have one label each, "
                f"got {shards.name}, where they have {'none' if task is None else 'several'}"
            )
        splits, labels = splits_of(folder, task.num_folds), folder.index.column("labels")
        number = {name: index for index, name in enumerate(task.classes)}
        parts = []
        for split, needed in (("train", params.k), ("validation", 1)):
            clips = np.flatnonzero(splits == split)
            if len(clips) < needed or params.num_clips < needed:
                raise ValueError(
                    f"online.dataset: need at least {needed} clips of the {split} split (online.k, "
                    f"online.num_clips), found {len(clips)} in {shards.name}"
                )
            # Always the same ones, of all classes alike.
            chosen = np.sort(np.random.default_rng(0).permutation(clips)[: params.num_clips])
            label = np.array([number[labels[clip][0]] for clip in chosen.tolist()])
            parts.append(read_labelled(folder, chosen, label, standard, crop_frames))
        self.voting, self.asked = parts

    def measure(self, pretext: Pretext, update: int) -> Row:
        """One row of online.csv. Draws nothing at random and leaves the networks as they are.

        knn_accuracy: share of clips of the validation split whose label the k nearest clips of the train
        split name. rankme: of the voting clips' embeddings [clip, dim]. variance_*: of single dimensions of
        these embeddings, the least, the median and the largest one. seconds: what looking has cost.
        """
        started_s = time.monotonic()
        voting, asked = self.embeddings(pretext, self.voting), self.embeddings(pretext, self.asked)
        named = nearest_label(asked, voting, torch.from_numpy(self.voting.label), self.params.k)
        variances = voting.var(dim=0)
        return {
            "step": update,
            "knn_accuracy": (named.numpy() == self.asked.label).mean().item(),
            "rankme": rankme(torch.linalg.svdvals(voting)).item(),
            "variance_least": variances.min().item(),
            "variance_median": variances.median().item(),
            "variance_most": variances.max().item(),
            "seconds": time.monotonic() - started_s,
        }

    # Compiled blocks would be compiled again for these shapes.
    @torch.compiler.set_stance("force_eager")
    @torch.no_grad()
    def embeddings(self, pretext: Pretext, clips: Labelled) -> Float[Tensor, "clip dim"]:
        """Mean over time of what the student's encoder makes of whole crops, frequencies side by side.

        In float32 on the networks' device, returned on the CPU.
        """
        patches, num_freq = pretext.patches, pretext.patches.num_freq
        device = patches.cls_token.device
        parts = []
        for first in range(0, len(clips.log_mel), CLIPS_AT_ONCE):
            few = slice(first, first + CLIPS_AT_ONCE)
            log_mel = torch.from_numpy(clips.log_mel[few]).to(device).float()
            tokens = patches((log_mel.transpose(1, 2) - self.standard.mean) / self.standard.std)
            latents = pretext.student_encoder(patches.with_cls(tokens))[:, 1:]
            by_time = latents.unflatten(1, (num_freq, -1)).transpose(1, 2).flatten(2)
            length = torch.from_numpy(clips.num_frames[few] / PATCH).to(device).ceil()
            heard = torch.arange(by_time.shape[1], device=device) < length[:, None]
            parts.append((by_time * heard[:, :, None]).sum(1) / length[:, None])
        return torch.cat(parts).float().cpu()


def splits_of(folder: ShardFolder, num_folds: int | None) -> np.ndarray:
    """`train`, `validation` or another word for every clip [clip]."""
    if num_folds is None:
        return np.array([split or "" for split in folder.index.column("split")])
    words = {0: "", 1: "test", 2: "validation"}
    return np.array([words.get(fold or 0, "train") for fold in folder.index.column("fold")])


def read_labelled(
    folder: ShardFolder,
    chosen: Int64[np.ndarray, " clip"],
    label: Int64[np.ndarray, " clip"],
    standard: Standard,
    crop_frames: int,
) -> Labelled:
    num_frames = np.minimum(folder.index.num_frames[chosen], crop_frames)
    log_mel = np.full((len(chosen), crop_frames, folder.logmel.num_mels), standard.mean, dtype=np.float16)
    for row, clip, length in zip(log_mel, chosen.tolist(), num_frames.tolist(), strict=True):
        folder.frames.read_into(row[:length], clip, 0)
    return Labelled(log_mel, num_frames, label)


def nearest_label(
    asked: Float[Tensor, "asked dim"],
    voting: Float[Tensor, "voting dim"],
    label: Int64[Tensor, " voting"],
    k: int,
) -> Int64[Tensor, " asked"]:
    """Vote of the k clips of largest cosine, the nearer the more weight.

    Cosines are between differences from the mean embedding: all clips have much in common.
    """
    shared = voting.mean(0)
    unit_asked, unit_voting = (F.normalize(clips - shared, dim=1) for clips in (asked, voting))
    cosines, nearest = (unit_asked @ unit_voting.T).topk(k, dim=1)
    votes = torch.zeros(len(asked), int(label.max()) + 1)
    return votes.scatter_add_(1, label[nearest], ((cosines - 1) / VOTE_TEMPERATURE).exp()).argmax(1)
