"""Training on fake CUDA tensors, for test_on_fake_cuda.py."""

from pathlib import Path

import numpy as np
import torch

from matpac.model.flops import training_memory
from matpac.model.masking import Split
from matpac.model.sizes import num_visible
from matpac.params import Params, load_params
from matpac.shards.crops import Batch, Crops, Empty
from matpac.shards.statistics import Statistics
from matpac.training import loop
from matpac.training.loop import Example, Learner, Report, accumulate_, clips_that_fit, update_
from matpac.training.ranks import Ranks
from matpac.training.run import Run
from matpac.training.schedules import Durations, knobs_at
from matpac.weights.checkpoint import blank_pretext
from tests.fake_cuda.watching import CUDA, NANO, Watching, move_

PROJECT = Path(__file__).resolve().parents[2]
LASTING = Durations(total=100, warmup=10, teacher_temperature=10)


def params_of(preset: str, changes: dict) -> Params:
    params = load_params(PROJECT / f"presets/{preset}.yaml")
    changes = {"compute": {}} | changes
    changes["compute"] = {"compile": False} | changes["compute"]
    sections = {name: getattr(params, name).model_copy(update=values) for name, values in changes.items()}
    return params.model_copy(update=sections)


def learner_of(params: Params) -> Learner:
    pretext = blank_pretext(params.logmel, params.model, params.pretrain)
    move_(pretext)
    return Learner(pretext, params.pretrain, params.compute, Ranks(0, 1, CUDA))


def example_of(params: Params, num_patches: int) -> Example:
    batch, visible = params.pretrain.batch_size, num_visible(num_patches, params.model.mask_ratio)
    log_mel = torch.empty(batch, params.pretrain.crop_frames, params.logmel.num_mels, device=CUDA)
    sides = (
        torch.empty(batch, size, dtype=torch.int64, device=CUDA) for size in (visible, num_patches - visible)
    )
    return Example(log_mel.transpose(1, 2), Split(*sides))


def updates(preset: str, **changes: dict) -> dict:
    """Two updates of small networks, the first of which is watched."""
    params = params_of(preset, changes | {"model": {"custom": NANO} | changes.get("model", {})})
    learner = learner_of(params)
    example = example_of(params, learner.pretext.num_patches)
    with Watching() as watching:
        for update in range(2):
            update_(learner, example, update, knobs_at(50, LASTING, params.pretrain), watch=update == 0)
    return {"hazards": watching.hazards, "num_operations": watching.num_operations}


def memory(preset: str, clips: int, **changes: dict) -> dict:
    """Peak of two micro-batches of `clips`, what `training_memory` says of it, and `auto`."""
    pretrain = {"batch_size": 2 * clips} | changes.get("pretrain", {})
    compute = {"micro_batch_size": clips} | changes.get("compute", {})
    params = params_of(preset, changes | {"pretrain": pretrain, "compute": compute})
    learner = learner_of(params)
    pretext, knobs = learner.pretext, knobs_at(50, LASTING, params.pretrain)
    example = example_of(params, pretext.num_patches)
    trained = [weight for weight in pretext.parameters() if weight.requires_grad]
    with Watching() as watching:
        moments = [torch.empty_like(weight) for weight in trained for _ in range(2)]
        watching.count([*pretext.parameters(), *pretext.buffers(), *moments, example.log_mel])
        accumulate_(learner, example, knobs, watch=False, classify=params.pretrain.classifies)
    modelled = training_memory(
        pretext,
        num_visible(pretext.num_patches, params.model.mask_ratio),
        bfloat16=params.pretrain.precision == "bfloat16",
        recompute=params.compute.recompute_activations,
        classify=params.pretrain.classifies,
    )
    auto = clips_that_fit(pretext, example, params.pretrain, params.compute)
    return {"peak_bytes": watching.peak_bytes, **modelled._asdict(), "auto": auto}


def run_ahead(num_updates: int) -> dict:
    """A run of `num_updates`, from batches in the host's memory on.

    waits: pairs of an update that the host waits for, and the number of updates queued by then.
    """
    small = {"pretrain": {"batch_size": 4, "precision": "bfloat16"}, "model": {"custom": NANO}}
    params = params_of("demo", small)
    queued, waits = [], []

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            self.update = -1

        def record(self) -> None:
            self.update = len(queued)

        def synchronize(self) -> None:
            waits.append((self.update, len(queued)))

    def noted(*args: object, **kwargs: object) -> Report:
        report = update_(*args, **kwargs)
        queued.append(report.update)
        return report

    loop.update_, torch.cuda.Event = noted, Event
    run = Run(Path("never made"), Silence(params), params, "", Ranks(0, 1, CUDA))
    run.durations = Durations(num_updates, 1, 1)
    with Watching() as watching:
        for _ in run.reports(learner_of(params), first=0):
            pass
    return {"waits": waits, "hazards": watching.hazards}


class Silence(Crops):
    def __init__(self, params: Params) -> None:
        self.num_clips, self.statistics = 100, Statistics(num_values=1, sum=0.0, sum_of_squares=1.0)
        self.shape = (params.pretrain.crop_frames, params.logmel.num_mels)

    def batch(self, first_sample: int, size: int, empty: Empty) -> Batch:
        return Batch(empty((size, *self.shape)), np.arange(first_sample, first_sample + size))


def known_hazards() -> list[str]:
    """One of each kind that is looked for."""
    values, mask = torch.empty(3, device=CUDA), torch.empty(3, dtype=torch.bool, device=CUDA)
    with Watching() as watching:
        values.sum().item()
        torch.tensor([1.0], device=CUDA)
        values.cpu()
        torch.empty(3).to(CUDA, non_blocking=True)
        torch.empty(3).pin_memory().to(CUDA, non_blocking=True)
        values.to("cpu", non_blocking=True)
        values[mask] = values[:2]
        values[torch.tensor([0, 1])].sum()
        values[-1:].fill_(1.0)
    return watching.hazards


def everything(memories: list[dict]) -> dict:
    """All of the above in one process, whose start takes seconds."""
    memories = [memory(**changes) for changes in memories]
    demo = {"preset": "demo", "pretrain": {"batch_size": 4, "precision": "bfloat16"}}
    return {
        "known": known_hazards(),
        "memories": memories,
        "one": updates(**demo),
        "several": updates(**demo, model={"num_predictor_heads": 3}, compute={"residual": "bfloat16"}),
        "run": run_ahead(num_updates=4),
    }
