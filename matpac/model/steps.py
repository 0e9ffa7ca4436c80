"""latents of patches -> steps over time."""

from jaxtyping import Float
from torch import Tensor


def steps_of(latents: Float[Tensor, "*batch patch dim"], num_freq: int) -> Float[Tensor, "*batch step _"]:
    """Put the latents of all frequencies at one time side by side."""
    by_freq = latents.unflatten(-2, (num_freq, -1))
    steps: Tensor = by_freq.transpose(-3, -2).flatten(-2)
    return steps
