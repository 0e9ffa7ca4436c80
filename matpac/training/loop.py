"""batches -> weights: one optimizer update, and the loop around it."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from matpac.model.flops import training_memory
from matpac.model.masking import Split
from matpac.model.pretext import Pretext
from matpac.params import Compute, Pretrain
from matpac.training.gradients import SharedGradients
from matpac.training.health import Health
from matpac.training.objective import Objective
from matpac.training.ranks import Ranks
from matpac.training.schedules import Durations, Knobs, knobs_at

CLIPS_ON_CPU = 32
"""Larger micro-batches leave the caches."""


class NonFinite(ArithmeticError):
    """Loss or gradient of an update is NaN or infinite; the student's weights have not moved."""

    def __init__(self, update: int, loss: float, grad_norm: float) -> None:
        super().__init__(f"update {update}: loss {loss:g}, gradient norm {grad_norm:g}")
        self.update = update


class Example(NamedTuple):
    """Input of one update: standardized log-mels, and which patches are masked."""

    log_mel: Float[Tensor, "batch mel frame"]
    split: Split


class OnHost:
    """Copies of tensors in the host's memory, begun when the device reaches this point of its queue.

    Reading them waits for what was queued before this point, and for nothing queued after it.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        # Such a copy goes into pinned memory. On the CPU it is the tensor itself.
        self._copies = [tensor.detach().to("cpu", non_blocking=True) for tensor in tensors]
        self._arrived: torch.cuda.Event | None = None
        if tensors[0].is_cuda:
            self._arrived = torch.cuda.Event(blocking=True)
            self._arrived.record()

    def has_arrived(self) -> bool:
        return self._arrived is None or self._arrived.query()

    def read(self) -> list[Tensor]:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copies


@dataclass(frozen=True)
class Report:
    """Results of one update. Reading one waits for this update, and not for the next."""

    update: int
    knobs: Knobs
    results: OnHost
    """Losses, gradient norm, whether both are finite, and how many ranks were asked to stop."""
    signs: OnHost | None
    """Of collapse; None unless the update was watched."""

    @property
    def losses(self) -> Float[Tensor, " loss"]:
        """Prediction, classification (0 if not computed) and total loss."""
        return self.results.read()[0]

    @property
    def grad_norm(self) -> Float[Tensor, ""]:
        return self.results.read()[1]

    @property
    def finite(self) -> Tensor:
        return self.results.read()[2]

    @property
    def health(self) -> Health | None:
        return None if self.signs is None else Health(*self.signs.read())

    def wait(self) -> bool:
        """Wait for the update; return whether some rank was asked to stop. Raises NonFinite."""
        losses, grad_norm, finite, stop = self.results.read()
        if not finite:
            raise NonFinite(self.update, losses[2].item(), grad_norm.item())
        return stop.item() > 0


class Learner:
    """Networks and optimizer of a run, on this rank's device."""

    def __init__(self, pretext: Pretext, params: Pretrain, compute: Compute, ranks: Ranks) -> None:
        self.pretext, self.params, self.compute, self.ranks = pretext, params, compute, ranks
        self.micro_batch_size = None if compute.micro_batch_size == "auto" else compute.micro_batch_size
        """Most clips in one forward pass. None until the first update has shown what fits."""
        self.exchanging = False
        """Whether a backward pass has begun to exchange gradients with other ranks."""
        # At alpha = 1 the student's head gets no gradient, and other ranks must not wait for one.
        pretext.student_head.requires_grad_(requires_grad=params.classifies)
        self.optimizer = new_optimizer(pretext, params)
        for blocks in (pretext.student_encoder.blocks, pretext.predictor.blocks):
            blocks.recompute = compute.recompute_activations
        for part in (pretext.patches, pretext.predictor):
            part.residual = getattr(torch, compute.residual)
        objective = Objective(pretext, params)
        if compute.compile:
            objective.compile_parts_()
        self.objective: nn.Module = objective
        self.shared: SharedGradients | None = None
        if ranks.share_memory:
            trained = [weight for weight in pretext.parameters() if weight.requires_grad]
            self.shared = SharedGradients(trained, ranks)
        elif ranks.number > 1:
            # Buffers need no broadcast: every rank computes the same ones.
            self.objective = DistributedDataParallel(
                objective, gradient_as_bucket_view=True, broadcast_buffers=False
            )

    def without_sync(self) -> AbstractContextManager[Any]:
        """Keep gradients on this rank; for all micro-batches of an update but the last."""
        if isinstance(self.objective, DistributedDataParallel):
            return self.objective.no_sync()
        return nullcontext()

    def average_gradients_(self) -> None:
        """Average gradients over the ranks, unless the backward pass has done so."""
        if self.shared is not None:
            self.shared.average_()

    def most_clips(self, example: Example) -> int:
        """Most clips in a micro-batch; chosen now if it is to be chosen."""
        if self.micro_batch_size is None:
            self.micro_batch_size = clips_that_fit(self.pretext, example, self.params, self.compute)
        return self.micro_batch_size

    def halve_micro_batches_(self, tried: int, error: torch.OutOfMemoryError) -> None:
        """Use micro-batches of half of `tried` clips from now on.

        Raises `error` if they cannot be smaller, or if other ranks wait for the rest of the gradients.
        """
        if tried == 1 or self.exchanging:
            smaller = "" if tried == 1 else f"compute.micro_batch_size: {tried // 2}, "
            error.add_note(
                f"An update in micro-batches of {tried} needs more memory than this device has. "
                f"Set {smaller}compute.recompute_activations: true, or a smaller model.size."
            )
            raise error
        self.micro_batch_size = tried // 2


def clips_that_fit(pretext: Pretext, example: Example, params: Pretrain, compute: Compute) -> int:
    """Clips in a micro-batch: the largest power of two that fits on the GPU, if it is on one."""
    device = example.log_mel.device
    if device.type != "cuda":
        return CLIPS_ON_CPU
    memory = training_memory(
        pretext,
        example.split.visible.shape[1],
        bfloat16=params.precision == "bfloat16",
        recompute=compute.recompute_activations,
        classify=params.classifies,
    )
    unused, _ = torch.cuda.mem_get_info(device)
    ours = torch.cuda.memory_reserved(device)
    return max(memory.most_clips(unused + ours), 1)


def new_optimizer(pretext: Pretext, params: Pretrain) -> Optimizer:
    """AdamW; biases and norms have no weight decay if `weight_decay_on` is `matrices`."""
    min_ndim = 0 if params.weight_decay_on == "all" else 2
    trained = [weight for weight in pretext.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in trained if weight.ndim >= min_ndim]},
        {"params": [weight for weight in trained if weight.ndim < min_ndim], "weight_decay": 0.0},
    ]
    return AdamW(
        groups,
        lr=params.peak_learning_rate,
        betas=params.adam_betas,
        eps=params.adam_eps,
        weight_decay=params.weight_decay,
        fused=True,
    )


def pretrain(
    learner: Learner,
    examples: Iterable[Example],
    durations: Durations,
    *,
    first_update: int,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Report]:
    """Yield after every update, so the caller decides when to log, to save and to stop.

    The host runs one update ahead of the device: it waits for an update when it has queued the next
    one, which the device does meanwhile. Then, or if the caller waits for its report, NonFinite is raised.
    """
    before: Report | None = None
    for update, example in enumerate(examples, start=first_update):
        last = update == durations.total - 1
        watch = last or update % learner.compute.log_every_updates == 0
        knobs = knobs_at(update, durations, learner.params)
        report = update_(learner, example, update, knobs, watch=watch, stopping=is_stopping())
        if before is not None:
            before.wait()
        yield report
        before = report
    if before is not None:
        before.wait()


def update_(
    learner: Learner, example: Example, update: int, knobs: Knobs, *, watch: bool, stopping: bool = False
) -> Report:
    """One update on this rank's part of a batch. The host never waits for the device.

    If loss or gradient is not finite, neither the student nor the center moves. At alpha = 1 the
    classification teaches nothing: it is computed, and the center moved, in watched updates only.

    Args:
        learner: Networks and optimizer, changed in place.
        example: This rank's log-mels [batch, mel, frame] and their split into patches.
        update: Number of the update, from 0.
        knobs: Learning rate, temperatures and decays of this update.
        watch: Whether to measure signs of collapse (`Report.health`).
        stopping: Whether this rank was asked to stop; the report tells all ranks.

    Returns:
        Losses and gradient norm over the batches of all ranks, on their way to the host.
    """
    pretext, params, ranks, optimizer = learner.pretext, learner.params, learner.ranks, learner.optimizer
    center = pretext.center.value
    classify = watch or params.classifies
    means, health = accumulate_(learner, example, knobs, watch=watch, classify=classify)
    means[-1:].fill_(float(stopping))

    learner.average_gradients_()
    ranks.sum_(means)
    if health is not None:
        health.sum_over_(ranks)
    losses, center_mean, stop = means.split([3, len(center), 1])
    grad_norm = clip_grad_norm_(pretext.parameters(), params.max_grad_norm or math.inf)
    finite = torch.isfinite(losses.sum() + grad_norm)

    # As in the released code: followers take the weights of this forward pass; not at update 0.
    if params.teacher_follows == "before_step" and update > 0:
        pretext.follow_student_(knobs.encoder_decay, knobs.head_decay)
    if classify:
        pretext.center.update_(torch.where(finite, center_mean, center))

    for group in optimizer.param_groups:
        group["lr"] = knobs.learning_rate
    # The fused kernels skip the step if this is 1, as they do for a gradient scaler.
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()
    if params.teacher_follows == "after_step":
        pretext.follow_student_(knobs.encoder_decay, knobs.head_decay)
    signs = None if health is None else OnHost(list(vars(health).values()))
    return Report(update, knobs, OnHost([losses, grad_norm, finite, stop]), signs)


def accumulate_(
    learner: Learner, example: Example, knobs: Knobs, *, watch: bool, classify: bool
) -> tuple[Tensor, Health | None]:
    """Gradients over this rank's part of a batch.

    If memory runs out, all micro-batches are done again with half as many clips in each. Only
    gradients have changed by then, and they begin anew.

    Returns:
        `Outcome.means` and an element that is 0, and signs of collapse if `watch` is set.
    """
    while True:
        parts = micro_batches(example, learner.most_clips(example))
        learner.optimizer.zero_grad(set_to_none=True)
        try:
            return add_gradients_(learner, parts, knobs, watch=watch, classify=classify)
        except torch.OutOfMemoryError as error:
            learner.halve_micro_batches_(len(parts[0].log_mel), error)
        # Here, because the error holds on to the tensors of the failed attempt.
        torch.cuda.empty_cache()


def add_gradients_(
    learner: Learner, parts: Sequence[Example], knobs: Knobs, *, watch: bool, classify: bool
) -> tuple[Tensor, Health | None]:
    pretext, params = learner.pretext, learner.params
    center = pretext.center.value
    health = Health.start(center) if watch else None
    means = center.new_zeros(3 + len(center) + 1)
    teacher_temperature = torch.full_like(center[0], knobs.teacher_temperature)
    hard = pretext.predictor.num_hypotheses == 1 or knobs.choice_temperature <= params.choice_temperature.last
    choice_temperature = None if hard else torch.full_like(center[0], knobs.choice_temperature)
    for number, part in enumerate(parts, start=1):
        share = len(part.log_mel) / params.batch_size
        with nullcontext() if number == len(parts) else learner.without_sync():
            outcome = learner.objective(
                part.log_mel, part.split, teacher_temperature, choice_temperature, classify=classify
            )
            if health is not None:
                health.watch_(outcome.views, outcome.target_probs)
            loss = outcome.loss
            means[:-1] += share * outcome.means
            # Free the views: gigabytes that the backward pass does not need.
            del outcome
            learner.exchanging = number == len(parts) and isinstance(
                learner.objective, DistributedDataParallel
            )
            # Times the number of ranks, because gradients are averaged over ranks.
            (loss * (share * learner.ranks.number)).backward()
    learner.exchanging = False
    return means, health


def micro_batches(example: Example, largest: int) -> list[Example]:
    """The fewest parts of at most `largest` clips, of nearly equal size."""
    num_parts = math.ceil(len(example.log_mel) / largest)
    tensors = (example.log_mel, *example.split)
    split = (values.tensor_split(num_parts) for values in tensors)
    return [Example(log_mel, Split(visible, masked)) for log_mel, visible, masked in zip(*split, strict=True)]
