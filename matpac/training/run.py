"""corpus -> checkpoint: a pre-training run that survives whatever happens to its process."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch.optim import Optimizer

from matpac.files import WORK, exclusive, move_into_place
from matpac.model.masking import Split, random_split
from matpac.model.pretext import Pretext
from matpac.params import Params, digest
from matpac.progress import Progress
from matpac.shards.corpus import read_corpus
from matpac.shards.crops import Batch, Crops
from matpac.training.checkpoint import (
    Meta,
    Standard,
    new_pretext,
    read_meta,
    replace_state,
    resume_,
    save_checkpoint,
)
from matpac.training.health import complaint
from matpac.training.history import LivePlots, Row, read_history, row_of, write_history
from matpac.training.loop import Example, NonFinite, Report, new_optimizer, pretrain
from matpac.training.schedules import durations

BATCHES_AHEAD = 4


def pretrain_stage(root: Path, out: Path, params: Params, corpus: Path) -> None:
    """Pre-train on the shards that `corpus` names, below `root`, and move the result to `out`.

    A run that was cut off goes on from its last saved state, in mid-epoch, with the very batches it
    would have seen. Its state lies in a folder keyed by the digest of parameters and data, so a
    changed parameter starts a new run.
    """
    data = read_corpus(root, params.pretrain.datasets, corpus)
    key = digest(params.logmel, params.model, params.pretrain, data)
    work = WORK / "pretrain" / key
    crops = Crops(
        [root / name for name in params.pretrain.datasets],
        params.pretrain.crop_frames,
        params.pretrain.short_clips,
        params.pretrain.seed,
    )
    with exclusive(work):
        finished = Run(work, crops, params, digest(data)).to_the_end()
        LivePlots(finished / "dvclive", read_history(finished / "metrics.csv"))
        move_into_place(finished, out)
        shutil.rmtree(work)


class Run:
    """A run and its saved states: `work/update-<n>`, whole once they have that name."""

    def __init__(self, work: Path, crops: Crops, params: Params, data_digest: str) -> None:
        self.work, self.crops, self.params = work, crops, params
        self.data_digest = data_digest
        self.lasting = durations(crops.num_clips, params.pretrain)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def to_the_end(self) -> Path:
        """Train until the last update; return the folder of the finished checkpoint."""
        params = self.params.pretrain
        pretext = new_pretext(self.params.logmel, self.params.model, params).to(self.device)
        optimizer = new_optimizer(pretext, params)
        state, first, rows, spent_s = self._last_state(), 0, [], 0.0
        if state is not None:
            resume_(state, pretext, optimizer)
            meta = read_meta(state)
            first, spent_s = meta.update, meta.duration_s
            rows = read_history(state / "metrics.csv")
            say(f"Going on from update {first:,} of {self.lasting.total:,}.")
        if first == self.lasting.total and state is not None:
            return state

        started_s = time.monotonic() - spent_s
        saved_s = logged_s = time.monotonic()
        logged = first
        say(self._plan(pretext))
        live = LivePlots(self.work / "dvclive", rows)
        progress = Progress("pretrain", self.lasting.total, "updates", done=first)
        with stopping_softly() as stop:
            for report in self._updates(pretext, optimizer, first):
                done = report.update + 1
                last = done == self.lasting.total
                if report.update % params.log_every_updates == 0 or last:
                    crops = (done - logged) * params.batch_size
                    rate = crops / max(time.monotonic() - logged_s, 1e-9)
                    logged, logged_s = done, time.monotonic()
                    row = row_of(report, self.lasting.total / params.num_epochs, rate)
                    rows.append(row)
                    live.log(row)
                    self._warn_of_collapse(rows)
                progress.advance(note=note(rows[-1]))
                if last or stop or time.monotonic() - saved_s > params.save_every_s:
                    spent = time.monotonic() - started_s
                    state = self._save(pretext, optimizer, done, rows, spent, older=state)
                    saved_s = time.monotonic()
                if stop and not last:
                    say(f"Stopped after update {done:,}; the next run goes on from there.")
                    raise SystemExit(128 + stop[0])
        assert state is not None
        return state

    def _updates(self, pretext: Pretext, optimizer: Optimizer, first: int) -> Iterator[Report]:
        params = self.params.pretrain
        seen: list[Batch] = []
        batches = self.crops.stream(
            first * params.batch_size,
            params.batch_size,
            self.lasting.total - first,
            prefetch=BATCHES_AHEAD,
        )
        if params.compile and self.device.type == "cuda":
            pretext.compile()
        examples = self._examples(pretext, batches, first, seen)
        try:
            yield from pretrain(pretext, optimizer, examples, params, self.lasting, first_update=first)
        except NonFinite as error:
            ids = self.crops.ids(seen[-1].clips)
            raise SystemExit(
                f"Stopped before the weights moved: {error} on the batch of clips "
                f"{', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}. "
                f"Lower pretrain.peak_learning_rate, or look at these recordings."
            ) from error

    def _examples(
        self, pretext: Pretext, batches: Iterator[Batch], first: int, seen: list[Batch]
    ) -> Iterator[Example]:
        """Standardize on the device and draw the masks; both depend on the update only."""
        params = self.params.pretrain
        standard = self._standard()
        for update, batch in enumerate(batches, start=first):
            seen[:] = [batch]
            log_mel = torch.from_numpy(batch.log_mel).to(self.device, non_blocking=True)
            log_mel = (log_mel.float() - standard.mean) / standard.std
            generator = torch.Generator().manual_seed(mask_seed(params.seed, update))
            split = random_split(len(log_mel), pretext.num_patches, self.params.model.mask_ratio, generator)
            visible, masked = (index.to(self.device, non_blocking=True) for index in split)
            yield Example(log_mel.transpose(1, 2), Split(visible, masked))

    def _standard(self) -> Standard:
        return Standard(self.crops.statistics.mean, self.crops.statistics.std)

    def _last_state(self) -> Path | None:
        for partial in self.work.glob("*.partial"):
            shutil.rmtree(partial)
        states = sorted(self.work.glob("update-*"))
        for older in states[:-1]:
            shutil.rmtree(older)
        return states[-1] if states else None

    def _save(
        self,
        pretext: Pretext,
        optimizer: Optimizer,
        update: int,
        rows: list[Row],
        duration_s: float,
        *,
        older: Path | None,
    ) -> Path:
        folder = self.work / f"update-{update:09d}"
        partial = self.work / f"{folder.name}.partial"
        partial.mkdir(parents=True)
        meta = Meta(
            update=update,
            total_updates=self.lasting.total,
            num_clips=self.crops.num_clips,
            logmel=self.params.logmel,
            model=self.params.model,
            pretrain=self.params.pretrain,
            standard=self._standard(),
            data_digest=self.data_digest,
            git_revision=git_revision(),
            hardware=hardware(self.device),
            versions={name: version(name) for name in ("torch", "timm", "numpy")},
            duration_s=round(duration_s, 1),
        )
        write_history(partial / "metrics.csv", rows)
        save_checkpoint(partial, pretext, optimizer, meta)
        replace_state(folder, partial, older)
        return folder

    def _plan(self, pretext: Pretext) -> str:
        params = self.params.pretrain
        trained = sum(weight.numel() for weight in pretext.parameters() if weight.requires_grad)
        return (
            f"{trained / 1e6:.2f} M trained weights, {self.crops.num_clips:,} clips "
            f"({self.crops.num_dropped:,} too short and left out), "
            f"{self.lasting.total:,} updates of {params.batch_size} crops "
            f"of {params.crop_frames} frames, on {hardware(self.device)}."
        )

    def _warn_of_collapse(self, rows: list[Row]) -> None:
        """Say it once when it begins."""
        before, now = self._trouble(rows[-2:-1]), self._trouble(rows[-1:])
        if now and not before:
            say(f"WARNING: this run seems to collapse at update {rows[-1]['step']:,}: {now}.")

    def _trouble(self, rows: list[Row]) -> str | None:
        """Of the one row, if it is there; what the very first updates show does not count."""
        counted = [row for row in rows if row["step"] > self.lasting.total / 50]
        return complaint(counted[0], self.params.model.num_clusters) if counted else None


@contextmanager
def stopping_softly() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in a list instead of dying in the middle of an update."""
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def mask_seed(seed: int, update: int) -> int:
    """A seed of its own for the masks of every update, so that resuming needs no random state."""
    return int(np.random.SeedSequence([seed, update]).generate_state(1, np.uint64)[0] >> 1)


def note(row: Row) -> str:
    return (
        f"loss {row['loss']:.3f} (prediction {row['prediction_loss']:.3f}, "
        f"classification {row['classification_loss']:.3f}), {row['crops_per_s']:,.0f} crops/s"
    )


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def git_revision() -> str:
    """The commit of the working tree, with `+` where it was changed; empty outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
