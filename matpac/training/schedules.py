"""update number -> learning rate, temperatures and decays."""

import math
from typing import NamedTuple

from matpac.params import Pretrain


class Durations(NamedTuple):
    """Lengths of the run and of its phases in updates; an epoch shows every clip once.

    AudioSet's 2,012,615 clips at batch 2048 give the released code's 294,816 / 19,654 / 9,827.
    """

    total: int
    warmup: int
    teacher_temperature: int


def durations_of(num_clips: int, params: Pretrain) -> Durations:
    """Raises ValueError if a batch holds clips twice, or the run is too short for one update."""
    if params.batch_size > num_clips:
        raise ValueError(
            f"pretrain.batch_size: need at most the {num_clips} clips of an epoch, got {params.batch_size}"
        )

    def updates(epochs: float) -> int:
        return int(num_clips / params.batch_size * epochs)

    total = updates(params.num_epochs)
    if total < 1:
        raise ValueError(
            f"pretrain.num_epochs: need at least one batch of {params.batch_size} clips, "
            f"got {num_clips} clips x {params.num_epochs:g} epochs"
        )
    return Durations(total, updates(params.warmup_epochs), updates(params.teacher_temperature_epochs))


class Knobs(NamedTuple):
    """Settings of one update."""

    learning_rate: float
    teacher_temperature: float
    encoder_decay: float
    head_decay: float
    choice_temperature: float


def knobs_at(update: int, durations: Durations, params: Pretrain) -> Knobs:
    """Depends on the update number alone: resuming needs no replay and no scheduler state."""
    total, warmup, rise = durations
    temperature, encoder, head = (
        params.teacher_temperature,
        params.encoder_decay,
        params.head_decay,
    )
    choice = params.choice_temperature
    return Knobs(
        learning_rate=params.peak_learning_rate * warmup_then_cosine(update, warmup, total),
        teacher_temperature=ramp(update, temperature.first, temperature.last, rise),
        encoder_decay=ramp(update, encoder.first, encoder.last, total),
        head_decay=ramp(update, head.first, head.last, total),
        choice_temperature=max(choice.first * params.choice_decay**update, choice.last),
    )


def ramp(update: int, first: float, last: float, until: int) -> float:
    """Straight line from `first` at update 0 to `last` at update `until`, flat afterwards."""
    if update >= until:
        return last
    return first + (last - first) * update / until


def warmup_then_cosine(update: int, warmup: int, total: int) -> float:
    """Straight line from 0 to 1 at update `warmup`, then half a cosine down to 0 at `total`."""
    if update < warmup:
        return update / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (update - warmup) / (total - warmup))))
