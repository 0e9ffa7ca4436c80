"""views -> signs of collapse.

A collapsed run has a low loss and useless latents: they no longer differ from patch to patch, or the
teacher calls everything the same class. Both show here long before a probe does.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from matpac.model.pretext import Views
from matpac.training.ranks import Ranks


@dataclass
class Health:
    """Sums over the micro-batches of one update."""

    num_patches: Float[Tensor, ""]
    target_sums: Tensor
    predicted_sums: Tensor
    probability_sum: Float[Tensor, " cluster"]
    used: Float[Tensor, " cluster"]
    """Above 0 for classes that come first for some patch."""

    @classmethod
    def start(cls, center: Float[Tensor, " cluster"]) -> "Health":
        return cls(
            num_patches=center.new_zeros(()),
            target_sums=center.new_zeros(2, 1),
            predicted_sums=center.new_zeros(2, 1),
            probability_sum=torch.zeros_like(center),
            used=torch.zeros_like(center),
        )

    @torch.no_grad()
    def watch_(self, views: Views, target_probs: Float[Tensor, "batch masked cluster"]) -> None:
        self.num_patches += target_probs.shape[0] * target_probs.shape[1]
        self.target_sums = self.target_sums + sums(views.target_latents)
        self.predicted_sums = self.predicted_sums + sums(views.predicted_latents)
        self.probability_sum = self.probability_sum + target_probs.sum(dim=(0, 1))
        self.used[target_probs.argmax(-1).flatten()] = 1

    def sum_over_(self, ranks: Ranks) -> None:
        for values in vars(self).values():
            ranks.sum_(values)

    def values(self) -> dict[str, float]:
        """What one update showed, over all masked patches of its batch.

        Variances are those of the unit vectors, summed over dimensions: 0 where all patches have the
        same latent, 1 where latents point in all directions.
        teacher_perplexity: e to the entropy of the mean class distribution, from 1 (one class for
        everything) to K (all alike). teacher_used_classes: how many come first for some patch.
        """
        mean_probs = self.probability_sum / self.num_patches
        entropy = -(mean_probs * (mean_probs + 1e-7).log()).sum()
        return {
            "teacher_variance": variance(self.target_sums, self.num_patches),
            "student_variance": variance(self.predicted_sums, self.num_patches),
            "teacher_perplexity": entropy.exp().item(),
            "teacher_used_classes": int((self.used > 0).sum().item()),
        }


def sums(latents: Float[Tensor, "batch masked dim"]) -> Float[Tensor, "moment dim"]:
    flat = F.normalize(latents.detach().flatten(0, 1), dim=-1)
    return torch.stack([flat.sum(0), flat.square().sum(0)])


def variance(sums: Float[Tensor, "moment dim"], count: Float[Tensor, ""]) -> float:
    mean, mean_square = sums / count
    return (mean_square - mean.square()).sum().item()


def complaint(values: dict[str, float], num_clusters: int) -> str | None:
    """One line where the teacher has collapsed, else None."""
    if values["teacher_variance"] < 0.01:
        return f"the teacher's latents hardly differ any more (variance {values['teacher_variance']:.2g})"
    if values["teacher_perplexity"] < min(2.0, num_clusters / 2):
        return (
            f"the teacher puts nearly everything into one class "
            f"(perplexity {values['teacher_perplexity']:.2f} of {num_clusters})"
        )
    return None
