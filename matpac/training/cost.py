"""params.yaml -> floating-point operations and hours of its pre-training, before it begins.

These are counts (matpac/model/flops.py), not measurements: metrics.csv has the real speed of a run.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from matpac.model.flops import Flops, training_flops
from matpac.params import Params
from matpac.progress import in_columns
from matpac.shards.crops import crops_of_finished
from matpac.training.schedules import durations_of
from matpac.weights.checkpoint import blank_pretext


def cost_table(
    runs: Mapping[str, Params],
    shards: Path,
    *,
    num_clips: int | None = None,
    tflop_per_s: float | None = None,
) -> str:
    """A line for each run: GFLOP a crop by part, PFLOP of the whole run, hours at `tflop_per_s`.

    The number of clips is `num_clips`, or that of the finished shards in the folder `shards`. With
    neither, only the cost of a crop is known. Raises ValueError if there are too few clips for one
    update.
    """
    header = ["GFLOP a crop", *Flops._fields, "all", "of the first", "crops", "PFLOP", "hours"]
    all_flops = {name: flops_of(params) for name, params in runs.items()}
    first = next(iter(all_flops.values())).total
    rows = []
    for name, params in runs.items():
        flops = all_flops[name]
        num_crops = crops_of(params, clips_in(shards, params) if num_clips is None else num_clips)
        whole = ["-", "-", "-"]
        if num_crops is not None:
            total = num_crops * flops.total
            hours = "-" if tflop_per_s is None else f"{total / (tflop_per_s * 1e12) / 3600:,.2f}"
            whole = [f"{num_crops:,}", f"{float(f'{total / 1e15:.3g}'):,g}", hours]
        parts = [f"{part / 1e9:.3g}" for part in (*flops, flops.total)]
        rows.append([name, *parts, f"{flops.total / first:.0%}", *whole])
    return "\n".join(in_columns([header, *rows], right=range(1, len(header))))


def flops_of(params: Params) -> Flops:
    with torch.device("meta"):
        pretext = blank_pretext(params.logmel, params.model, params.pretrain)
    return training_flops(pretext, params.model.mask_ratio, classify=params.pretrain.classifies)


def crops_of(params: Params, num_clips: int | None) -> int | None:
    """Number of crops in all updates of a run; None if the number of clips is unknown."""
    if not params.pretrain.num_epochs:
        return 0
    if num_clips is None:
        return None
    return durations_of(num_clips, params.pretrain).total * params.pretrain.batch_size


def clips_in(shards: Path, params: Params) -> int | None:
    """Number of clips long enough for the run; None if a dataset has no finished shards."""
    crops = crops_of_finished(shards, params.logmel, params.pretrain)
    return None if crops is None else crops.num_clips
