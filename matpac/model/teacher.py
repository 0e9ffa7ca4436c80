"""student -> teacher: moving averages."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def follow_(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """teacher <- decay * teacher + (1 - decay) * student.

    Both sides stay in float32: in bfloat16 a step of 1e-5 rounds away.
    """
    step_ = get_ema_multi_avg_fn(decay)
    step_(list(teacher.parameters()), list(student.parameters()), None)


class Center(nn.Module):
    """C in Eq. (3): running mean of the outputs of the teacher's head."""

    value: Tensor

    def __init__(self, num_clusters: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(num_clusters))

    @torch.no_grad()
    def update_(self, batch_mean: Float[Tensor, " cluster"]) -> None:
        self.value.lerp_(batch_mean, 1 - self.momentum)
