"""views -> signs of collapse.

A collapsed run has a low loss and useless latents: they no longer differ from patch to patch, or
the teacher puts every patch into the same class. In a third form, student and teacher agree on
classes and on nothing else. All three show here long before a probe score does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from matpac.model.pretext import Views
from matpac.training.ranks import Ranks


@dataclass
class Health:
    """Sums over the micro-batches of one update."""

    num_patches: Float[Tensor, ""]
    target_sums: Tensor
    predicted_sums: Tensor
    target_products: Float[Tensor, "dim dim"]
    """Float64, because `values` takes the roots of its smallest eigenvalues. Only sums are float64."""
    probability_sum: Float[Tensor, " cluster"]
    used: Float[Tensor, " cluster"]
    """Above 0 for classes that are the teacher's first choice for some patch."""

    @classmethod
    def start(cls, center: Float[Tensor, " cluster"]) -> "Health":
        return cls(
            num_patches=center.new_zeros(()),
            target_sums=center.new_zeros(2, 1),
            predicted_sums=center.new_zeros(2, 1),
            target_products=center.new_zeros(1, 1, dtype=torch.float64),
            probability_sum=torch.zeros_like(center),
            used=torch.zeros_like(center),
        )

    @torch.no_grad()
    def watch_(self, views: Views, target_probs: Float[Tensor, "batch masked cluster"] | None) -> None:
        assert target_probs is not None, "watched updates classify"
        self.num_patches += target_probs.shape[0] * target_probs.shape[1]
        target = F.normalize(views.target_latents.flatten(0, 1), dim=-1)
        predicted = F.normalize(views.predicted_latents.flatten(0, 1), dim=-1)
        self.target_sums = self.target_sums + sums(target)
        self.predicted_sums = self.predicted_sums + sums(predicted)
        self.target_products = self.target_products + products(target)
        self.probability_sum = self.probability_sum + target_probs.sum(dim=(0, 1))
        self.used.index_fill_(0, target_probs.argmax(-1).flatten(), 1)

    def sum_over_(self, ranks: Ranks) -> None:
        for values in vars(self).values():
            ranks.sum_(values)

    def values(self) -> dict[str, float]:
        """Columns of metrics.csv for one update, over all masked patches of its batch.

        Computed on the CPU, where the report brings the sums.

        teacher_variance, student_variance: variances of the unit vectors, summed over dimensions;
        0 if all patches have the same latent, 1 if latents point in all directions.
        teacher_rankme: rank of the teacher's unit vectors, from 1 to the number of dimensions.
        teacher_perplexity: e to the entropy of the mean class distribution, from 1 (one class for
        everything) to K (all classes equal). teacher_used_classes: first choices of some patch.
        """
        mean_probs = self.probability_sum / self.num_patches
        entropy = -(mean_probs * (mean_probs + 1e-7).log()).sum()
        return {
            "teacher_variance": variance(self.target_sums, self.num_patches),
            "student_variance": variance(self.predicted_sums, self.num_patches),
            "teacher_rankme": rankme(torch.linalg.eigvalsh(self.target_products).clamp(min=0).sqrt()).item(),
            "teacher_perplexity": entropy.exp().item(),
            "teacher_used_classes": int((self.used > 0).sum().item()),
        }


def sums(unit: Float[Tensor, "patch dim"]) -> Float[Tensor, "moment dim"]:
    return torch.stack([unit.sum(0), unit.square().sum(0)])


def products(unit: Float[Tensor, "patch dim"]) -> Float64[Tensor, "dim dim"]:
    """The sum of each vector's outer product with itself: `unit.T @ unit`.

    The matrix product is in float32, full precision or not as PyTorch is set, and of differences
    from the mean: what all vectors share does not round what they do not share. If they differ in
    a few dimensions alone, the eigenvalues of all others are 1e-8 of the largest instead of 0.
    """
    mean = unit.mean(0)
    rest = unit - mean
    with full_float32():
        spread = rest.T @ rest
    shared = mean.double()
    return spread.double() + len(unit) * torch.outer(shared, shared)


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products without TensorFloat-32, whose 11 bits hide small eigenvalues."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def variance(sums: Float[Tensor, "moment dim"], count: Float[Tensor, ""]) -> float:
    mean, mean_square = sums / count
    return float((mean_square - mean.square()).sum().item())


def rankme(singular_values: Float[Tensor, " dim"]) -> Float[Tensor, ""]:
    """e to the entropy of the singular values' shares: the number of dimensions in real use.

    Garrido et al., 2023, Eqs. (1) and (2), https://arxiv.org/abs/2210.02885. Embeddings are not
    centered, there or here. 1 if all embeddings are multiples of one vector.
    """
    shares = singular_values / singular_values.sum() + 1e-7
    return (-(shares * shares.log()).sum()).exp()
