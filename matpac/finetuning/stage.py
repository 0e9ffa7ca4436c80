"""all folds and repeats -> scores, and a classifier trained on all labelled clips.

Fits are independent, so ranks share them: each takes the next one that nobody holds the lock of. A
finished fit is kept in a file, an unfinished one goes on from its saved state.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64

from matpac.classifier.calibration import calibrated
from matpac.classifier.classifier import Classifier
from matpac.classifier.distances import distances, references_of, usual_distance
from matpac.digests import Digests, joined, write_digests
from matpac.encoder.encoder import AudioEncoder, load_encoder
from matpac.files import WORK, exclusive, locked, move_into_place, seal
from matpac.finetuning.fit import Learner, Plan, means_of, read_metadata, train_
from matpac.git import git_revision
from matpac.params import Params, digest
from matpac.probing.folds import Fold, folds_of
from matpac.probing.heard import say_heard
from matpac.probing.held_out import num_epochs_of, scores_of, truth_of
from matpac.probing.labelled import Labelled, open_labelled
from matpac.probing.scores import Fit, percent
from matpac.progress import say
from matpac.shards.corpus import fingerprint
from matpac.training.initial import recordings_of
from matpac.training.ranks import this_rank
from matpac.weights.open import open_checkpoint
from matpac.weights.tensors import read_tensors, write_tensors

FINISHED, STATE = ".safetensors", ".state.safetensors"


def finetune_stage(
    shards: Path, checkpoint: Path, out: Path, params: Params, check: Callable[[], None] = lambda: None
) -> None:
    """Fine-tune the encoder of `checkpoint` on a labelled dataset, and write a classifier to `out`.

    An interrupted run resumes. Its fits lie in a folder keyed by the digest of parameters, data and
    encoder, so a changed parameter starts a new run. `check` is called before the result is moved.

    Raises:
        ValueError: The dataset has no labels or cannot be divided, or shards or weights are not as they
            were written.
    """
    rank = this_rank()
    section = params.finetune
    encoder = load_encoder(checkpoint, str(rank.device), precision=section.precision)
    weights = open_checkpoint(checkpoint)
    labelled = open_labelled(shards, weights, "finetune.datasets")
    key = digest(section.model_dump(mode="json", exclude={"datasets"}), fingerprint(shards), weights.digest)
    run = Run(WORK / "finetune" / shards.name / key, labelled, encoder, params)
    if not rank.is_first:
        run.take_free_fits()
        return
    with exclusive(run.work.parent, out):
        run.take_free_fits()
        fits = run.all_fits()
        scores = scores_of(fits, labelled.clips, run.folds)
        say(f"{shards.name}: {percent(scores)} {scores['metric']}, {scores['protocol']}.")
        say_heard(labelled.clips)
        classifier = run.classifier(fits, scores)
        write_digests(run.work, joined([recordings_of(weights), run.recordings()]))
        classifier.encoder.learned_from = run.work
        finished = run.work / "classifier"
        shutil.rmtree(finished, ignore_errors=True)
        classifier.save_pretrained(finished)
        check()
        seal(finished)
        move_into_place(finished, out)
        shutil.rmtree(run.work)


class Run:
    """All fits on one dataset."""

    def __init__(self, work: Path, labelled: Labelled, encoder: AudioEncoder, params: Params) -> None:
        self.work, self.labelled, self.encoder = work, labelled, encoder
        self.params, self.save_every_s = params.finetune, params.compute.save_every_s
        self.channels = params.shards.channels
        self.folds = folds_of(labelled.clips)
        self.plans = self._plans()

    def _plans(self) -> list[Plan]:
        """Repeats first, then folds."""
        params, name, number = self.params, self.labelled.clips.dataset, len(self.folds)
        return [
            Plan(
                f"repeat-{repeat + 1}-fold-{index + 1}",
                f"finetune {name}, repeat {repeat + 1} of {params.num_repeats}"
                + (f", fold {index + 1} of {number}" if number > 1 else ""),
                fold,
                (params.seed, repeat, index),
                params.num_epochs,
            )
            for repeat in range(params.num_repeats)
            for index, fold in enumerate(self.folds)
        ]

    @cached_property
    def means(self) -> Float32[np.ndarray, "clip dim"]:
        """Embeddings of all clips by the encoder as it was."""
        return means_of(self.encoder, self.labelled, np.arange(len(self.labelled.clips.ids)))

    def take_free_fits(self) -> None:
        """Do each fit that is neither finished nor held by another process."""
        for plan in self.plans:
            self._do(plan, wait=False)

    def all_fits(self) -> list[Fit]:
        """Results of all fits, once the other processes have finished theirs."""
        fits = []
        for plan in self.plans:
            # If its process has died meanwhile, the fit is done here.
            self._do(plan, wait=True)
            fits.append(read_fit(self.work / f"{plan.name}{FINISHED}"))
        return fits

    def _do(self, plan: Plan, *, wait: bool) -> None:
        finished, lock = self.work / f"{plan.name}{FINISHED}", self.work / f"{plan.name}.lock"
        if finished.exists():
            return
        with locked(lock) as held:
            if held is not None:
                self._finish(plan, finished)
                return
        if wait:
            say(f"{plan.title}: waiting for the process that does it.")
            with locked(lock, wait=True):
                self._finish(plan, finished)

    def _finish(self, plan: Plan, finished: Path) -> None:
        if not finished.exists():
            write_fit(finished, self._trained(plan))
            self._state(plan).unlink(missing_ok=True)

    def _trained(self, plan: Plan) -> Learner:
        learner = Learner(plan, self.labelled, deepcopy(self.encoder), self.means, self.params)
        train_(learner, self._state(plan), self.save_every_s)
        return learner

    def _state(self, plan: Plan) -> Path:
        return self.work / f"{plan.name}{STATE}"

    def used(self) -> Int64[np.ndarray, " used"]:
        """Numbers of the clips that are in any fold: the last fit trains on all of them."""
        return np.unique(np.concatenate([np.concatenate(fold) for fold in self.folds]))

    def recordings(self) -> Digests:
        """What the last fit learns from."""
        return self.labelled.folder.recordings(self.labelled.chosen[self.used()])

    def classifier(self, fits: Sequence[Fit], scores: dict[str, Any]) -> Classifier:
        """Encoder and head trained on all clips, as long as the middle fit took to its best epoch.

        Temperature and thresholds come from validation clips, which every fold's model had not seen.
        """
        clips, task = self.labelled.clips, self.labelled.clips.task
        num_epochs = num_epochs_of(fits)
        nothing, used = np.arange(0), self.used()
        seeds = (self.params.seed, self.params.num_repeats, 0)
        title = f"finetune {clips.dataset}, all clips"
        learner = self._trained(Plan("all", title, Fold(used, nothing, nothing), seeds, num_epochs))
        logits = np.concatenate([fit.validation_logits for fit in fits])
        truth = truth_of(fits, clips, self.folds, "validation")
        calibration = calibrated(logits, *truth, multi_label=task.multi_label)
        means = torch.from_numpy(means_of(learner.encoder, self.labelled, used))
        head = learner.head.cpu()
        return Classifier(
            learner.encoder.eval(),
            head,
            classes=task.classes,
            multi_label=task.multi_label,
            temperature=calibration.temperature,
            thresholds=calibration.thresholds,
            references=references_of(means, head, np.random.default_rng(seeds)),
            usual_distance=usual_distance(held_out_distances(self.work, self.plans)),
            channels=self.channels,
            scores=scores | {"best_epochs": [fit.best_epoch for fit in fits]},
            origin={
                "dataset": clips.dataset,
                "trained": "encoder and head, together",
                "num_clips": len(used),
                "num_epochs": num_epochs,
                "checkpoint": clips.checkpoint,
                "finetune": self.params.model_dump(mode="json", exclude={"datasets"}),
                "git_revision": git_revision(),
            },
        )


def write_fit(path: Path, learner: Learner) -> None:
    """Answers of a finished fit, as one file."""
    fold, history = learner.plan.fold, learner.history
    train_means = means_of(learner.encoder, learner.labelled, fold.train)
    validation_means, validation_logits = learner.answers(fold.validation)
    _, test_logits = learner.answers(fold.test)
    head = deepcopy(learner.head).cpu()
    references = references_of(torch.from_numpy(train_means), head, np.random.default_rng(learner.plan.seeds))
    tensors = {
        "validation_logits": torch.from_numpy(validation_logits),
        "test_logits": torch.from_numpy(test_logits),
        "distances": distances(torch.from_numpy(validation_means), head, references),
    }
    _, repeat, index = learner.plan.seeds
    known = {
        "repeat": repeat,
        "fold": index,
        "train_losses": history.train_losses,
        "validation_losses": history.validation_losses,
        "best_epoch": history.best_epoch,
    }
    write_tensors(path, tensors, {"fit": json.dumps(known)})


def read_fit(path: Path) -> Fit:
    tensors = read_tensors(path)
    return Fit(
        **read_metadata(path, "fit"),
        head={},
        validation_logits=tensors["validation_logits"].numpy(),
        test_logits=tensors["test_logits"].numpy(),
    )


def held_out_distances(work: Path, plans: Sequence[Plan]) -> Float32[np.ndarray, " clip"]:
    """Distances of validation clips to the training clips of their fold."""
    found = [read_tensors(work / f"{plan.name}{FINISHED}")["distances"].numpy() for plan in plans]
    return np.concatenate(found)
