"""embeddings over time -> logits: what probes learn and classifiers apply.

Both heads scale their inputs by the mean and deviation of the training clips' means over time. The
arguments of each are its tensors, by the names that they have in files.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class LinearHead(nn.Module):
    """One linear layer on the mean over a clip's steps."""

    mean: Tensor
    factor: Tensor

    def __init__(
        self,
        weight: Float[Tensor, "class dim"],
        bias: Float[Tensor, " class"],
        mean: Float[Tensor, " dim"],
        factor: Float[Tensor, " dim"],
    ) -> None:
        """`weight`, `bias`: of the linear layer on `(average - mean) * factor`."""
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.register_buffer("mean", mean)
        self.register_buffer("factor", factor)

    def forward(
        self, steps: Float[Tensor, "clip step dim"], present: Bool[Tensor, "clip step"]
    ) -> Float[Tensor, "clip class"]:
        """Logits of the clips; steps that are not `present` have no influence."""
        heard = present[:, :, None].to(steps.dtype)
        averages = (steps * heard).sum(1) / heard.sum(1)
        return F.linear((averages - self.mean) * self.factor, self.weight, self.bias)


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
HEADS: dict[str, type[LinearHead] | type[AttentiveHead]] = {"linear": LinearHead, "attentive": AttentiveHead}


def logits_of_steps(head: Head, steps: Float[Tensor, "step dim"]) -> Float[Tensor, "step class"]:
    """Logits of each step by itself."""
    logits: Tensor = head(steps[:, None], torch.ones(len(steps), 1, dtype=torch.bool, device=steps.device))
    return logits


def logits_of_clip(head: Head, steps: Float[Tensor, "step dim"]) -> Float[Tensor, " class"]:
    """Logits of one clip."""
    logits: Tensor = head(steps[None], torch.ones(1, len(steps), dtype=torch.bool, device=steps.device))
    return logits[0]
