"""embeddings of a dataset -> a classifier: its probe, trained on all clips once its score is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from matpac.classifier.calibration import calibrated
from matpac.classifier.classifier import Classifier
from matpac.classifier.distances import distances, references_of, usual_distance
from matpac.classifier.heads import Head, Kind, new_head
from matpac.classifier.saved import score_in_words
from matpac.encoder.encoder import AudioEncoder, load_encoder
from matpac.params import Channels, Pooling, Precision, Probe
from matpac.probing.attentive import check_heads, fit_attentive_probes
from matpac.probing.folds import Fold, folds_of
from matpac.probing.heard import heard_in_words
from matpac.probing.held_out import num_epochs_of, scores_of, truth_of
from matpac.probing.linear import fit_probes
from matpac.probing.probe import count_spared
from matpac.probing.scores import Fit
from matpac.probing.steps import Steps
from matpac.probing.store import EmbeddedClips, read_clips, read_feature
from matpac.progress import Progress
from matpac.weights.open import open_checkpoint

READ = "pretrained"
"""Feature of the store that classifiers read."""
NUM_HEADS = 4
"""Heads of an attentive probe if `probe.attentive` names none; they divide every encoder's dimensions."""
NOTHING = np.array([], dtype=np.int64)


@dataclass(frozen=True)
class HeldOut:
    """A dataset's probes, each trained without its test clips."""

    encoder: AudioEncoder
    clips: EmbeddedClips
    folds: list[Fold]
    params: Probe
    num_heads: int | None
    """Heads of attentive probes; None for linear ones."""
    channels: Channels
    inputs: Tensor | Steps
    """What the probes read."""
    pooled: Float32[Tensor, "clip dim"]
    """What linear probes read, deviations included if `probe.pooling` has them; means for attentive ones."""
    fits: list[Fit]
    """Repeats first, then folds."""

    def classifier(self, fits: Sequence[Fit], head: Head, references: Tensor, **about: Any) -> Classifier:  # noqa: ANN401
        """A classifier with the calibration of some of the fits, from their validation clips only."""
        labels, observed = self.truth(fits, "validation")
        logits = np.concatenate([fit.validation_logits for fit in fits])
        found = calibrated(logits, labels, observed, multi_label=self.clips.task.multi_label)
        # Repeats of a fold have the same distances.
        apart = [self._distances(fit) for fit in fits if fit.repeat == fits[0].repeat]
        return Classifier(
            self.encoder,
            head,
            classes=self.clips.task.classes,
            multi_label=self.clips.task.multi_label,
            temperature=found.temperature,
            thresholds=found.thresholds,
            references=references,
            usual_distance=usual_distance(np.concatenate(apart)),
            channels=self.channels,
            **about,
        )

    def classifier_of(self, fit: Fit) -> Classifier:
        """The classifier of one fit, which has not seen its test clips in any way."""
        return self.classifier([fit], self.head(fit), self._references(fit))

    def head(self, fit: Fit) -> Head:
        kind: Kind = "linear" if self.num_heads is None else "attentive"
        # Copied, since a classifier may be trained further.
        tensors = {name: torch.from_numpy(values.copy()) for name, values in fit.head.items()}
        return new_head(kind, tensors, self.params.pooling)

    def truth(
        self, fits: Sequence[Fit], part: str
    ) -> tuple[UInt8[np.ndarray, "chosen class"], UInt8[np.ndarray, "chosen class"]]:
        """Labels, and which of them were observed, of the validation or test clips of some fits."""
        return truth_of(fits, self.clips, self.folds, part)

    def scores(self) -> dict[str, Any]:
        """What the probes scored on their test clips, as `matpac probe` measures it."""
        return scores_of(self.fits, self.clips, self.folds)

    def on_all_clips(self, on_epoch: Callable[[], object] = lambda: None) -> Classifier:
        """Train on all labelled clips, for the epochs that the held-out runs found best."""
        everything = np.unique(np.concatenate(self.folds[0]))
        epochs = self.num_epochs
        changes = {"num_repeats": 1, "max_epochs": epochs, "patience_epochs": epochs}
        [fit] = trained(
            self.inputs,
            self.clips,
            [Fold(everything, NOTHING, NOTHING)],
            self.params.model_copy(update=changes),
            self.num_heads,
            self.pooled.device,
            on_epoch,
        )
        head = self.head(fit).to(self.pooled.device)
        unread = {"datasets", "knn", "attentive", "score_on", *({"pooling"} if self.num_heads else {})}
        probe = self.params.model_dump(mode="json", exclude=unread)
        return self.classifier(
            self.fits,
            head,
            references_of(self.pooled[everything], head, np.random.default_rng(self.params.seed)),
            scores=self.scores(),
            origin={
                "dataset": self.clips.dataset,
                "trained": "attentive probe" if self.num_heads else "linear probe",
                "num_clips": len(everything),
                "num_epochs": epochs,
                "checkpoint": self.clips.checkpoint,
                "probe": probe | ({"num_heads": self.num_heads} if self.num_heads else {}),
            },
        )

    @property
    def num_epochs(self) -> int:
        """Median of the best epochs of the held-out runs."""
        return num_epochs_of(self.fits)

    def _references(self, fit: Fit) -> Tensor:
        random = np.random.default_rng([self.params.seed, fit.fold])
        head = self.head(fit).to(self.pooled.device)
        return references_of(self.pooled[self.folds[fit.fold].train], head, random)

    def _distances(self, fit: Fit) -> Float[np.ndarray, " validation"]:
        """Distances of a fit's validation clips to its training clips."""
        head = self.head(fit).to(self.pooled.device)
        held_out = self.pooled[self.folds[fit.fold].validation]
        return distances(held_out, head, self._references(fit)).cpu().numpy()


def held_out(
    embeddings: Path,
    checkpoint: str | Path,
    params: Probe,
    *,
    num_heads: int | None = None,
    precision: Precision = "float32",
    channels: Channels = "mean",
    on_epoch: Callable[[], object] = lambda: None,
) -> HeldOut:
    """Train the probes of a dataset as `matpac.probing.probe` does, and keep what it throws away.

    Scores are on test clips whatever `params.score_on` says: a classifier is a result.

    Args:
        embeddings: Store of embeddings, data/embeddings/<dataset>.
        checkpoint: Checkpoint of the encoder that made them.
        params: Section `probe`.
        num_heads: Heads of attentive probes; None for linear ones.
        precision: `embed.precision` of the store.
        channels: `shards.channels` of the recordings.
        on_epoch: Called after each epoch.

    Raises:
        ValueError: There is no such store, it cannot be probed, it is of another checkpoint, or it holds
            no embeddings over time for attentive probes.
    """
    clips = read_clips(embeddings)
    folds = folds_of(clips)
    found = open_checkpoint(Path(checkpoint)).digest
    if found != clips.checkpoint:
        raise ValueError(
            f"{embeddings}: need embeddings of the encoder in {checkpoint} ({found[:8]}...), "
            f"found those of another ({clips.checkpoint[:8]}...). Run `dvc repro embed@{clips.dataset}`."
        )
    encoder = load_encoder(checkpoint, precision=precision)
    pooling: Pooling = params.pooling if num_heads is None else "mean"
    pooled = torch.from_numpy(read_feature(embeddings, READ, pooling=pooling)).to(encoder.device)
    inputs: Tensor | Steps = pooled
    if num_heads is not None:
        inputs = Steps(embeddings, READ)
        check_heads(inputs, num_heads)
    fits = trained(inputs, clips, folds, params, num_heads, encoder.device, on_epoch)
    return HeldOut(encoder, clips, folds, params, num_heads, channels, inputs, pooled, fits)


def trained(
    inputs: Tensor | Steps,
    clips: EmbeddedClips,
    folds: Sequence[Fold],
    params: Probe,
    num_heads: int | None,
    device: torch.device,
    on_epoch: Callable[[], object],
) -> list[Fit]:
    labels, observed = (
        torch.from_numpy(values).to(device, torch.float32) for values in (clips.labels, clips.observed)
    )
    about = labels, observed, folds, params
    multi_label = clips.task.multi_label
    if isinstance(inputs, Steps):
        assert num_heads is not None
        return fit_attentive_probes(inputs, *about, num_heads, multi_label=multi_label, on_epoch=on_epoch)
    return fit_probes(inputs, *about, multi_label=multi_label, on_epoch=on_epoch)


def fit(
    embeddings: Path,
    checkpoint: str | Path,
    params: Probe,
    *,
    num_heads: int | None = None,
    precision: Precision = "float32",
    channels: Channels = "mean",
) -> Classifier:
    """Measure a dataset's probes on held-out clips, then train one on all clips.

    Arguments and errors are those of `held_out`.
    """
    name = embeddings.name
    progress = Progress(f"fit {name}, held-out clips", params.max_epochs, "epochs at most")
    found = held_out(
        embeddings,
        checkpoint,
        params,
        num_heads=num_heads,
        precision=precision,
        channels=channels,
        on_epoch=progress.advance,
    )
    count_spared(progress, found.fits, params)
    progress = Progress(f"fit {name}, all clips", found.num_epochs, "epochs")
    return found.on_all_clips(progress.advance)


def summary_of_fit(classifier: Classifier) -> str:
    """One line for people."""
    origin, error = classifier.origin, classifier.scores["calibration_error"]
    said = (
        f"{len(classifier.classes)} classes, {score_in_words(classifier.scores)} on held-out clips; "
        f"calibration error {100 * error['before']:.1f} -> {100 * error['after']:.1f} %; "
        f"{origin['trained']} trained on all {origin['num_clips']:,} clips for {origin['num_epochs']} epochs"
    )
    return ". ".join([said, *heard_in_words({origin["dataset"]: classifier.scores.get("heard")})])
