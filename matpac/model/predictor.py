"""visible latents -> predicted latents of the masked patches."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matpac.model.encoder import Blocks, Norm
from matpac.model.masking import Split, take
from matpac.model.patches import sine_cosine


class Predictor(nn.Module):
    """nu in the paper; `num_hypotheses` above 1 is MATPAC++."""

    positions: Tensor
    residual = torch.float32
    """As in `Patches`."""

    def __init__(
        self,
        latent_dim: int,
        dim: int,
        depth: int,
        num_attention_heads: int,
        num_hypotheses: int,
        grid: tuple[int, int],
    ) -> None:
        """`grid`: numbers of patches in frequency and in time."""
        super().__init__()
        self.num_hypotheses = num_hypotheses
        self.embedding = nn.Linear(latent_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = Blocks(dim, depth, num_attention_heads)
        self.norm = Norm(dim)
        self.hypotheses = nn.Linear(dim, num_hypotheses * latent_dim)
        self.register_buffer("positions", sine_cosine(*grid, dim), persistent=False)

    def forward(
        self, visible_latents: Float[Tensor, "batch visible_and_cls latent_dim"], split: Split
    ) -> Float[Tensor, "batch masked hypothesis latent_dim"]:
        cls, visible = self.embedding(visible_latents).split([1, split.visible.shape[1]], dim=1)
        batch, num_patches = len(cls), len(self.positions)
        everywhere = self.mask_token.to(visible.dtype).expand(batch, num_patches, -1)
        index = split.visible[:, :, None].expand_as(visible)
        patches = everywhere.scatter(1, index, visible) + self.positions.to(self.residual)

        tokens = self.blocks(torch.cat([cls, patches], dim=1))
        masked = take(self.norm(tokens)[:, 1:], split.masked)
        hypotheses: Tensor = self.hypotheses(masked).unflatten(2, (self.num_hypotheses, -1))
        return hypotheses
