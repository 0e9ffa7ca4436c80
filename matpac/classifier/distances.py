"""embeddings -> distances to the nearest training clips: how unlike them a recording is.

Distances are Euclidean between mean embeddings, in units of the training clips' deviation in every
dimension, and divided by the root of the number of dimensions.
"""

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from matpac.classifier.heads import Head

NUM_NEAREST = 5
"""Training clips whose mean distance counts."""
MOST_REFERENCES = 2_000
"""Training clips that a classifier keeps, drawn at random if there are more."""
USUAL = 0.99
"""Quantile of the distances of held-out clips that counts as usual."""


def references_of(
    means: Float[Tensor, "clip dim"], head: Head, random: np.random.Generator
) -> Float16[Tensor, "reference dim"]:
    """Standardized mean embeddings of training clips, at most `MOST_REFERENCES` of them."""
    chosen: Int64[np.ndarray, " reference"] = np.arange(len(means))
    if len(means) > MOST_REFERENCES:
        chosen = np.sort(random.choice(len(means), MOST_REFERENCES, replace=False))
    return standardized(means[torch.from_numpy(chosen).to(means.device)], head).half()


def distances(
    means: Float[Tensor, "clip dim"], head: Head, references: Float[Tensor, "reference dim"]
) -> Float[Tensor, " clip"]:
    """Mean distance of each clip to the nearest references."""
    apart = torch.cdist(standardized(means, head).float(), references.float())
    nearest = apart.topk(min(NUM_NEAREST, len(references)), largest=False).values
    mean: Tensor = nearest.mean(1) / means.shape[1] ** 0.5
    return mean


def usual_distance(of_held_out: Float[np.ndarray, " clip"]) -> float:
    """The distance that 99 % of held-out clips stay below; never 0, which nothing can be compared with."""
    return max(float(np.quantile(of_held_out, USUAL)), 1e-6)


@torch.no_grad()
def standardized(means: Float[Tensor, "clip dim"], head: Head) -> Float[Tensor, "clip dim"]:
    """Mean embeddings in units of the training clips' deviation."""
    scaled: Tensor = (means - head.mean) * head.factor
    return scaled
