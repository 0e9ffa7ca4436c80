"""features, labels, folds -> votes of the nearest training clips, a second reading."""

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
"""Memory of the similarities of the test clips that are looked up together."""


def neighbor_votes(
    features: Float[Tensor, "clip dim"],
    labels: Float[Tensor, "clip class"],
    observed: Float[Tensor, "clip class"],
    folds: Sequence[Fold],
    num_neighbors: int,
    *,
    standardize: bool,
) -> list[Float[np.ndarray, "test class"]]:
    """For each fold, the share of a test clip's nearest training clips (cosine) with a class.

    The class with the highest share is the answer of k-NN; ties go to the first class. If some
    entries were not observed, each class has its own neighbors: the nearest training clips observed
    for it (all of them if they are fewer than `num_neighbors`; the share is 0 if there is none).
    Nothing is tuned: validation clips are not used. `standardize`: by mean and deviation of the
    fold's training clips. Raises ValueError if a fold trains on fewer clips than `num_neighbors`.
    """
    num_train = min(len(fold.train) for fold in folds)
    if num_neighbors > num_train:
        raise ValueError(f"probe.knn: need at most the {num_train} training clips, got {num_neighbors}")
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
            _shares(queries @ memory.T, labels[fold.train], observed[fold.train], num_neighbors)
            for queries in directions(fold.test, number).split(num_queries)
        ]
        votes.append(torch.cat(blocks).cpu().numpy())
    return votes


def _shares(
    similarity: Float[Tensor, "query train"],
    labels: Float[Tensor, "train class"],
    observed: Float[Tensor, "train class"],
    num_neighbors: int,
) -> Float[Tensor, "query class"]:
    if observed.all():
        return nearest_votes(similarity, labels, num_neighbors)
    shares = similarity.new_zeros(len(similarity), labels.shape[1])
    for index in range(labels.shape[1]):
        seen = observed[:, index].nonzero()[:, 0]
        if len(seen):
            k = min(num_neighbors, len(seen))
            shares[:, [index]] = nearest_votes(similarity[:, seen], labels[seen][:, [index]], k)
    return shares
