"""embeddings over time <-> ragged arrays in the store of embeddings.

`<feature>_steps` [step, dim] holds the steps of all clips one after another, in float16.
`<feature>_num_steps` [clip] holds the number of steps of each clip. The steps are split into files
of many chunks (Zarr's sharding), uncompressed, so the steps of a clip are one or two runs of bytes.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from jaxtyping import Bool, Float16, Float32, Int64

from matpac.shards.zarr import ZarrFrames, first_frames

STEPS_PER_CHUNK = 128
STEPS_PER_FILE = 64 * STEPS_PER_CHUNK
"""Steps that writing holds in memory: 60 MiB with the paper's 3,840 dimensions."""


class StepWriter:
    """Adds the steps of clips, one by one, to a store; its bytes depend on the values only."""

    def __init__(self, group: zarr.Group, feature: str) -> None:
        self._group, self._feature = group, feature
        self._waiting: list[Float16[np.ndarray, "step dim"]] = []
        self._num_waiting = 0
        self._num_steps: list[int] = []
        self._array: zarr.Array[Any] | None = None

    def append(self, steps: Float32[np.ndarray, "step dim"], clip: str) -> None:
        """Raises ValueError naming the clip if a value is not finite or too large for float16."""
        with np.errstate(over="ignore"):
            rounded = steps.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise ValueError(
                f"embed.over_time: {self._feature}: need finite steps of at most 65,504 (float16), "
                f"got {np.abs(steps).max():,.6g} for clip {clip}. Set it to false."
            )
        self._num_steps.append(len(rounded))
        self._waiting.append(rounded)
        self._num_waiting += len(rounded)
        while self._num_waiting >= STEPS_PER_FILE:
            self._write(STEPS_PER_FILE)

    def close(self) -> None:
        """Write the remaining steps; writes nothing if no clip was added."""
        if not self._num_steps:
            return
        self._write(self._num_waiting)
        self._group.create_array(
            f"{self._feature}_num_steps",
            data=np.array(self._num_steps, dtype=np.int64),
            chunks=(len(self._num_steps),),
            compressors=None,
            dimension_names=["clip"],
        )

    def _write(self, num_steps: int) -> None:
        waiting = np.concatenate(self._waiting)
        if self._array is None:
            dim = waiting.shape[1]
            self._array = self._group.create_array(
                f"{self._feature}_steps",
                shape=(0, dim),
                dtype=np.float16,
                chunks=(STEPS_PER_CHUNK, dim),
                shards=(STEPS_PER_FILE, dim),
                compressors=None,
                dimension_names=[f"{self._feature}_step", f"{self._feature}_dim"],
                # Otherwise a chunk of zeros is left out, and later chunks move up.
                config={"write_empty_chunks": True},
            )
        self._array.append(waiting[:num_steps])
        self._waiting, self._num_waiting = [waiting[num_steps:]], len(waiting) - num_steps


class Steps:
    """Embeddings over time in a store, read clip by clip because they may exceed memory."""

    def __init__(self, folder: Path, feature: str) -> None:
        """Raises ValueError if the store has no steps of this feature."""
        try:
            num_steps = cast("zarr.Array[Any]", zarr.open_group(folder, mode="r")[f"{feature}_num_steps"])
        except KeyError:
            raise ValueError(
                f"{folder}: need embeddings over time ({feature}_steps), found none. "
                "Set embed.over_time: true and run `dvc repro`."
            ) from None
        self.num_steps: Int64[np.ndarray, " clip"] = cast(np.ndarray, num_steps[...])
        self._rows = ZarrFrames(folder, first_frames(self.num_steps)[:-1], f"{feature}_steps")

    @property
    def dim(self) -> int:
        return int(self._rows.width)

    def padded(
        self, clips: Int64[np.ndarray, " chosen"]
    ) -> tuple[Float16[np.ndarray, "chosen step dim"], Bool[np.ndarray, "chosen step"]]:
        """Steps of the clips, padded with zeros, and a mask that is False for padding."""
        num_steps = self.num_steps[clips]
        present = np.arange(num_steps.max()) < num_steps[:, None]
        steps = np.empty((*present.shape, self.dim), dtype=np.float16)
        steps[~present] = 0
        places = np.arange(len(clips)) * steps.strides[0]
        runs = self._rows.runs(clips, np.zeros_like(num_steps), num_steps, places)
        self._rows.files.read(steps, runs)
        return steps, present
