"""Features, labels, folds -> votes of the nearest training clips: a second reading, which learns nothing."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from matpac.neighbors import nearest_votes
from matpac.probing.folds import Fold
from matpac.probing.problems import Scaler

BLOCK_BYTES = 256 * 2**20
"""What the similarities of the test clips that are looked up together may take."""


def neighbour_votes(
    features: Float[Tensor, "clip dim"],
    labels: Float[Tensor, "clip class"],
    observed: Float[Tensor, "clip class"],
    folds: Sequence[Fold],
    num_neighbours: int,
    *,
    standardize: bool,
) -> list[Float[np.ndarray, "test class"]]:
    """For each fold: the share of a test clip's nearest training clips, by cosine, that have a class.

    The highest share is the class that k-NN answers with; the first of them where several are equal. Where
    not every entry was observed, each class has neighbours of its own: the nearest of the training clips
    that were observed for it (all of them where they are fewer than `num_neighbours`; 0 where none was).
    Nothing is chosen: validation clips are not used. `standardize`: by the mean and deviation of the
    fold's training clips. Raises ValueError where a fold trains on fewer clips than `num_neighbours`.
    """
    fewest = min(len(fold.train) for fold in folds)
    if num_neighbours > fewest:
        raise ValueError(f"probe.knn: need at most the {fewest} training clips, got {num_neighbours}")
    scaler = Scaler.of(features, folds) if standardize else None

    def directions(clips: Int64[np.ndarray, " chosen"], fold: int) -> Float[Tensor, "chosen dim"]:
        chosen = features[clips]
        if scaler is not None:
            scaler.scale_(chosen, fold)
        return F.normalize(chosen, dim=1)

    votes = []
    for number, fold in enumerate(folds):
        memory = directions(fold.train, number)
        num_queries = max(1, BLOCK_BYTES // (len(memory) * memory.element_size()))
        blocks = [
            _shares(queries @ memory.T, labels[fold.train], observed[fold.train], num_neighbours)
            for queries in directions(fold.test, number).split(num_queries)
        ]
        votes.append(torch.cat(blocks).cpu().numpy())
    return votes


def _shares(
    similarity: Float[Tensor, "query train"],
    labels: Float[Tensor, "train class"],
    observed: Float[Tensor, "train class"],
    num_neighbours: int,
) -> Float[Tensor, "query class"]:
    if observed.all():
        return nearest_votes(similarity, labels, num_neighbours)
    shares = similarity.new_zeros(len(similarity), labels.shape[1])
    for index in range(labels.shape[1]):
        seen = observed[:, index].nonzero()[:, 0]
        if len(seen):
            k = min(num_neighbours, len(seen))
            shares[:, [index]] = nearest_votes(similarity[:, seen], labels[seen][:, [index]], k)
    return shares
