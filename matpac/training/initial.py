"""a new run and trained weights -> a run that begins with these weights (`pretrain.init`)."""

from pathlib import Path

import torch
from torch import Tensor

from matpac.digests import SCHEMA, Digests, digests_in
from matpac.model.pretext import Pretext
from matpac.params import LogMel
from matpac.weights.checkpoint import field_of
from matpac.weights.open import Weights
from matpac.weights.tensors import first_misfit, shapes_of


@torch.no_grad()
def begin_with_(pretext: Pretext, initial: Weights, logmel: LogMel) -> None:
    """Load all networks for which there are weights; the others keep their random ones.

    A teacher encoder without weights becomes a copy of the student's, as a moving average of a student
    that has not moved would be. The paper and M2D draw it at random because their student is random
    too; here that would waste the first epochs on forgetting.

    Raises:
        ValueError: The run has another front end or other sizes; the error names the parameter. Or the
            weights are not finite; the error names file and tensor.
    """
    field = initial.logmel.first_difference(logmel)
    if field is not None:
        raise ValueError(
            f"logmel.{field}: need {getattr(initial.logmel, field)}, with which the weights of pretrain.init "
            f"({initial.name}) were trained, got {getattr(logmel, field)}"
        )
    networks = initial.networks()
    _check_sizes(pretext, networks, initial)
    pretext.load_state_dict(networks, strict=False)
    if not any(key.startswith("teacher_encoder.") for key in networks):
        pretext.teacher_encoder.load_state_dict(pretext.student_encoder.state_dict())


def _check_sizes(pretext: Pretext, networks: dict[str, Tensor], initial: Weights) -> None:
    given = {key.partition(".")[0] for key in networks}
    needed = {key: value for key, value in pretext.state_dict().items() if key.partition(".")[0] in given}
    if misfit := first_misfit(shapes_of(needed), shapes_of(networks)):
        raise ValueError(
            f"{field_of(misfit.name)}: the weights of pretrain.init ({initial.name}) have another: "
            f"{misfit.name} is {misfit.found} in them, {misfit.needed} in this run"
        )
    num_heads = pretext.student_encoder.blocks.num_heads
    if initial.num_heads not in (None, num_heads):
        raise ValueError(
            f"model.size: the weights of pretrain.init ({initial.name}) have another: "
            f"{initial.num_heads} attention heads, {num_heads} in this run"
        )


def recordings_of(weights: Weights) -> Digests:
    """What trained weights have learned from; unknown if no list came with them, as with released files.

    Unknown recordings get the name of the weights without its folder, since encoders are published with it.
    """
    found = digests_in(weights.path)
    return Digests(SCHEMA.empty_table(), (Path(weights.name).name,)) if found is None else found
