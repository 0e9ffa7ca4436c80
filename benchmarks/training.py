"""The training step at the paper's size: python -m benchmarks.training

Ours: the networks, losses and update of matpac, in bfloat16 on a device that has instructions for
it, and on a GPU also compiled. Peer: the same
networks in the released code's manner: float32, eager; an optimiser and a moving average that go
from tensor to tensor; the average kept in dictionaries of its own beside the teacher; metrics
computed and read at every update. Both do the same updates, which is checked first, in float32 on a
small model.

Memory is the peak of a process that does nothing else. Share of the peak: floating-point operations
a second, by matpac/model/flops.py, over those of the largest matrix products this machine does in
the same run.
"""

import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from benchmarks import feeding
from benchmarks.claims import Claim, run, seconds
from benchmarks.fresh import fresh, megabytes
from matpac.devices import device_or_default, is_bfloat16_slow
from matpac.model.flops import training_flops
from matpac.model.losses import classification_loss, prediction_loss, teacher_probabilities, total_loss
from matpac.model.masking import Split, random_split
from matpac.model.pretext import Pretext
from matpac.params import Params, load_params
from matpac.shards.crops import Crops
from matpac.training.cost import GPUS, estimate
from matpac.training.health import sums, variance
from matpac.training.loop import Example, Learner, micro_batches, update_
from matpac.training.ranks import this_process
from matpac.training.run import Run
from matpac.training.schedules import Durations, Knobs, knobs_at
from matpac.weights.checkpoint import new_pretext

PROJECT = Path(__file__).resolve().parent.parent
LASTING = Durations(294_816, 19_654, 9_827)
CROPS_OF_THE_PAPER = 604_000_000
DEVICE = device_or_default()
ON_GPU = DEVICE.type == "cuda"
PRECISION = "float32" if is_bfloat16_slow(DEVICE) else "bfloat16"
ROUNDS = 5 if ON_GPU else 3
UTILISATION = 45
"""Goal on a GPU, in percent of the data sheet's operations a second; the goal in crops follows."""


class Plain:
    """The peer's networks, optimiser and moving averages."""

    def __init__(self, pretext: Pretext, params: Params) -> None:
        self.pretext, self.params = pretext, params
        self.optimizer = torch.optim.AdamW(
            [weight for weight in pretext.parameters() if weight.requires_grad],
            lr=params.pretrain.peak_learning_rate,
            betas=params.pretrain.adam_betas,
            eps=params.pretrain.adam_eps,
            weight_decay=params.pretrain.weight_decay,
            foreach=False,
        )
        self.averages = [
            {name: value.detach().clone() for name, value in teacher.named_parameters()}
            for teacher in (pretext.teacher_encoder, pretext.teacher_head)
        ]
        self.metrics: list[dict[str, float]] = []

    def update(self, example: Example, number: int, knobs: Knobs) -> list[float]:
        pretext, params = self.pretext, self.params.pretrain
        self.optimizer.zero_grad()
        parts = micro_batches(example, self.params.compute.micro_batch_size)
        center_mean = torch.zeros_like(pretext.center.value)
        logged: dict[str, float] = {"prediction": 0.0, "classification": 0.0, "loss": 0.0}
        for part in parts:
            views = pretext(part.log_mel, part.split)
            prediction = prediction_loss(views.distances)
            probs = teacher_probabilities(
                views.target_logits, pretext.center.value, knobs.teacher_temperature
            )
            classification = classification_loss(views.predicted_logits, probs, params.student_temperature)
            loss = total_loss(classification, prediction, params.alpha)
            (loss / len(parts)).backward()
            center_mean += views.target_logits.mean(dim=(0, 1)) / len(parts)
            logged["prediction"] += prediction.item() / len(parts)
            logged["classification"] += classification.item() / len(parts)
            logged["loss"] += loss.item() / len(parts)
            with torch.no_grad():
                mean_probs = probs.mean(dim=(0, 1))
                logged["perplexity"] = (-(mean_probs * (mean_probs + 1e-7).log()).sum()).exp().item()
                logged["classes"] = len(probs.argmax(-1).unique())
                for name, latents in (
                    ("target", views.target_latents),
                    ("predicted", views.predicted_latents),
                ):
                    patches = torch.tensor(float(latents[..., 0].numel()), device=latents.device)
                    logged[name] = variance(sums(latents), patches)
        grad_norm = clip_grad_norm_(pretext.parameters(), params.max_grad_norm, foreach=False)
        logged["grad_norm"] = grad_norm.item()
        if not math.isfinite(logged["loss"] + logged["grad_norm"]):
            raise ArithmeticError("the peer's loss is not finite")
        if number > 0:
            self.follow(pretext.teacher_encoder, pretext.student_encoder, knobs.encoder_decay, 0)
            self.follow(pretext.teacher_head, pretext.student_head, knobs.head_decay, 1)
        with torch.no_grad():
            pretext.center.value.lerp_(center_mean, 1 - pretext.center.momentum)
        for group in self.optimizer.param_groups:
            group["lr"] = knobs.learning_rate
        self.optimizer.step()
        self.metrics.append(logged)
        return [logged["prediction"], logged["classification"], logged["loss"]]

    @torch.no_grad()
    def follow(self, teacher: torch.nn.Module, student: torch.nn.Module, decay: float, which: int) -> None:
        averages = self.averages[which]
        for name, value in student.named_parameters():
            averages[name].mul_(decay).add_(value.to(torch.float32), alpha=1 - decay)
        teacher.load_state_dict(averages)


class Ours:
    def __init__(self, pretext: Pretext, params: Params) -> None:
        self.learner = Learner(pretext, params.pretrain, params.compute, this_process())
        self.matmul = "high" if params.pretrain.precision == "bfloat16" else "highest"

    def update(self, example: Example, number: int, knobs: Knobs) -> Tensor:
        """As in a run: metrics for the updates that are logged."""
        torch.set_float32_matmul_precision(self.matmul)
        watch = number % self.learner.compute.log_every_updates == 0
        losses = update_(self.learner, example, number, knobs, watch=watch).losses
        torch.set_float32_matmul_precision("highest")
        return losses


def paper(batch_size: int, micro_batch_size: int, *, precision: str, compile: bool = False) -> Params:
    """The paper's parameters in small batches."""
    params = load_params(PROJECT / "presets/paper.yaml")
    pretrain = {"batch_size": batch_size, "precision": precision}
    compute = {"micro_batch_size": micro_batch_size, "compile": compile}
    return params.model_copy(
        update={
            "pretrain": params.pretrain.model_copy(update=pretrain),
            "compute": params.compute.model_copy(update=compute),
        }
    )


def of_ours(batch_size: int, micro_batch_size: int) -> Params:
    """The fastest way on this device."""
    return paper(batch_size, micro_batch_size, precision=PRECISION, compile=ON_GPU)


def of_peer(batch_size: int, micro_batch_size: int) -> Params:
    return paper(batch_size, micro_batch_size, precision="float32")


def tiny(params: Params) -> Params:
    return params.model_copy(update={"model": params.model.model_copy(update={"size": "tiny"})})


def networks(params: Params, device: torch.device = DEVICE) -> Pretext:
    return new_pretext(params.logmel, params.model, params.pretrain).to(device)


def example(params: Params, number: int, device: torch.device = DEVICE) -> Example:
    generator = torch.Generator().manual_seed(number)
    frames, mels = params.pretrain.crop_frames, params.logmel.num_mels
    log_mel = torch.randn(params.pretrain.batch_size, frames, mels, generator=generator).transpose(1, 2)
    num_patches = frames // 16 * (mels // 16)
    split = random_split(len(log_mel), num_patches, params.model.mask_ratio, generator)
    return Example(log_mel.to(device), Split(*(index.to(device) for index in split)))


def knobs_of(params: Params, number: int) -> Knobs:
    """A step in the middle of the warm-up, so that weights move."""
    return knobs_at(number + 10_000, LASTING, params.pretrain)


def check() -> None:
    """Both do the same updates, on the CPU in float32."""
    cpu = torch.device("cpu")
    params = tiny(of_peer(6, 3))
    ours, plain = Ours(networks(params, cpu), params), Plain(networks(params, cpu), params)
    for number in range(4):
        same = example(params, number, cpu)
        expected = plain.update(same, number, knobs_of(params, number))
        found = ours.update(same, number, knobs_of(params, number))
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
    for (name, value), weight in zip(
        ours.learner.pretext.state_dict().items(), plain.pretext.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, weight, atol=1e-5, rtol=0, msg=name)


def settled(work: Callable[[], object]) -> None:
    work()
    if ON_GPU:
        torch.cuda.synchronize()


def updates_of(kind: type[Plain] | type[Ours], params: Params) -> Callable[[], None]:
    """A call does one update on a batch on the device; a first one is done already."""
    learner = kind(networks(params), params)
    batch = example(params, 0)
    numbers = itertools.count()

    def work() -> None:
        number = next(numbers)
        learner.update(batch, number, knobs_of(params, number))

    settled(work)
    return partial(settled, work)


def matrix_flops() -> float:
    """Floating-point operations a second of large products in our precision."""
    size = 8192 if ON_GPU else 2048
    left = torch.randn(size, size, device=DEVICE, dtype=getattr(torch, PRECISION))
    work = partial(settled, lambda: left @ left)
    work()
    return 2 * size**3 / seconds({"product": work}, 5)["product"]


def peak_megabytes(kind: type[Plain] | type[Ours], params: Params) -> float:
    """Peak memory of a process that does one update; on a CPU without the cost of imports."""
    found: float = fresh(_peak, kind, params).result
    return found


def _peak(kind: type[Plain] | type[Ours], params: Params) -> float:
    before = megabytes()
    updates_of(kind, params)
    return torch.cuda.max_memory_allocated() / 1e6 if ON_GPU else megabytes("VmHWM") - before


def largest_micro_batch(params: Params) -> int:
    """The largest batch that fits on the GPU, found by doubling."""
    size = 64
    while True:
        tried = params.model_copy(
            update={
                "pretrain": params.pretrain.model_copy(update={"batch_size": 2 * size}),
                "compute": params.compute.model_copy(update={"micro_batch_size": 2 * size}),
            }
        )
        ours = Ours(networks(tried), tried)
        for number in range(2):  # The first one makes the optimizer's moments.
            ours.update(example(tried, number), number, knobs_of(tried, number))
        if ours.learner.micro_batch_size != 2 * size:
            return size  # Memory ran out, and the update was done again in halves.
        torch.cuda.empty_cache()
        size *= 2


def watching(params: Params) -> float:
    """What the metrics of a logged update add to an average update, in percent of it."""
    learner = Ours(networks(params), params).learner
    same, knobs = example(params, 0), knobs_of(params, 1)

    def update(watch: bool) -> None:
        report = update_(learner, same, 1, knobs, watch=watch)
        if report.health is not None:
            report.health.values()

    works = {name: partial(settled, partial(update, name == "watched")) for name in ("watched", "not")}
    for work in works.values():
        work()
    found = seconds(works, 9 if ON_GPU else ROUNDS)
    return 100 * (found["watched"] / found["not"] - 1) / learner.compute.log_every_updates


def waiting(params: Params, num_updates: int) -> float:
    """Share of the time that a run waits for its shards, in percent."""
    with TemporaryDirectory() as name:
        feeding.make_clips(Path(name))
        crops = Crops([Path(name, "shards")], params.pretrain.crop_frames, "drop", seed=0)
        running = Run(Path(name, "work"), crops, params, "", this_process())
        learner = Learner(networks(params), params.pretrain, params.compute, this_process())
        reports = running.reports(learner, 0)
        next(reports).wait()
        started_s, waited_s = time.monotonic(), running.waited_s
        for report in itertools.islice(reports, num_updates):
            last = report
        last.wait()
        reports.close()
        return 100 * (running.waited_s - waited_s) / (time.monotonic() - started_s)


def measure() -> list[Claim]:
    check()
    # The paper's batch on a GPU; elsewhere one that takes seconds.
    ours = of_ours(2048, 256) if ON_GPU else of_ours(2, 2)
    peer = of_peer(256, 64) if ON_GPU else of_peer(2, 2)
    works = {"ours": updates_of(Ours, ours), "peer": updates_of(Plain, peer)}
    if PRECISION != "float32":
        works["ours, float32"] = updates_of(Ours, peer)
    found = seconds(works, ROUNDS)
    rate = ours.pretrain.batch_size / found["ours"]
    peer_rate = peer.pretrain.batch_size / found["peer"]
    flops = training_flops(networks(ours, torch.device("cpu")), ours.model.mask_ratio, classify=True).total
    way = "bfloat16, compiled" if ON_GPU else PRECISION
    plain = "plain eager float32"
    claims = [
        Claim(
            f"training step, paper's size, {way if name == 'ours' else 'float32, not compiled'}",
            "crops/s",
            params.pretrain.batch_size / found[name],
            plain,
            peer_rate,
            goal=1.0,
        )
        for name, params in (("ours", ours), ("ours, float32", peer))
        if name in found
    ]
    claims += [
        Claim(
            f"of it in {PRECISION}: share of what large matrix products reach",
            "%",
            100 * rate * flops / matrix_flops(),
        ),
        Claim("the paper's 604 M crops at this rate", "hours", CROPS_OF_THE_PAPER / rate / 3600),
        Claim("what metrics cost, of a step", "%", watching(ours), goal=1.0, less_is_better=True),
        Claim(
            "waiting for data, of a run",
            "%",
            waiting(ours, 20 if ON_GPU else 3),
            goal=3.0,
            less_is_better=True,
        ),
    ]
    many = 64 if ON_GPU else 8
    memory, plain_memory = (
        peak_megabytes(Ours, of_peer(many, many)),
        peak_megabytes(Plain, of_peer(many, many)),
    )
    lean = of_peer(many, many)
    lean = lean.model_copy(
        update={"compute": lean.compute.model_copy(update={"recompute_activations": True})}
    )
    peaks = {"": memory, ", activations recomputed": peak_megabytes(Ours, lean)}
    if PRECISION != "float32":
        peaks[f", in {PRECISION}"] = peak_megabytes(Ours, of_ours(many, many))
    for what, peak in peaks.items():
        claims.append(
            Claim(
                f"peak memory of a step on {many} crops{what}",
                "MB",
                peak,
                plain,
                plain_memory,
                goal=1.0,
                less_is_better=True,
            )
        )
    if ON_GPU:
        claims += on_data_sheet(torch.cuda.get_device_name(), ours, rate, flops)
        claims.append(Claim("largest micro-batch", "crops", largest_micro_batch(ours)))
    return claims


def on_data_sheet(device: str, params: Params, rate: float, flops: int) -> list[Claim]:
    """Claims about the speed of a GPU by its data sheet, if we know it: one goal in two units."""
    claims = []
    for part, gpu in GPUS.items():
        if part.upper() in device:
            peak = gpu.bfloat16_tflops * 1e12
            used, goal = rate * flops / peak, UTILISATION / 100 * peak / flops
            claims += [
                Claim("model FLOP utilisation, of the data sheet", "%", 100 * used, goal=UTILISATION),
                Claim("training step on one GPU", "crops/s", rate, goal=goal),
                Claim("what `matpac cost` expects of it", "crops/s", estimate(params, gpu).crops_per_s),
            ]
    return claims


if __name__ == "__main__":
    run(measure, __doc__)
