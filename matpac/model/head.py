"""latents -> logits over the K classes of the pretext classification."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Module):
    """h in the paper: three-layer MLP, unit vectors, weight-normalized linear layer (DINO)."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, num_clusters: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.scale = nn.Parameter(torch.ones(num_clusters, 1))
        """g of the weight normalization; trained, unlike in DINO."""
        self.direction = nn.Parameter(torch.zeros(num_clusters, bottleneck))
        """v of the weight normalization."""

    def forward(self, latents: Float[Tensor, "batch masked dim"]) -> Float[Tensor, "batch masked cluster"]:
        prototypes = self.direction * (self.scale / self.direction.norm(dim=1, keepdim=True))
        directions = F.normalize(self.mlp(latents), dim=-1)
        # Float32: cosines in bfloat16 are 0.004 apart, too coarse for a temperature of 0.04.
        with torch.autocast(latents.device.type, enabled=False):
            return F.linear(directions.float(), prototypes)
