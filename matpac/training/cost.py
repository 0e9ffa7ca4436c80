"""params.yaml -> floating-point operations, hours and price of its pre-training, before it begins.

Nothing here is measured: operations and memory are counted (matpac/model/flops.py), speeds are those
of data sheets with assumed losses. metrics.csv has the real speed of a run.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from matpac.model.flops import Flops, training_flops, training_memory
from matpac.model.pretext import Pretext
from matpac.model.sizes import num_visible
from matpac.params import Params
from matpac.progress import in_columns
from matpac.shards.crops import crops_of_finished
from matpac.training.schedules import durations_of
from matpac.weights.checkpoint import blank_pretext


class Gpu(NamedTuple):
    """Figures of a data sheet, without sparsity."""

    name: str
    bfloat16_tflops: float
    float32_tflops: float
    terabytes_per_s: float
    """Bandwidth of the memory."""
    gibibytes: float
    """Size of the memory, which is sold in GB."""


GPUS = {
    "h100": Gpu("H100 SXM", 989, 67, 3.35, 80),
    "h200": Gpu("H200 SXM", 989, 67, 4.8, 141),
    "a100": Gpu("A100 SXM, 80 GB", 312, 19.5, 2.04, 80),
    "l40s": Gpu("L40S", 362, 91.6, 0.864, 48),
    "4090": Gpu("GeForce RTX 4090", 165, 82.6, 1.008, 24),
}
"""By names as on the command line, which are parts of the names that PyTorch gives."""
SHARE_OF_PEAK = 0.6
"""Of a data sheet's operations a second: what large matrix products are assumed to reach."""
SHARE_OF_BANDWIDTH = 0.8
MOVES_COMPILED, MOVES_EAGER = 4, 8
"""How often a byte that is kept for the backward pass crosses the memory's bus in an update."""
STARTS_COMPILED, STARTS_EAGER = 40, 120
"""Operations that the host starts for each block and micro-batch; counted if eager."""
SECONDS_PER_START = 5e-6


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


class Estimate(NamedTuple):
    """What pre-training is expected to take on GPUs of one kind."""

    trained: int
    """Trained weights."""
    flops: int
    """Operations for a crop."""
    fixed: int
    """Bytes for weights, gradients and optimizer."""
    per_clip: int
    """Bytes for each clip of a micro-batch."""
    micro_batch: int
    seconds: float
    """Time of an update."""
    crops_per_s: float
    """Of all GPUs together."""
    share_of_peak: float
    """Operations a second over those of the data sheet, in the precision of the run."""


def estimate(params: Params, gpu: Gpu, num_gpus: int = 1) -> Estimate:
    """Roofline of an update: matrix products at a share of the peak, then all bytes at the bandwidth.

    It takes no less time than the host needs to start all operations.

    Raises:
        ValueError: If the networks do not fit, or there are more GPUs than clips in a batch.
    """
    model, compute = params.model, params.compute
    bfloat16 = params.pretrain.precision == "bfloat16"
    pretext = on_paper(params)
    flops = training_flops(pretext, model.mask_ratio, classify=params.pretrain.classifies)
    kept, memory = (
        training_memory(
            pretext,
            num_visible(pretext.num_patches, model.mask_ratio),
            bfloat16=bfloat16,
            recompute=recompute,
            classify=params.pretrain.classifies,
        )
        for recompute in (False, compute.recompute_activations)
    )
    if num_gpus > params.pretrain.batch_size:
        raise ValueError(
            f"--gpus: need pretrain.batch_size ({params.pretrain.batch_size}) at most, got {num_gpus}"
        )
    crops = math.ceil(params.pretrain.batch_size / num_gpus)
    fitting = memory.most_clips(gpu.gibibytes * 2**30)
    if not fitting:
        raise ValueError(
            f"model.size: need networks that fit into the {gpu.gibibytes:g} GiB of one {gpu.name}, "
            f"got {model.size}, which takes {memory.fixed / 2**30:.3g} GiB and "
            f"{memory.per_clip / 2**20:.3g} MiB a clip"
        )
    wanted = fitting if compute.micro_batch_size == "auto" else compute.micro_batch_size
    micro_batch = min(crops, fitting, wanted)

    recomputed = (flops.student + flops.predictor) / 3 if compute.recompute_activations else 0
    peak = 1e12 * (gpu.bfloat16_tflops if bfloat16 else gpu.float32_tflops)
    products_s = crops * (flops.total + recomputed) / (SHARE_OF_PEAK * peak)

    trained = sum(weight.numel() for weight in pretext.parameters() if weight.requires_grad)
    # Recomputing brings a second forward pass, to which a quarter of the transfers belongs.
    again = 1.25 if compute.recompute_activations else 1
    moves, starts = (MOVES_COMPILED, STARTS_COMPILED) if compute.compile else (MOVES_EAGER, STARTS_EAGER)
    num_parts = math.ceil(crops / micro_batch)
    weights = 4 * trained * (4 * num_parts + 12)
    moved = again * moves * crops * kept.per_clip + weights
    bytes_s = moved / (SHARE_OF_BANDWIDTH * 1e12 * gpu.terabytes_per_s)

    encoder, predictor = pretext.student_encoder.blocks, pretext.predictor.blocks
    starts_s = SECONDS_PER_START * num_parts * starts * (2 * len(encoder) + len(predictor))

    seconds = max(products_s + bytes_s, starts_s)
    return Estimate(
        trained,
        flops.total,
        memory.fixed,
        memory.per_clip,
        micro_batch,
        seconds,
        params.pretrain.batch_size / seconds,
        crops * flops.total / seconds / peak,
    )


def roofline_table(
    runs: Mapping[str, Params],
    shards: Path,
    gpu: Gpu,
    *,
    num_gpus: int = 1,
    price: float | None = None,
    num_clips: int | None = None,
) -> str:
    """A line for each run: memory, expected speed, hours, and money if an hour of a GPU has a `price`.

    Clips are counted as in `cost_table`. Assumptions follow in words.
    """
    header = [f"on {num_gpus} x {gpu.name}", "GiB", "MiB a clip", "micro-batch", "crops/s", "of peak"]
    header += ["hours", "GPU hours", *([] if price is None else ["price"])]
    rows = []
    for name, params in runs.items():
        found = estimate(params, gpu, num_gpus)
        num_crops = crops_of(params, clips_in(shards, params) if num_clips is None else num_clips)
        whole = ["-"] * (2 if price is None else 3)
        if num_crops is not None:
            hours = num_crops / found.crops_per_s / 3600
            whole = [f"{hours:,.1f}", f"{num_gpus * hours:,.1f}"]
            whole += [] if price is None else [f"{price * num_gpus * hours:,.2f}"]
        rows.append(
            [
                name,
                f"{found.fixed / 2**30:.2f}",
                f"{found.per_clip / 2**20:.1f}",
                f"{found.micro_batch:,}",
                f"{found.crops_per_s:,.0f}",
                f"{found.share_of_peak:.0%}",
                *whole,
            ]
        )
    table = "\n".join(in_columns([header, *rows], right=range(1, len(header))))
    return f"{table}\n\n{assumptions(gpu, num_gpus, price)}"


def assumptions(gpu: Gpu, num_gpus: int, price: float | None) -> str:
    """What the estimate rests on, a sentence a line."""
    lines = [
        "An estimate; nothing of it is measured. It assumes:",
        f"- {gpu.name} by its data sheet: {gpu.bfloat16_tflops:g} TFLOP/s in dense bfloat16, "
        f"{gpu.float32_tflops:g} in float32, {gpu.terabytes_per_s:g} TB/s, {gpu.gibibytes:g} GiB.",
        f"- Matrix products reach {SHARE_OF_PEAK:.0%} of the peak, transfers {SHARE_OF_BANDWIDTH:.0%} of the "
        "bandwidth, and neither overlaps the other.",
        f"- A byte kept for the backward pass moves {MOVES_COMPILED} times if networks are compiled, "
        f"{MOVES_EAGER} times if not.",
        "- Trained weights move 4 times a micro-batch, and 12 times in clipping, AdamW and moving averages.",
        f"- Starting an operation takes {1e6 * SECONDS_PER_START:g} us, for {STARTS_COMPILED} operations a "
        f"block and micro-batch if compiled, {STARTS_EAGER} if not, while the GPU works.",
        "- Data arrive in time.",
    ]
    if num_gpus > 1:
        lines.append("- GPUs exchange gradients during the backward pass, at no cost.")
    if price is not None:
        lines.append(f"- An hour of one GPU costs {price:g}. Preparing, embedding and probing are not in it.")
    return "\n".join(lines)


def flops_of(params: Params) -> Flops:
    pretext = on_paper(params)
    return training_flops(pretext, params.model.mask_ratio, classify=params.pretrain.classifies)


def on_paper(params: Params) -> Pretext:
    """Networks without memory for their weights."""
    with torch.device("meta"):
        return blank_pretext(params.logmel, params.model, params.pretrain)


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
