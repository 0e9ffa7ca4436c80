"""gradients of all ranks -> their mean, on every rank."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import torch
from torch import nn

from matpac.progress import size
from matpac.training.ranks import Ranks

IN_MEMORY = Path("/dev/shm")
"""Files here never reach a disk (Linux). Containers often allow 64 MB."""


class SharedGradients:
    """Averages gradients through memory that the ranks of one machine share.

    Every rank writes its gradients there, averages its part of all, and reads the whole mean. Each
    element is computed once, so all ranks get the same bits.
    """

    def __init__(self, weights: Sequence[nn.Parameter], ranks: Ranks) -> None:
        """All ranks make one together, with the same weights in the same order."""
        self._weights, self._ranks = weights, ranks
        self._sizes = [weight.numel() for weight in weights]
        rows, columns = ranks.number + 1, sum(self._sizes)
        name = ranks.agree(str(shared_file(rows, 4 * columns)) if ranks.is_first else "")
        memory = torch.from_file(name, shared=True, size=rows * columns, dtype=torch.float32)
        self._gradients, self._mean = memory.view(rows, columns).split([ranks.number, 1])
        ranks.wait()
        if ranks.is_first:
            # The memory lives on until the last process that maps it ends, however it ends.
            Path(name).unlink()

    def average_(self) -> None:
        """Replace the gradients of the weights by their mean over the ranks."""
        gradients = [weight.grad.flatten() for weight in self._weights if weight.grad is not None]
        torch.cat(gradients, out=self._gradients[self._ranks.rank])
        self._ranks.wait()
        mine = self._ranks.part(self._mean.shape[1])
        torch.mean(self._gradients[:, mine], dim=0, keepdim=True, out=self._mean[:, mine])
        self._ranks.wait()
        # A copy, which clipping may change.
        means = self._mean[0].clone().split(self._sizes)
        for weight, mean in zip(self._weights, means, strict=True):
            weight.grad = mean.view_as(weight)


def shared_file(num_rows: int, row_bytes: int) -> Path:
    """A new file of zeros, in memory if there is room for it. Raises OSError if there is none."""
    folders = [IN_MEMORY, Path(tempfile.gettempdir())]
    for folder in folders:
        path = folder / f"matpac-gradients-{uuid4().hex}"
        try:
            with path.open("xb") as file:
                # Zeros take room now; mapped memory without any would end the process later.
                for _ in range(num_rows):
                    file.write(bytes(row_bytes))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            return path
    raise OSError(
        f"need {size(num_rows * row_bytes)} to share gradients, found less in "
        f"{' and '.join(map(str, folders))}. Set compute.num_processes: 1, or TMPDIR."
    )
