"""gradients of all ranks -> their mean, on every rank."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch
from torch import nn

from matpac.progress import size
from matpac.training.ranks import Ranks

IN_MEMORY = Path("/dev/shm")
"""Files here never reach a disk (Linux). Containers often allow 64 MB."""
OPEN_FILES = Path("/proc/self/fd")
"""Through such folders, Linux opens files of other processes that have no name."""


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
        file = shared_file(rows, 4 * columns) if ranks.is_first else None
        path = ranks.agree("" if file is None else path_of(file))
        memory = torch.from_file(path, shared=True, size=rows * columns, dtype=torch.float32)
        self._gradients, self._mean = memory.view(rows, columns).split([ranks.number, 1])
        ranks.wait()
        if file is not None:
            # The memory lives on until the last process that maps it ends, however it ends.
            file.close()

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


def shared_file(num_rows: int, row_bytes: int) -> IO[bytes]:
    """Open a new file of zeros, in memory if there is room for it. Raises OSError if there is none.

    On Linux the file has no name, so none is left behind if this process is killed while it waits
    for the other ranks.
    """
    new = tempfile.TemporaryFile if OPEN_FILES.exists() else tempfile.NamedTemporaryFile
    folders = [IN_MEMORY, Path(tempfile.gettempdir())]
    for folder in folders:
        try:
            file = new(prefix="matpac-gradients-", dir=folder)
        except OSError:
            continue
        try:
            # Zeros take room now; mapped memory without any would end the process later.
            for _ in range(num_rows):
                file.write(bytes(row_bytes))
            file.flush()
        except OSError:
            file.close()
        else:
            return file
    raise OSError(
        f"need {size(num_rows * row_bytes)} to share gradients, found less in "
        f"{' and '.join(map(str, folders))}. Set compute.num_processes: 1, or TMPDIR."
    )


def path_of(file: IO[bytes]) -> str:
    """Path under which other processes of this user open a file that `shared_file` has opened."""
    return f"/proc/{os.getpid()}/fd/{file.fileno()}" if OPEN_FILES.exists() else file.name
