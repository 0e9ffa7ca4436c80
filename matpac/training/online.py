"""student -> k-NN accuracy and rank of its embeddings of labelled clips, while it trains."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from matpac.model.patches import steps_of
from matpac.model.pretext import Pretext
from matpac.model.sizes import PATCH
from matpac.neighbors import nearest_votes
from matpac.params import Online
from matpac.shards.folder import ShardFolder, read_task
from matpac.training.health import rankme
from matpac.training.history import Row
from matpac.weights.checkpoint import Standard

VOTE_TEMPERATURE = 0.07
"""A vote weighs e to the cosine over this (Wu et al., https://arxiv.org/abs/1805.01978)."""
BATCH_SIZE = 64
"""Clips in one forward pass. Bounds the memory; results do not depend on it."""


class Labelled(NamedTuple):
    log_mel: Float16[np.ndarray, "clip frame mel"]
    """The first crop of each clip, as stored."""
    num_frames: Int64[np.ndarray, " clip"]
    """Frames before the padding (the mean log-mel), which no embedding covers."""
    labels: Int64[np.ndarray, " clip"]


class OnlineProbe:
    """Labelled clips that the student embeds now and then, without learning from them.

    Clips of the train split vote on those of the validation split; the test split is never read. If
    a dataset has folds, fold 1 (test) is left out, fold 2 is the validation split, the rest vote.
    """

    def __init__(self, shards: Path, params: Online, standard: Standard, crop_frames: int) -> None:
        """Raises ValueError if clips do not have one label each, or a split has too few clips."""
        self.params, self.standard = params, standard
        folder = ShardFolder(shards)
        task = read_task(shards)
        if task is None or task.multi_label:
            raise ValueError(
                f"online.dataset: need a dataset whose clips have one label each, "
                f"found {'none' if task is None else 'several'} in {shards.name}"
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
            # The same clips every time, drawn from all classes alike.
            chosen = np.sort(np.random.default_rng(0).permutation(clips)[: params.num_clips])
            chosen_labels = np.array([number[labels[clip][0]] for clip in chosen.tolist()])
            parts.append(read_labelled(folder, chosen, chosen_labels, standard, crop_frames))
        self.train, self.validation = parts

    def evaluate(self, pretext: Pretext, update: int) -> Row:
        """One row of online.csv. Draws no random numbers and leaves the networks unchanged.

        knn_accuracy: share of validation clips whose label wins the vote of the k nearest train
        clips. rankme: RankMe of the train clips' embeddings [clip, dim]. variance_*: smallest,
        median and largest variance of a dimension of these embeddings. seconds: time this took.
        """
        started_s = time.monotonic()
        # Eager, because compiled blocks would be compiled again for these shapes.
        with torch.compiler.set_stance("force_eager"):
            train, validation = (self.embeddings(pretext, part) for part in (self.train, self.validation))
        predicted = nearest_label(validation, train, torch.from_numpy(self.train.labels), self.params.k)
        variances = train.var(dim=0)
        return {
            "step": update,
            "knn_accuracy": (predicted.numpy() == self.validation.labels).mean().item(),
            "rankme": rankme(torch.linalg.svdvals(train)).item(),
            "variance_least": variances.min().item(),
            "variance_median": variances.median().item(),
            "variance_most": variances.max().item(),
            "seconds": time.monotonic() - started_s,
        }

    @torch.no_grad()
    def embeddings(self, pretext: Pretext, clips: Labelled) -> Float[Tensor, "clip dim"]:
        """Mean over time of the student's latents of whole crops, frequencies side by side.

        Computed in float32 on the networks' device, returned on the CPU.
        """
        patches, device = pretext.patches, pretext.patches.cls_token.device
        parts = []
        for first in range(0, len(clips.log_mel), BATCH_SIZE):
            few = slice(first, first + BATCH_SIZE)
            log_mel = torch.from_numpy(clips.log_mel[few]).to(device).float()
            tokens = patches((log_mel.transpose(1, 2) - self.standard.mean) / self.standard.std)
            latents = pretext.student_encoder(patches.with_cls(tokens))[:, 1:]
            by_time = steps_of(latents, patches.num_freq)
            length = torch.from_numpy(clips.num_frames[few] / PATCH).to(device).ceil()
            heard = torch.arange(by_time.shape[1], device=device) < length[:, None]
            parts.append((by_time * heard[:, :, None]).sum(1) / length[:, None])
        return torch.cat(parts).float().cpu()


def splits_of(folder: ShardFolder, num_folds: int | None) -> np.ndarray:
    """`train`, `validation` or another word for every clip, as an array [clip]."""
    if num_folds is None:
        return np.array([split or "" for split in folder.index.column("split")])
    words = {0: "", 1: "test", 2: "validation"}
    return np.array([words.get(fold or 0, "train") for fold in folder.index.column("fold")])


def read_labelled(
    folder: ShardFolder,
    chosen: Int64[np.ndarray, " clip"],
    labels: Int64[np.ndarray, " clip"],
    standard: Standard,
    crop_frames: int,
) -> Labelled:
    num_frames = np.minimum(folder.index.num_frames[chosen], crop_frames)
    log_mel = np.full((len(chosen), crop_frames, folder.logmel.num_mels), standard.mean, dtype=np.float16)
    for row, clip, length in zip(log_mel, chosen.tolist(), num_frames.tolist(), strict=True):
        folder.frames.read_into(row[:length], clip, 0)
    return Labelled(log_mel, num_frames, labels)


def nearest_label(
    queries: Float[Tensor, "query dim"],
    memory: Float[Tensor, "memory dim"],
    labels: Int64[Tensor, " memory"],
    k: int,
) -> Int64[Tensor, " query"]:
    """Weighted vote of the k nearest clips of `memory` by cosine of the differences from its mean.

    Cosines of the embeddings themselves are all near 1, because embeddings have much in common.
    """
    shared = memory.mean(0)
    query_units, memory_units = (F.normalize(clips - shared, dim=1) for clips in (queries, memory))
    one_hot = F.one_hot(labels).to(memory.dtype)
    return nearest_votes(query_units @ memory_units.T, one_hot, k, VOTE_TEMPERATURE).argmax(1)
