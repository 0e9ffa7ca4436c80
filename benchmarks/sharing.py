"""A CPU shared with others: the tiny model's work at rest, and beside one busy process.

The busy process counts in Python, at the same priority. Each contestant is a program that starts
once and waits; it is then told in turn to work for a few seconds and to say how much it did. Peer:
one process whose threads share in every operation, as torch does by default.
"""

import argparse
import itertools
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import probing as probes
from benchmarks.claims import Claim, run
from benchmarks.embedding import untrained
from matpac.devices import available_cores
from matpac.encoder.batches import CLIPS_AT_ONCE
from matpac.model.masking import random_split
from matpac.params import load_params
from matpac.probing import linear
from matpac.probing.linear import fit_probes
from matpac.training.loop import Example, Learner, update_
from matpac.training.ranks import Ranks, all_ranks
from matpac.training.schedules import Durations, knobs_at
from matpac.weights.checkpoint import new_pretext

PROJECT = Path(__file__).resolve().parent.parent
ROUNDS, WINDOW_S = 3, 3.0
LASTING = Durations(total=100_000, warmup=1000, teacher_temperature=1000)


class Contestant:
    """Processes that do one kind of work together whenever they are told to."""

    def __init__(self, work: str, number: int, threads: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": str(threads)}
        shared |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.sharing", "--work", work],
                cwd=PROJECT,
                env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(number)
        ]

    def wait(self) -> None:
        """Until all processes are warm."""
        for process in self.processes:
            answer_of(process)

    def rate(self) -> float:
        """Work done a second, by all processes."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return sum(answer_of(process) for process in self.processes)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def answer_of(process: "subprocess.Popen[str]") -> float:
    assert process.stdout is not None
    return float(process.stdout.readline())


@contextmanager
def busy() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def measure() -> list[Claim]:
    cores = available_cores()
    return [
        *compared(
            "training, tiny model",
            "crops/s",
            f"{cores} processes",
            ("training", cores, 1),
            ("training", 1, cores),
        ),
        *compared(
            "embedding, tiny model",
            "clips/s",
            f"{cores} workers",
            ("embedding", 1, cores),
            ("embedding_in_threads", 1, cores),
        ),
        *compared(
            "linear probes, 3,840 features",
            "epochs/s",
            f"{cores} workers",
            ("probing", 1, cores),
            ("probing_in_threads", 1, cores),
        ),
    ]


def compared(
    work: str, unit: str, way: str, ours: tuple[str, int, int], theirs: tuple[str, int, int]
) -> list[Claim]:
    """Claims for `work` done in our way and by torch's threads.

    `ours` and `theirs` name a function of WORKS, a number of processes, and the threads of each.
    """
    rates: dict[tuple[str, bool], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        contestants = {"ours": Contestant(*ours), "theirs": Contestant(*theirs)}
        for contestant in contestants.values():
            stack.callback(contestant.close)
        for contestant in contestants.values():
            contestant.wait()
        for _ in range(ROUNDS):
            for name, contestant in contestants.items():
                rates[name, False].append(contestant.rate())
            with busy():
                for name, contestant in contestants.items():
                    rates[name, True].append(contestant.rate())
    found = {key: statistics.median(values) for key, values in rates.items()}
    peer, what = f"{theirs[2]} threads", f"{work}, {way}"
    return [
        Claim(f"{what}, at rest", unit, found["ours", False], peer, found["theirs", False], goal=1.0),
        Claim(
            f"{what}, beside a busy process", unit, found["ours", True], peer, found["theirs", True], goal=1.0
        ),
        Claim(
            f"{work}: what a busy process leaves of {way}",
            "%",
            100 * found["ours", True] / found["ours", False],
            goal=55,
        ),
        Claim(
            f"{work}: what a busy process leaves of {peer}",
            "%",
            100 * found["theirs", True] / found["theirs", False],
        ),
    ]


def training(ranks: Ranks) -> Callable[[], int]:
    """A call does five updates, since agreeing on the time is no part of the work.

    It returns this rank's crops.
    """
    params = load_params(PROJECT / "presets/demo.yaml")
    pretext = new_pretext(params.logmel, params.model, params.pretrain)
    learner = Learner(pretext, params.pretrain, params.compute, ranks)
    part = ranks.part(params.pretrain.batch_size)
    size = part.stop - part.start
    generator = torch.Generator().manual_seed(ranks.rank)
    log_mel = torch.randn(size, params.logmel.num_mels, params.pretrain.crop_frames, generator=generator)
    example = Example(log_mel, random_split(size, pretext.num_patches, params.model.mask_ratio, generator))
    numbers = itertools.count(1)

    def updates() -> int:
        for number in itertools.islice(numbers, 5):
            watch = number % params.compute.log_every_updates == 0
            update_(learner, example, number, knobs_at(number, LASTING, params.pretrain), watch=watch)
        return 5 * size

    return updates


def embedding(_: Ranks) -> Callable[[], int]:
    """A call embeds two windows of clips as long as the demo's; it returns their number."""
    encoder, log_mels = untrained("tiny"), demo_clips(2 * CLIPS_AT_ONCE)
    return lambda: len(list(encoder.embed_log_mels(log_mels)))


def embedding_in_threads(_: Ranks) -> Callable[[], int]:
    """The same batches one after the other; threads share in every operation."""
    encoder, log_mels = untrained("tiny"), demo_clips(64)

    def embed() -> int:
        for first in range(0, len(log_mels), 32):
            encoder._forward(log_mels[first : first + 32], layers=False, squares=False, steps=False)
        return len(log_mels)

    return embed


def demo_clips(number: int) -> list[NDArray[np.float16]]:
    random = np.random.default_rng(0)
    return [random.normal(-7, 4, (208, 80)).astype(np.float16) for _ in range(number)]


def probing(_: Ranks) -> Callable[[], int]:
    """A call trains probes for two epochs; it returns the epochs of all."""
    data, params = probes.dataset(2000, 3840, 50, distance=8), probes.params(2, 5, 1e-3)
    labels = torch.nn.functional.one_hot(data.classes).float()

    def train() -> int:
        found = fit_probes(
            data.features, labels, torch.ones_like(labels), data.folds, params, multi_label=False
        )
        return sum(len(fit.train_losses) for fit in found)

    return train


def probing_in_threads(ranks: Ranks) -> Callable[[], int]:
    """The same stacks one after the other; threads share in every operation."""
    patch.object(linear, "workers", lambda _: ThreadPoolExecutor(1)).start()
    return probing(ranks)


WORKS: dict[str, Callable[[Ranks], Callable[[], int]]] = {
    work.__name__: work for work in (training, embedding, embedding_in_threads, probing, probing_in_threads)
}


def take_part(work: str, orders: IO[str], answers: IO[str]) -> None:
    """The process of a contestant: ready, then one answer an order."""
    with all_ranks() as ranks:
        step = WORKS[work](ranks)
        for _ in range(2):
            step()
        answers.write("0\n")
        answers.flush()
        for _ in orders:
            started, done = time.monotonic(), 0
            # The first rank's clock decides for all when the window ends.
            while ranks.agree(time.monotonic() - started < WINDOW_S):
                done += step()
            answers.write(f"{done / (time.monotonic() - started)}\n")
            answers.flush()


if __name__ == "__main__":
    if "--work" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--work", choices=WORKS)
        take_part(parser.parse_args().work, sys.stdin, sys.stdout)
    else:
        run(measure, __doc__)
