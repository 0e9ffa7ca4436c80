"""log-mel batch -> both sides of the two pretext tasks. Figure 1 of the paper, as code.

paper    here
X        patches             log-mel patches with positions
X_v X_m  visible, masked     the two sides of a random split
Z_v      visible_latents     student encoder, theta
Z_m      target_latents      teacher encoder, gamma
^Z_m     hypotheses          predictor, nu (one hypothesis a patch in MATPAC, several in MATPAC++)
C        center.value        running mean of the outputs of the teacher's head
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.init import trunc_normal_, xavier_uniform_, zeros_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from matpac.model.encoder import Encoder
from matpac.model.head import Head
from matpac.model.losses import match, standardized
from matpac.model.masking import Split, take
from matpac.model.patches import Patches
from matpac.model.predictor import Predictor
from matpac.model.sizes import Size


class Views(NamedTuple):
    """Both sides of both pretext tasks, for the masked patches of a batch."""

    target_latents: Float[Tensor, "batch masked dim"]
    predicted_latents: Float[Tensor, "batch masked dim"]
    """The closest hypothesis of each patch."""
    distances: Float[Tensor, "batch masked hypothesis"]
    target_logits: Float[Tensor, "batch masked cluster"] | None
    predicted_logits: Float[Tensor, "batch masked cluster"] | None
    """Both logits are None if nothing is classified."""


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


class Pretext(nn.Module):
    """Student and teacher with their heads, the predictor and the center."""

    def __init__(
        self,
        size: Size,
        *,
        num_mels: int,
        crop_frames: int,
        num_clusters: int,
        num_hypotheses: int,
        center_momentum: float,
        standardize_targets: bool = False,
    ) -> None:
        super().__init__()
        self.standardize_targets = standardize_targets
        self.match = match
        dim = size.encoder_dim
        self.patches = Patches(num_mels, crop_frames, dim)
        self.student_encoder = Encoder(dim, size.encoder_depth, size.encoder_heads)
        self.predictor = Predictor(
            dim,
            size.predictor_dim,
            size.predictor_depth,
            size.predictor_heads,
            num_hypotheses,
            grid=(self.patches.num_freq, self.patches.num_time),
        )
        head = (dim, size.head_hidden, size.head_bottleneck, num_clusters)
        self.student_head = Head(*head)
        self.teacher_encoder = Encoder(dim, size.encoder_depth, size.encoder_heads)
        self.teacher_head = Head(*head)
        self.center = Center(num_clusters, center_momentum)
        self.teacher_encoder.requires_grad_(requires_grad=False)
        self.teacher_head.requires_grad_(requires_grad=False)

    @property
    def num_patches(self) -> int:
        return self.patches.num_freq * self.patches.num_time

    def forward(
        self, log_mel: Float[Tensor, "batch mel frame"], split: Split, *, classify: bool = True
    ) -> Views:
        """Figure 1: encode both sides of the split, predict the masked latents, classify them.

        Args:
            log_mel: Standardized log-mel energies [batch, mel, frame]; frames a multiple of 16.
            split: Visible and masked patches of each clip.
            classify: Whether to apply the heads; prediction alone (M2D) does not need them.

        Returns:
            Latents and logits of student and teacher for the masked patches.
        """
        patches = self.patches(log_mel)

        visible = self.patches.with_cls(take(patches, split.visible))
        visible_latents = self.student_encoder(visible)
        hypotheses = self.predictor(visible_latents, split)

        with torch.no_grad():
            masked = self.patches.with_cls(take(patches, split.masked))
            target_latents = self.teacher_encoder(masked)[:, 1:]
            if self.standardize_targets:
                target_latents = standardized(target_latents)
            target_logits = self.teacher_head(target_latents) if classify else None

        distance, predicted_latents = self.match(hypotheses, target_latents)
        predicted_logits = self.student_head(predicted_latents) if classify else None
        return Views(target_latents, predicted_latents, distance, target_logits, predicted_logits)

    def follow_student_(self, encoder_decay: float, head_decay: float) -> None:
        follow_(self.teacher_encoder, self.student_encoder, encoder_decay)
        follow_(self.teacher_head, self.student_head, head_decay)

    @torch.no_grad()
    def initialize_(self, generator: Generator) -> None:
        """Draw all weights.

        weights                                      distribution
        Linear of student, predictor, student head   Xavier-uniform, bias 0 (each hypothesis alone)
        LayerNorm                                    1, 0
        last layer of the head                       v uniform within 1/sqrt(fan-in), g 1
        CLS and mask token                           normal, 0.02
        teacher encoder                              like the student's, drawn independently (M2D)
        teacher head                                 MLP truncated normal 0.02, last layer student's
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                xavier_uniform_(module.weight, generator=generator)
                zeros_(module.bias)
        latent_dim = self.predictor.embedding.in_features
        for hypothesis in self.predictor.hypotheses.weight.split(latent_dim):
            xavier_uniform_(hypothesis, generator=generator)
        for token in (self.patches.cls_token, self.predictor.mask_token):
            token.normal_(std=0.02, generator=generator)

        bound = self.student_head.direction.shape[1] ** -0.5
        self.student_head.direction.uniform_(-bound, bound, generator=generator)
        self.teacher_head.direction.copy_(self.student_head.direction)
        self.teacher_head.scale.copy_(self.student_head.scale)
        for layer in self.teacher_head.mlp:
            if isinstance(layer, nn.Linear):
                trunc_normal_(layer.weight, std=0.02, generator=generator)
