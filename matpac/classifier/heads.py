"""embeddings over time -> logits: what probes learn and classifiers apply.

Both heads scale their inputs by the mean and deviation of the training clips' means over time. The
arguments of each are its tensors, by the names that they have in files.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from matpac.model.pooling import pooled
from matpac.params import Pooling


class LinearHead(nn.Module):
    """One linear layer on the mean over a clip's steps, or on their mean and deviation."""

    mean: Tensor
    factor: Tensor

    def __init__(
        self,
        weight: Float[Tensor, "class pooled"],
        bias: Float[Tensor, " class"],
        mean: Float[Tensor, " pooled"],
        factor: Float[Tensor, " pooled"],
        pooling: Pooling = "mean",
    ) -> None:
        """`weight`, `bias`: of the linear layer on `(pooled - mean) * factor`."""
        super().__init__()
        self.pooling: Pooling = pooling
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.register_buffer("mean", mean)
        self.register_buffer("factor", factor)

    def forward(
        self, steps: Float[Tensor, "clip step dim"], present: Bool[Tensor, "clip step"]
    ) -> Float[Tensor, "clip class"]:
        """Logits of the clips; steps that are not `present` have no influence."""
        return self.of_pooled(pooled(steps, present, self.pooling))

    def of_pooled(self, embeddings: Float[Tensor, "clip pooled"]) -> Float[Tensor, "clip class"]:
        """Logits of clips whose steps have been pooled."""
        return F.linear((embeddings - self.mean) * self.factor, self.weight, self.bias)


class AttentiveHead(nn.Module):
    """A linear layer on averages that attend to some steps; matpac/probing/attentive.py says how and why."""

    step_factor: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(
        self,
        queries: Float[Tensor, "head dim"],
        weight: Float[Tensor, "class dim"],
        bias: Float[Tensor, " class"],
        step_factor: Float[Tensor, " dim"],
        mean: Float[Tensor, " dim"],
        factor: Float[Tensor, " dim"],
    ) -> None:
        """`weight`, `bias`: of the linear layer on `(averages - mean) * factor`.
        `step_factor`: queries are compared with `steps * step_factor`."""
        super().__init__()
        self.queries = nn.Parameter(queries)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.register_buffer("step_factor", step_factor)
        self.register_buffer("mean", mean)
        self.register_buffer("factor", factor)

    def forward(
        self, steps: Float[Tensor, "clip step dim"], present: Bool[Tensor, "clip step"]
    ) -> Float[Tensor, "clip class"]:
        """Logits of the clips; steps that are not `present` have no influence.

        Queries are scaled instead of steps, because there are far fewer. The mean of the steps need
        not be subtracted: it adds the same to all scores of a clip, which the softmax cancels.
        """
        scores = steps @ (self.queries * self.step_factor / math.sqrt(steps.shape[2])).T
        attention = scores.masked_fill(~present[:, :, None], -math.inf).softmax(1)
        # Each head averages all dimensions, then keeps its own: faster than averaging only those.
        by_head = (attention.mT @ steps).unflatten(2, (len(self.queries), -1))
        averages = by_head.diagonal(dim1=1, dim2=2).mT.flatten(1)
        return F.linear((averages - self.mean) * self.factor, self.weight, self.bias)


Head = LinearHead | AttentiveHead
Kind = Literal["linear", "attentive"]


def new_head(kind: Kind, tensors: dict[str, Tensor], pooling: Pooling) -> Head:
    """A head with these tensors; only linear ones read pooled steps."""
    return LinearHead(**tensors, pooling=pooling) if kind == "linear" else AttentiveHead(**tensors)


HALF_WINDOW = 3
"""Steps before and after a step that its deviation is taken from: about a second in all."""


def logits_of_steps(head: Head, steps: Float[Tensor, "step dim"]) -> Float[Tensor, "step class"]:
    """Logits of each step of a clip by itself or, for a head that reads deviations, with its neighbors."""
    if isinstance(head, LinearHead) and head.pooling != "mean":
        return head.of_pooled(moments_around(steps, HALF_WINDOW))
    logits: Tensor = head(steps[:, None], torch.ones(len(steps), 1, dtype=torch.bool, device=steps.device))
    return logits


def moments_around(steps: Float[Tensor, "step dim"], half: int) -> Float[Tensor, "step pooled"]:
    """Mean and deviation over each step and the `half` steps before and after it, as far as there are any."""
    padded = F.pad(steps, (0, 0, half, half))
    present = F.pad(torch.ones_like(steps[:, :1]), (0, 0, half, half))
    # One neighbor after another, because all at once would take as many times the memory.
    slices = [slice(first, first + len(steps)) for first in range(2 * half + 1)]
    count = torch.zeros_like(steps[:, :1])
    total, squares = torch.zeros_like(steps), torch.zeros_like(steps)
    for one in slices:
        count += present[one]
        total += padded[one]
    mean = total / count
    for one in slices:
        squares += present[one] * (padded[one] - mean).square()
    return torch.cat([mean, (squares / count).sqrt()], dim=1)


def logits_of_clip(head: AttentiveHead, steps: Float[Tensor, "step dim"]) -> Float[Tensor, " class"]:
    """Logits of one clip."""
    logits: Tensor = head(steps[None], torch.ones(1, len(steps), dtype=torch.bool, device=steps.device))
    return logits[0]
