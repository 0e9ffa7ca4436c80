import torch
import torch.nn.functional as F
from torch import nn

from matpac.model.head import Head


def test_the_last_layer_is_pytorchs_weight_normalization(generator):
    head = Head(dim=4, hidden=8, bottleneck=6, num_clusters=5)
    with torch.no_grad():
        head.direction.normal_(generator=generator)
        head.scale.uniform_(0.5, 2.0, generator=generator)
    peer = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5, bias=False), dim=0)
    peer.parametrizations.weight.original0.data = head.scale.data
    peer.parametrizations.weight.original1.data = head.direction.data
    latents = torch.randn(2, 3, 4, generator=generator)
    torch.testing.assert_close(head(latents), peer(F.normalize(head.mlp(latents), dim=-1)))
