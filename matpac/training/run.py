"""corpus -> checkpoint: a pre-training run that can be killed at any time and resumes."""

import functools
import os
import platform
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from jaxtyping import Float16
from numpy.typing import NDArray
from torch import Tensor

from matpac.devices import SLOW_BFLOAT16, is_bfloat16_slow
from matpac.digests import Digests, joined, write_digests
from matpac.files import WORK, exclusive, move_into_place, room_for, seal
from matpac.git import git_revision
from matpac.model.flops import training_flops
from matpac.model.masking import Mixing, Split, mixed, new_mixing, shares_of, split_by, whole_pairs
from matpac.model.pretext import Pretext
from matpac.params import Params, digest
from matpac.progress import printable, say
from matpac.shards.corpus import read_corpus
from matpac.shards.crops import Crops, Empty, ReusedMemory
from matpac.signal.mel import mel_filters
from matpac.threads import ahead
from matpac.training.history import History, LivePlots, read_history, write_history
from matpac.training.initial import begin_with_, recordings_of
from matpac.training.log import Log
from matpac.training.loop import Example, Learner, NonFinite, Report, pretrain
from matpac.training.online import OnlineProbe
from matpac.training.ranks import Ranks, all_ranks
from matpac.training.references import Comparison, Facts, compare, read_references
from matpac.training.schedules import durations_of
from matpac.weights.checkpoint import (
    SMALLEST_STD,
    Meta,
    Standard,
    new_pretext,
    read_meta,
    replace_state,
    resume_,
    save_checkpoint,
)
from matpac.weights.open import Weights, open_weights

BATCHES_AHEAD = 4

Batch = tuple[Float16[Tensor, "row frame mel"], Split, Mixing | None]
"""Log-mels as stored, which patches are masked, and how they are mixed, if they are. Rows are the clips of a
batch or, to be mixed, those of whole pairs."""


def pretrain_stage(
    root: Path, out: Path, params: Params, corpus: Path, check: Callable[[], None] = lambda: None
) -> None:
    """Pre-train on the shards below `root` that `corpus` names, and move the result to `out`.

    An interrupted run resumes from its last saved state, in mid-epoch and with the same batches, on
    any number of processes. Its state lies in a folder keyed by the digest of parameters, data and
    initial weights, so a changed parameter starts a new run.

    `check` is called before the result is moved, and may raise: then the next run finds it finished.
    """
    mel_filters(params.logmel)  # Every checkpoint holds it, so an error must come before the training.
    initial = None if params.pretrain.init is None else open_weights(params.pretrain.init)
    if initial is not None and not params.pretrain.num_epochs:
        with all_ranks() as ranks:
            if ranks.is_first:
                export_untrained(initial, out, params)
        return
    data = read_corpus(root, params.pretrain.datasets, params.online_datasets, corpus)
    init_digest = "" if initial is None else initial.digest
    key = digest(params.logmel, params.model, params.pretrain, data, init_digest)
    work = WORK / "pretrain" / key
    crops = Crops(
        [root / name for name in params.pretrain.datasets],
        params.pretrain.crop_frames,
        params.pretrain.short_clips,
        params.pretrain.seed,
    )
    with all_ranks() as ranks:
        online = online_probe(root, params, standard_of(crops, initial)) if ranks.is_first else None
        run = Run(work, crops, params, digest(data), ranks, initial=initial, online=online)
        if not ranks.is_first:
            run.finish()
            return
        # One lock for all runs, whatever their parameters: they write the same `out`.
        with exclusive(WORK / "pretrain", out):
            finished = run.finish()
            check()
            LivePlots(finished / "dvclive", read_history(finished))
            for left in finished.glob(".*.partial"):  # of a process that was killed here
                left.unlink()
            write_digests(finished, run.recordings)
            seal(finished)
            move_into_place(finished, out)
            shutil.rmtree(work)


def standard_of(crops: Crops, initial: Weights | None) -> Standard:
    """Statistics that came with the initial weights, else those of the data.

    Raises:
        ValueError: All values of the data are the same, as in nothing but digital silence.
    """
    if initial is not None:
        return initial.standard
    mean, std = crops.statistics.mean, crops.statistics.std
    if std < SMALLEST_STD:
        raise ValueError(
            f"pretrain.datasets: need sounds that differ, found log-mels that are all {mean:g} "
            f"(deviation {std:g}). Listen to the recordings, or reject silent ones (shards.reject)."
        )
    return Standard(mean=mean, std=std)


def online_probe(root: Path, params: Params, standard: Standard) -> OnlineProbe | None:
    """The probe on the shards that `online.dataset` names below `root`; None if it names none."""
    if params.online.dataset is None:
        return None
    return OnlineProbe(root / params.online.dataset, params.online, standard, params.pretrain.crop_frames)


def export_untrained(initial: Weights, out: Path, params: Params) -> None:
    """Write the initial weights to `out` as a checkpoint; other networks stay random."""
    work = WORK / "pretrain" / digest(params.logmel, params.model, params.pretrain, initial.digest)
    pretext = new_pretext(params.logmel, params.model, params.pretrain)
    begin_with_(pretext, initial, params.logmel)
    learned = recordings_of(initial)
    meta = Meta(
        update=0,
        total_updates=0,
        num_clips=0,
        logmel=params.logmel,
        model=params.model,
        pretrain=params.pretrain,
        standard=initial.standard,
        data_digest="",
        git_revision=git_revision(),
        hardware="",
        versions=versions(),
        duration_s=0.0,
        init_digest=initial.digest,
        num_recordings=learned.counts(),
        unknown_recordings=learned.unknown,
    )
    with exclusive(WORK / "pretrain", out):
        partial = work / "initial.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            with room_for(out):
                write_history(partial, History([], []))
                write_digests(partial, learned)
                save_checkpoint(partial, pretext, torch.optim.AdamW(pretext.parameters()), meta)
                move_into_place(partial, out)
        finally:
            shutil.rmtree(work)
    say(f"{out}: the weights of {initial.name}, not trained (pretrain.num_epochs is 0).")


class Run:
    """A run and its saved states in `work/update-<n>`; a folder of that name is complete.

    Each process that trains has its own `Run`; the first one logs and saves for all.
    """

    def __init__(
        self,
        work: Path,
        crops: Crops,
        params: Params,
        data_digest: str,
        ranks: Ranks,
        *,
        initial: Weights | None = None,
        online: OnlineProbe | None = None,
    ) -> None:
        """Raises ValueError if there are too few clips, or fewer in a batch than processes."""
        self.work, self.crops, self.params, self.ranks = work, crops, params, ranks
        self.data_digest, self.initial, self.online = data_digest, initial, online
        self.standard = standard_of(crops, initial)
        self.durations = durations_of(crops.num_clips, params.pretrain)
        self.waited_s = 0.0
        if params.pretrain.batch_size < ranks.number:
            raise ValueError(
                f"pretrain.batch_size: need at least one clip for each of {ranks.number} processes, "
                f"got {params.pretrain.batch_size}"
            )

    @functools.cached_property
    def recordings(self) -> Digests:
        """What the finished run and its initial weights have learned from."""
        samples = range(self.durations.total * self.params.pretrain.batch_size)
        ours = self.crops.recordings(len(whole_pairs(samples) if self.params.pretrain.mixup else samples))
        return ours if self.initial is None else joined([ours, recordings_of(self.initial)])

    def finish(self) -> Path:
        """Train to the last update; return the folder of the finished checkpoint."""
        learner = self._learner()
        state: Path | None = self.ranks.agree(self._last_state() if self.ranks.is_first else None)
        first, spent_s, history = 0, 0.0, History([], [])
        if state is not None:
            first, spent_s, history = self._resume_(learner, state)
            if first == self.durations.total:
                return state

        started_s = time.monotonic() - spent_s
        saved_s = time.monotonic()
        self._say(self._plan(learner.pretext))
        if self.params.pretrain.precision == "bfloat16" and is_bfloat16_slow(self.ranks.device):
            self._say(f"pretrain.precision: {SLOW_BFLOAT16}. Set float32 here.")
        log = self._log(learner.pretext, history, first) if self.ranks.is_first else None
        before: Report | None = None
        with catch_stop_signals() as signals:
            for report in self.reports(learner, first, lambda: bool(signals)):
                done = report.update + 1
                last = done == self.durations.total
                # All ranks stop one update after the first of them was asked to.
                stop = before is not None and before.wait()
                before = report
                if log is not None:
                    log.add_update(report, self.waited_s)
                    if self.online is not None and (
                        last or report.update % self.params.online.every_updates == 0
                    ):
                        report.wait()
                        log.add_online(self.online.evaluate(learner.pretext, report.update))
                    if last or stop or time.monotonic() - saved_s > self.params.compute.save_every_s:
                        report.wait()
                        log.make_row()
                        spent = time.monotonic() - started_s
                        state = self._save(learner, done, history, spent, older=state)
                        saved_s = time.monotonic()
                if stop and not last:
                    self._say(f"Stopped after update {done:,}; the next run goes on from there.")
                    raise SystemExit(128 + (signals or [signal.SIGTERM])[0])
        return self.work / state_name(self.durations.total)

    def _learner(self) -> Learner:
        """Networks with the weights that the run begins with, and their optimizer."""
        params = self.params.pretrain
        if params.precision == "bfloat16":
            # The head's last product stays in float32; give it ten bits of mantissa.
            torch.set_float32_matmul_precision("high")
        pretext = new_pretext(self.params.logmel, self.params.model, params)
        if self.initial is not None:
            begin_with_(pretext, self.initial, self.params.logmel)
        pretext.to(self.ranks.device)
        return Learner(pretext, params, self.params.compute, self.ranks)

    def _resume_(self, learner: Learner, state: Path) -> tuple[int, float, History]:
        """Restore the learner from `state`; return updates done, seconds spent and rows logged.

        Raises:
            ValueError: The state is damaged; the error says how the run begins again without it.
        """
        try:
            meta, history = read_meta(state), read_history(state)
            resume_(state, learner.pretext, learner.optimizer)
        except ValueError as error:
            raise ValueError(
                f"{error} To begin the run again from its start: rm -r {shlex.quote(str(state))}"
            ) from None
        if meta.online != self.params.online:
            history = history._replace(online=[])
        self._say(f"Going on from update {meta.update:,} of {self.durations.total:,}.")
        return meta.update, meta.duration_s, history

    def reports(
        self, learner: Learner, first: int, is_stopping: Callable[[], bool] = lambda: False
    ) -> Iterator[Report]:
        """Train from update `first` on. Raises SystemExit if loss or gradient is not finite."""
        size = self.params.pretrain.batch_size
        examples = self.examples(range(first, self.durations.total), learner.pretext.num_patches)
        most_clips = learner.micro_batch_size
        try:
            for report in pretrain(
                learner, examples, self.durations, first_update=first, is_stopping=is_stopping
            ):
                if learner.micro_batch_size != most_clips:
                    self._say_most_clips(learner, report.update, is_first=most_clips is None)
                    most_clips = learner.micro_batch_size
                yield report
        except NonFinite as error:
            ids = self.crops.ids(self.crops.clips(error.update * size, size))
            shown = printable(", ".join(ids[:8]))
            raise SystemExit(
                f"Stopped: need finite loss and gradient, found {error} on the batch of clips "
                f"{shown}{' ...' if len(ids) > 8 else ''}. The last saved state is sound. "
                f"Lower pretrain.peak_learning_rate, or check these recordings."
            ) from error

    def _say_most_clips(self, learner: Learner, update: int, *, is_first: bool) -> None:
        now, device = learner.micro_batch_size, self.ranks.device
        if not is_first:
            # Said by each rank for itself: the others may have more memory.
            say(
                f"{device}: memory ran out at update {update:,}. It was done again, and the run goes on, "
                f"in micro-batches of {now:,} crops."
            )
        elif device.type == "cuda":
            self._say(f"Micro-batches of {now:,} crops.")

    def examples(self, updates: Iterable[int], num_patches: int) -> Iterator[Example]:
        """Read batches ahead in a thread; move them to the device and standardize them there."""
        device, standard = self.ranks.device, self.standard
        empty = pinned if device.type == "cuda" else ReusedMemory()
        reads = (functools.partial(self.read, update, num_patches, empty) for update in updates)
        for stored, split, mixing in self._timed(ahead(reads, BATCHES_AHEAD + 1, num_threads=1)):
            log_mel = stored.to(device, non_blocking=True).float()
            if mixing is not None:
                log_mel = mixed(log_mel, Mixing(*(part.to(device, non_blocking=True) for part in mixing)))
            log_mel = (log_mel - standard.mean) / standard.std
            visible, masked = (index.to(device, non_blocking=True) for index in split)
            yield Example(log_mel.transpose(1, 2), Split(visible, masked))

    def read(self, update: int, num_patches: int, empty: Empty) -> Batch:
        """Log-mels and masks of this rank's part of a batch, in pinned memory if it goes to a GPU.

        Masks and shares of mixtures depend on the seed and the update only.
        """
        params = self.params.pretrain
        part = self.ranks.part(params.batch_size)
        first = update * params.batch_size
        samples = range(first + part.start, first + part.stop)
        rows = whole_pairs(samples) if params.mixup else samples
        log_mel, _ = self.crops.batch(rows.start, len(rows), empty)
        generator = torch.Generator().manual_seed(mask_seed(params.seed, update))
        # Drawn for the whole batch, so that each clip's mask is the same on any number of ranks.
        noise = torch.rand(params.batch_size, num_patches, generator=generator)[part]
        split, mixing = split_by(noise, self.params.model.mask_ratio), None
        if params.mixup:
            mixing = new_mixing(samples, shares_of(params.batch_size, params.mixup, generator)[part])
        if self.ranks.device.type == "cuda":
            split = Split(*(index.pin_memory() for index in split))
            mixing = mixing and Mixing(*(values.pin_memory() for values in mixing))
        return torch.from_numpy(log_mel), split, mixing

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; `waited_s` adds up how long training waited for them."""
        while True:
            started_s = time.monotonic()
            batch = next(batches, None)
            self.waited_s += time.monotonic() - started_s
            if batch is None:
                return
            yield batch

    def _last_state(self) -> Path | None:
        for partial in self.work.glob("*.partial"):
            shutil.rmtree(partial)
        states = sorted(self.work.glob("update-*"))
        for older in states[:-1]:
            shutil.rmtree(older)
        return states[-1] if states else None

    def _save(
        self,
        learner: Learner,
        update: int,
        history: History,
        duration_s: float,
        *,
        older: Path | None,
    ) -> Path:
        folder = self.work / state_name(update)
        partial = self.work / f"{folder.name}.partial"
        partial.mkdir(parents=True)
        learned = self.recordings if update == self.durations.total else None
        meta = Meta(
            update=update,
            total_updates=self.durations.total,
            num_clips=self.crops.num_clips,
            logmel=self.params.logmel,
            model=self.params.model,
            pretrain=self.params.pretrain,
            standard=self.standard,
            data_digest=self.data_digest,
            git_revision=git_revision(),
            hardware=hardware(self.ranks),
            versions=versions(),
            duration_s=round(duration_s, 1),
            online=self.params.online,
            init_digest="" if self.initial is None else self.initial.digest,
            num_recordings=None if learned is None else learned.counts(),
            unknown_recordings=() if learned is None else learned.unknown,
        )
        try:
            with room_for(folder):
                write_history(partial, history)
                save_checkpoint(partial, learner.pretext, learner.optimizer, meta)
                replace_state(folder, partial, older)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def _plan(self, pretext: Pretext) -> str:
        params = self.params.pretrain
        trained = sum(weight.numel() for weight in pretext.parameters() if weight.requires_grad)
        return (
            f"{trained / 1e6:.2f} M trained weights, {self.crops.num_clips:,} clips "
            f"({self.crops.num_dropped:,} too short and left out), "
            f"{self.durations.total:,} updates of {params.batch_size} crops "
            f"of {params.crop_frames} frames, on {hardware(self.ranks)}."
        )

    def _log(self, pretext: Pretext, history: History, first: int) -> Log:
        params = self.params
        flops = training_flops(pretext, params.model.mask_ratio, classify=params.pretrain.classifies)
        return Log(
            history,
            params,
            self.durations,
            LivePlots(self.work / "dvclive", history),
            flops_per_crop=flops.total / self.ranks.number,
            first_update=first,
            comparison=self._comparison(),
        )

    def _comparison(self) -> Comparison | None:
        """The run laid over reference curves; says which, or why there are none."""
        params = self.params
        facts = Facts(
            logmel=params.logmel,
            model=params.model,
            pretrain=params.pretrain,
            online=params.online,
            num_clips=self.crops.num_clips,
            mean=self.standard.mean,
            std=self.standard.std,
        )
        found = compare(facts, read_references())
        if isinstance(found, str):
            say(found)
            return None
        say(found.introduce())
        return found

    def _say(self, line: str) -> None:
        if self.ranks.is_first:
            say(line)


@contextmanager
def catch_stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in a list, so that the run can save before it stops."""
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
    """Seed for the masks of one update, so that resuming needs no random state."""
    return int(np.random.SeedSequence([seed, update]).generate_state(1, np.uint64)[0] >> 1)


def state_name(update: int) -> str:
    return f"update-{update:09d}"


def pinned(shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Memory from which the GPU copies while training goes on."""
    array: NDArray[np.float16] = torch.empty(shape, dtype=torch.float16, pin_memory=True).numpy()
    return array


def hardware(ranks: Ranks) -> str:
    if ranks.device.type == "cuda":
        return f"{ranks.number} x {torch.cuda.get_device_name(ranks.device)}"
    processes = f"{ranks.number} processes, " if ranks.number > 1 else ""
    return f"{processes}{os.cpu_count()} CPU cores ({platform.machine()})"


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "timm", "numpy")}
