"""tokens -> latents: the transformer of student and teacher."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Norm(nn.LayerNorm):
    def __init__(self, dim: int, **factory: Any) -> None:  # noqa: ANN401 - timm passes device, dtype
        super().__init__(dim, eps=1e-6, **factory)


class Blocks(nn.ModuleList):
    """Pre-norm blocks: exact GELU, MLP ratio 4, biases, no dropout (ViT, as in M2D)."""

    recompute = False
    """Whether to keep only the inputs of blocks, and recompute the rest in the backward pass."""

    def __init__(self, dim: int, depth: int, num_heads: int) -> None:
        super().__init__(
            Block(dim, num_heads, mlp_ratio=4, qkv_bias=True, norm_layer=Norm) for _ in range(depth)
        )
        self.dim, self.num_heads = dim, num_heads

    def outputs(
        self, tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch 1 1 token"] | None = None
    ) -> Iterator[Float[Tensor, "batch token dim"]]:
        """Output of each block, in order; only tokens in `mask` are attended to."""
        for block in self:
            if self.recompute and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, mask, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens, mask)
            yield tokens

    def forward(
        self, tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch 1 1 token"] | None = None
    ) -> Float[Tensor, "batch token dim"]:
        for output in self.outputs(tokens, mask):
            tokens = output
        return tokens


class Encoder(nn.Module):
    def __init__(self, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.blocks = Blocks(dim, depth, num_heads)
        self.norm = Norm(dim)

    def forward(
        self, tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch 1 1 token"] | None = None
    ) -> Float[Tensor, "batch token dim"]:
        """`mask`: tokens that may be attended to; None for all."""
        latents: Tensor = self.norm(self.blocks(tokens, mask))
        return latents

    def layers(
        self, tokens: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch 1 1 token"] | None = None
    ) -> list[Tensor]:
        """Outputs of all blocks; the last is normalized and equals `forward`."""
        outputs = list(self.blocks.outputs(tokens, mask))
        return [*outputs[:-1], self.norm(outputs[-1])]
