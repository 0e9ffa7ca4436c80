"""shards -> batches of crops with their labels.

Order and crops follow from the seeds and the number of the epoch alone, so a fit can resume anywhere.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, Float64, Int64
from torch import Tensor

from matpac.devices import to_device
from matpac.probing.labelled import Labelled
from matpac.shards.crops import SILENCE
from matpac.shards.folder import ShardFolder
from matpac.threads import ahead

BATCHES_AHEAD = 4


class Batch(NamedTuple):
    """Input of an update, on the device."""

    log_mel: Float[Tensor, "batch mel frame"]
    num_frames: Int64[Tensor, " batch"]
    labels: Float[Tensor, "batch class"]
    observed: Float[Tensor, "batch class"]


class Batches:
    """Batches of one fit, by the number of the update."""

    def __init__(
        self,
        labelled: Labelled,
        clips: Int64[np.ndarray, " train"],
        batch_size: int,
        crop_frames: int | None,
        seeds: Sequence[int],
        probabilities: Float64[np.ndarray, " train"] | None = None,
    ) -> None:
        """`clips`: positions of the training clips; `probabilities`: theirs, if an epoch draws them."""
        self.labelled, self.clips, self.batch_size = labelled, clips, batch_size
        self.crop_frames, self.seeds, self.probabilities = crop_frames, seeds, probabilities
        self._order = (-1, clips)

    @property
    def per_epoch(self) -> int:
        return math.ceil(len(self.clips) / self.batch_size)

    def clips_of(self, update: int) -> Int64[np.ndarray, " batch"]:
        """Positions of the clips of an update."""
        epoch, number = divmod(update, self.per_epoch)
        return self._order_of(epoch)[number * self.batch_size : (number + 1) * self.batch_size]

    def ids(self, update: int) -> list[str]:
        return [self.labelled.clips.ids[clip] for clip in self.clips_of(update)]

    def __call__(self, updates: range, device: torch.device) -> Iterator[Batch]:
        """Batches, read ahead by a thread."""
        labels, observed = self.labelled.clips.labels, self.labelled.clips.observed
        read = ahead((partial(self._read, update) for update in updates), BATCHES_AHEAD, 1)
        for update, (log_mel, num_frames) in zip(updates, read, strict=True):
            clips = self.clips_of(update)
            yield Batch(
                to_device(log_mel, device).float().transpose(1, 2),
                to_device(num_frames, device),
                to_device(torch.from_numpy(labels[clips]).float(), device),
                to_device(torch.from_numpy(observed[clips]).float(), device),
            )

    def _order_of(self, epoch: int) -> Int64[np.ndarray, " train"]:
        known, order = self._order
        if known != epoch:
            random = np.random.default_rng([*self.seeds, 0, epoch])
            if self.probabilities is None:
                order = random.permutation(self.clips)
            else:
                order = random.choice(self.clips, len(self.clips), p=self.probabilities)
            self._order = epoch, order
        return order

    def _read(self, update: int) -> tuple[Tensor, Tensor]:
        clips = self.labelled.chosen[self.clips_of(update)]
        random = np.random.default_rng([*self.seeds, 1, update])
        return read_crops(self.labelled.folder, clips, self.crop_frames, random)


def read_crops(
    folder: ShardFolder,
    clips: Int64[np.ndarray, " batch"],
    crop_frames: int | None,
    random: np.random.Generator,
) -> tuple[Float16[Tensor, "batch frame mel"], Int64[Tensor, " batch"]]:
    """Random crops of clips, or whole clips, and their lengths; digital silence fills up shorter ones."""
    whole = folder.index.num_frames[clips]
    lengths = whole if crop_frames is None else np.minimum(whole, crop_frames)
    starts = random.integers(0, whole - lengths, endpoint=True)
    log_mel = np.full((len(clips), lengths.max(), folder.logmel.num_mels), SILENCE)
    for row, clip, start, length in zip(log_mel, clips, starts, lengths, strict=True):
        folder.frames.read_into(row[:length], int(clip), int(start))
    return torch.from_numpy(log_mel), torch.from_numpy(lengths)
