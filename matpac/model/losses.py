"""outputs of student and teacher -> losses: Eqs. (1) to (5), and the choice of MATPAC++."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def distances(
    hypotheses: Float[Tensor, "batch masked hypothesis dim"],
    target: Float[Tensor, "batch masked dim"],
) -> Float[Tensor, "batch masked hypothesis"]:
    """Eq. (1) for each patch: squared distance between unit vectors, 2 - 2 cos, from 0 to 4."""
    hypotheses_unit = F.normalize(hypotheses, dim=-1)
    target_unit = F.normalize(target, dim=-1)
    return (hypotheses_unit - target_unit[:, :, None]).square().sum(-1)


def standardized(latents: Float[Tensor, "batch masked dim"]) -> Float[Tensor, "batch masked dim"]:
    """Mean 0 and deviation 1 over the dimensions of each latent, as the targets of M2D
    (https://github.com/nttcslab/m2d). Eq. (1) compares directions, so only the mean matters."""
    return F.layer_norm(latents, latents.shape[-1:], eps=1e-6)


def prediction_loss(
    distances: Float[Tensor, "batch masked hypothesis"],
    choice_temperature: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Mean over all masked patches; the paper sums, so its scale moves with the mask ratio.

    Several hypotheses share a patch by a softmax of their distances, without gradient (MATPAC++).
    Without a temperature the closest one takes the whole patch. One hypothesis is MATPAC.
    """
    if choice_temperature is None:
        return distances.amin(-1).mean()
    shares = (-distances.detach() / choice_temperature).softmax(-1)
    return (shares * distances).sum(-1).mean()


def closest(
    hypotheses: Float[Tensor, "batch masked hypothesis dim"],
    distances: Float[Tensor, "batch masked hypothesis"],
) -> Float[Tensor, "batch masked dim"]:
    """The hypothesis of each patch that is nearest to the target."""
    best = distances.argmin(-1)[:, :, None, None]
    return hypotheses.take_along_dim(best, dim=2).squeeze(2)


def match(
    hypotheses: Float[Tensor, "batch masked hypothesis dim"],
    target: Float[Tensor, "batch masked dim"],
) -> tuple[Float[Tensor, "batch masked hypothesis"], Float[Tensor, "batch masked dim"]]:
    """Distances of all hypotheses, and the closest one of each patch."""
    distance = distances(hypotheses, target)
    return distance, closest(hypotheses, distance)


def teacher_probabilities(
    teacher_logits: Float[Tensor, "batch masked cluster"],
    center: Float[Tensor, " cluster"],
    temperature: float | Float[Tensor, ""],
) -> Float[Tensor, "batch masked cluster"]:
    """Eqs. (2) and (3): centered, then sharpened."""
    return ((teacher_logits - center) / temperature).softmax(-1)


def classification_loss(
    student_logits: Float[Tensor, "batch masked cluster"],
    teacher_probs: Float[Tensor, "batch masked cluster"],
    student_temperature: float,
) -> Float[Tensor, ""]:
    """Eq. (4): cross-entropy from teacher to student, mean over all masked patches."""
    student_log_probs = (student_logits / student_temperature).log_softmax(-1)
    return -(teacher_probs * student_log_probs).sum(-1).mean()


def total_loss(
    classification: Float[Tensor, ""], prediction: Float[Tensor, ""], alpha: float
) -> Float[Tensor, ""]:
    """Eq. (5).

    At alpha = 1 the classification is left out: the student's head then has no gradient instead
    of a zero one, and weight decay does not move it.
    """
    if alpha == 1:
        return prediction
    return torch.lerp(classification, prediction, alpha)
