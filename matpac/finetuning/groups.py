"""encoder and head -> optimizer whose learning rates fall from the head to the patches."""

from collections.abc import Iterator

from torch import nn
from torch.optim import AdamW, Optimizer

from matpac.encoder.encoder import AudioEncoder
from matpac.params import Finetune


def new_optimizer(encoder: AudioEncoder, head: nn.Module, params: Finetune) -> Optimizer:
    """AdamW with two groups a layer: matrices, and biases and norms, which have no weight decay.

    The key `scale` of a group is its share of the learning rate, as BEiT, MAE and EAT have it: 1 for
    head and last norm, and `layer_decay` times as much for each block before the one after it.
    """
    layers = list(layers_of(encoder, head))
    groups = []
    for number, layer in enumerate(layers):
        scale = params.layer_decay ** (len(layers) - 1 - number)
        for decay, weights in (
            (params.weight_decay, [weight for weight in layer if weight.ndim > 1]),
            (0.0, [weight for weight in layer if weight.ndim <= 1]),
        ):
            if weights:
                groups.append({"params": weights, "weight_decay": decay, "scale": scale, "lr": 0.0})
    return AdamW(groups, betas=params.adam_betas, fused=True)


def layers_of(encoder: AudioEncoder, head: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Weights of the patches, of each block, and of the last norm with the head."""
    yield list(encoder.patches.parameters())
    for block in encoder.encoder.blocks:
        yield list(block.parameters())
    yield [*encoder.encoder.norm.parameters(), *head.parameters()]


def set_learning_rate_(optimizer: Optimizer, learning_rate: float) -> None:
    """`learning_rate`: that of the head."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]
