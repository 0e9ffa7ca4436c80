"""tokens -> latents: the transformer of student and teacher."""

from typing import Any

from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class Norm(nn.LayerNorm):
    def __init__(self, dim: int, **where: Any) -> None:  # noqa: ANN401 - timm passes device, dtype
        super().__init__(dim, eps=1e-6, **where)


def blocks(dim: int, depth: int, num_heads: int) -> nn.ModuleList:
    """Pre-norm blocks with exact GELU, MLP ratio 4 and biases, without dropout (ViT, as in M2D)."""
    return nn.ModuleList(
        Block(dim, num_heads, mlp_ratio=4, qkv_bias=True, norm_layer=Norm) for _ in range(depth)
    )


class Encoder(nn.Module):
    def __init__(self, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.blocks = blocks(dim, depth, num_heads)
        self.norm = Norm(dim)

    def forward(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def layers(self, tokens: Float[Tensor, "batch token dim"]) -> list[Tensor]:
        """Output of every block; the last one is normalized, and equals `forward`."""
        outputs = []
        for block in self.blocks:
            tokens = block(tokens)
            outputs.append(tokens)
        return [*outputs[:-1], self.norm(tokens)]
