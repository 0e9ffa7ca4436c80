"""similarities, labels -> votes of the nearest neighbors."""

import torch
from jaxtyping import Float
from torch import Tensor


def nearest_votes(
    similarity: Float[Tensor, "query memory"],
    labels: Float[Tensor, "memory class"],
    k: int,
    temperature: float | None = None,
) -> Float[Tensor, "query class"]:
    """For each query, the share of its `k` most similar entries that have a class.

    With a `temperature`, shares are weighted by exp(similarity / temperature)
    (Wu et al., 2018, https://arxiv.org/abs/1805.01978); otherwise all `k` votes count alike.
    """
    similarities, nearest = similarity.topk(k)
    if temperature is None:
        return labels[nearest].mean(1)
    weights = (similarities / temperature).softmax(1)
    return torch.einsum("qk,qkc->qc", weights, labels[nearest])
