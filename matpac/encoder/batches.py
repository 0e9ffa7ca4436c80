"""log-mels -> batches of chunks of equal length -> outputs by clip, computed ahead of the caller.

A window of clips is cut into chunks; those of equal length share batches, so no padding enters a
mean. A CPU computes as many batches at once as it has cores, each in a thread of its own: see
`matpac.devices.workers`. For a GPU one thread fills batches and starts their work without waiting
for it, while the caller reads the next window.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matpac.devices import num_workers, workers
from matpac.model.sizes import PATCH
from matpac.threads import in_order

CLIPS_AT_ONCE, FRAMES_AT_ONCE = 256, 256_000
"""A window ends at this many clips or frames, whichever comes first: it bounds the memory. The chunks of its
clips are sorted by length into common batches."""
BATCHES_AHEAD = 16
"""Batches that are started and not yet taken: a window of the usual batches and as many again."""
LEAST_BATCHES = 8
"""The chunks of a short window are spread over this many batches on a CPU, so that no core idles."""
WIDE = 384
"""Encoders of this width gain if cores share in an operation, where there are fewer chunks than cores."""


class Output(NamedTuple):
    """Results for a batch of chunks, or for the chunks of one clip."""

    sums: Tensor
    """Sums over the steps `[chunk, layer, 1, dim]`; of one clip `[layer, chunk, dim]`."""
    squares: Tensor
    """Of the differences between steps and the chunk's mean, summed like `sums`; none unless asked for."""
    steps: Tensor
    """Steps `[chunk, layer, step, dim]`, of one clip `[layer, step, dim]`; none unless asked for."""
    ready: "torch.cuda.Event | None" = None
    """Passed once the GPU has copied the results; None on a CPU."""


Chunk = NDArray[np.floating]
Forward = Callable[[Sequence[Chunk]], Output]


class Window:
    """Clips that are embedded together, as chunks in batches of `batch_size` at most."""

    def __init__(
        self, clips: Sequence[Chunk], chunk_frames: int, batch_size: int, device: torch.device
    ) -> None:
        self.clips = clips
        self.chunks = [
            (clip, whole[first : first + chunk_frames])
            for clip, whole in enumerate(clips)
            for first in range(0, len(whole), chunk_frames)
        ]
        if device.type == "cpu":
            batch_size = min(batch_size, math.ceil(len(self.chunks) / LEAST_BATCHES))
        by_length: dict[int, list[int]] = {}
        for position, (_, chunk) in enumerate(self.chunks):
            by_length.setdefault(num_patches(len(chunk)), []).append(position)
        self.batches = [
            positions[first : first + batch_size]
            for positions in by_length.values()
            for first in range(0, len(positions), batch_size)
        ]
        self.outputs: list[Output] = []
        """Outputs of the first batches."""

    @property
    def whole(self) -> bool:
        return len(self.outputs) == len(self.batches)

    def jobs(self, forward: Forward) -> Iterator[Callable[[], Output]]:
        for batch in self.batches:
            yield partial(forward, [self.chunks[position][1] for position in batch])

    def by_clip(self) -> Iterator[tuple[Chunk, Output]]:
        """Each clip and its output, once the window is whole."""
        nothing = torch.empty(0)
        of_chunks: list[tuple[Tensor, Tensor, Tensor]] = [(nothing, nothing, nothing)] * len(self.chunks)
        for batch, output in zip(self.batches, self.outputs, strict=True):
            if output.ready is not None:
                output.ready.synchronize()
            kinds = output.sums, output.squares, output.steps
            for position, of_chunk in zip(batch, zip(*kinds, strict=True), strict=True):
                of_chunks[position] = of_chunk
        of_clips: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in self.clips]
        for (clip, _), of_chunk in zip(self.chunks, of_chunks, strict=True):
            of_clips[clip].append(of_chunk)
        for log_mel, parts in zip(self.clips, of_clips, strict=True):
            sums, squares, steps = (torch.cat(kind, dim=1) for kind in zip(*parts, strict=True))
            yield log_mel, Output(sums, squares, steps)


def outputs_of(
    windows: Iterable[Window], forward: Forward, device: torch.device, *, wide: bool
) -> Iterator[tuple[Chunk, Output]]:
    """Each clip and its output, in order. Windows are read up to `BATCHES_AHEAD` batches ahead.

    A clip's bits depend on neither the other clips nor the number of cores.

    Args:
        windows: Clips in batches.
        forward: Output of a batch of chunks; called in other threads.
        device: Device that `forward` computes on.
        wide: Whether cores should share in the operations of a first window of few chunks.
    """
    rest = iter(windows)
    first = next(rest, None)
    if first is None:
        return
    cores = num_workers(device)
    if device.type == "cpu" and wide and len(first.chunks) < cores:
        first.outputs = [job() for job in first.jobs(forward)]
        yield from first.by_clip()
        yield from outputs_of(rest, forward, device, wide=wide)
        return
    begun: deque[Window] = deque()

    def jobs() -> Iterator[Callable[[], Output]]:
        for window in chain([first], rest):
            begun.append(window)
            yield from window.jobs(forward)

    with workers(cores) as pool, closing(in_order(jobs(), BATCHES_AHEAD + cores, pool)) as outputs:
        for output in outputs:
            begun[0].outputs.append(output)
            if begun[0].whole:
                yield from begun.popleft().by_clip()


def num_patches(num_frames: int) -> int:
    """Patches in time; the last one may be filled in part."""
    return math.ceil(num_frames / PATCH)


def num_steps_of(num_frames: int, chunk_frames: int) -> list[int]:
    """Steps of each chunk of a clip."""
    return [
        num_patches(min(chunk_frames, num_frames - first)) for first in range(0, num_frames, chunk_frames)
    ]


def mean_of(sums: NDArray[np.float32], num_steps: Sequence[int]) -> NDArray[np.float32]:
    """Mean over all steps `[layer, dim]`, from the sums of chunks `[layer, chunk, dim]`."""
    mean: NDArray[np.float32] = sums.sum(axis=1) / sum(num_steps)
    return mean


def deviation_of(
    sums: NDArray[np.float32], squares: NDArray[np.float32], num_steps: Sequence[int]
) -> NDArray[np.float32]:
    """Standard deviation over all steps `[layer, dim]`, from `Output.sums` and `.squares` of chunks.

    Nothing large is subtracted from anything large: Chan, Golub, LeVeque: "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979.
    """
    lengths = np.array(num_steps, dtype=np.float32)[:, None]
    apart = sums / lengths - mean_of(sums, num_steps)[:, None]
    variance = (squares + lengths * np.square(apart)).sum(axis=1) / sum(num_steps)
    deviation: NDArray[np.float32] = np.sqrt(variance)
    return deviation


def windows_of(log_mels: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    window: list[Chunk] = []
    num_frames = 0
    for clip in log_mels:
        window.append(clip)
        num_frames += len(clip)
        if len(window) == CLIPS_AT_ONCE or num_frames >= FRAMES_AT_ONCE:
            yield window
            window, num_frames = [], 0
    if window:
        yield window
