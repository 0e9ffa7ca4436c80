"""waveform -> logits, probabilities and events, with an encoder and a head."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from huggingface_hub import ModelCard
from jaxtyping import Float, Float32, Int
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from matpac.classifier.calibration import DEFAULT_THRESHOLD, probabilities_of
from matpac.classifier.card import model_card
from matpac.classifier.distances import distances
from matpac.classifier.events import Event, events_of, smoothed
from matpac.classifier.heads import (
    AttentiveHead,
    Head,
    LinearHead,
    logits_of_clip,
    logits_of_steps,
    new_head,
)
from matpac.classifier.saved import (
    DESCRIPTION,
    FILES,
    REFERENCES,
    Description,
    read_classifier_tensors,
    read_description,
    write_classifier,
)
from matpac.encoder.encoder import AudioEncoder, load_encoder
from matpac.encoder.inputs import Rates, clips_of, rates_of
from matpac.encoder.published import Published
from matpac.model.sizes import PATCH
from matpac.params import Channels, Pooling
from matpac.weights.pretrained import CONFIG, WEIGHTS

WINDOW_MS = 800.0
"""Time around a step whose logits are averaged, by default: single steps are too short to be sure."""

Pieces = Iterable[tuple[int, NDArray[np.floating]]]
"""Number of the clip, and some of its log-mel `[frame, mel]`, as `AudioEncoder.embed_pieces` takes them."""


class Answer(NamedTuple):
    """What a classifier says of a clip."""

    probabilities: Float32[np.ndarray, " class"]
    unlike: float
    """How unlike the training data it is, as `Classifier.unlike` says; NaN without references."""


class Heard(NamedTuple):
    """A clip over time, before anything is decided."""

    logits: Float32[np.ndarray, "step class"]
    unlike: float


class InTime(NamedTuple):
    """What a classifier says of a clip over time."""

    probabilities: Float32[np.ndarray, "step class"]
    centers_ms: Float32[np.ndarray, " step"]
    """The middle of each step in ms."""
    events: list[Event]
    """Classes at or above their thresholds, with onset and offset in s, in order of time."""


class Classifier(nn.Module, Published):
    """An encoder with a trained head, and all that is needed to apply and to judge it.

    `matpac.load_classifier` opens one, `save_pretrained`, `from_pretrained` and `push_to_hub` work as those
    of `matpac.AudioEncoder`. `classifier(waveform)` gives logits with gradients;
    `predict` and `predict_in_time` give probabilities as NumPy arrays.
    """

    references: Tensor | None
    _files: ClassVar[tuple[str, ...]] = (*FILES, CONFIG, WEIGHTS)

    def __init__(
        self,
        encoder: AudioEncoder,
        head: Head,
        *,
        classes: Sequence[str],
        multi_label: bool,
        temperature: float = 1.0,
        thresholds: Float[np.ndarray, " class"] | None = None,
        references: Float[Tensor, "reference dim"] | None = None,
        usual_distance: float | None = None,
        channels: Channels = "mean",
        scores: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            encoder: Encoder, which brings front end, device and precision.
            head: Embeddings over time -> logits.
            classes: Names, in the order of the logits.
            multi_label: Whether a clip can have several classes.
            temperature: Divides the logits (`matpac.classifier.calibration`).
            thresholds: Lowest probability at which each class counts as heard; 0.5 by default.
            references: Embeddings of training clips (`matpac.classifier.distances`).
            usual_distance: Distance to them that is usual for held-out clips.
            channels: What becomes of several channels of a file.
            scores: What was measured on clips that were held out, as JSON can hold it.
            origin: Dataset, checkpoint and training, as JSON can hold them.
        """
        super().__init__()
        self.encoder, self.head = encoder, head.to(encoder.device)
        self.classes, self.multi_label = tuple(classes), multi_label
        self.temperature = temperature
        if thresholds is None:
            thresholds = np.full(len(self.classes), DEFAULT_THRESHOLD)
        self.thresholds = thresholds.astype(np.float32)
        self.register_buffer("references", None if references is None else references.to(encoder.device))
        self.usual_distance, self.channels = usual_distance, channels
        self.scores, self.origin = dict(scores or {}), dict(origin or {})
        self.eval()

    def forward(
        self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch class"]:
        """Logits of clips, before the temperature; gradients reach the waveform and all weights.

        Args:
            waveform: Clips `[batch, time]` as floats in -1 to 1, at `encoder.sample_rate` and on the
                device of the classifier.
            lengths: Samples of each clip `[batch]`, for clips of several lengths.

        Returns:
            Logits `[batch, class]`.
        """
        encoded = self.encoder(waveform, lengths)
        logits: Tensor = self.head(encoded.steps, encoded.mask)
        return logits

    def predict(self, waveform: ArrayLike | Sequence[ArrayLike], sample_rate: Rates) -> NDArray[np.float32]:
        """Probabilities of all classes for each clip.

        Args:
            waveform: Clips, as for `AudioEncoder.embed`: `[time]`, `[clip, time]`,
                `[clip, channel, time]`, or a list of clips of any lengths.
            sample_rate: Rate in Hz, one for all clips or a list with one for each.

        Returns:
            `[clip, class]`, in the order of `classes`. They sum to 1 unless `multi_label`.

        Raises:
            ValueError: The input is refused, as by `AudioEncoder.embed`.
        """
        answers = self.answers(enumerate(self._log_mels(waveform, sample_rate)))
        return np.stack([answer.probabilities for _, answer in answers])

    def unlike(self, waveform: ArrayLike | Sequence[ArrayLike], sample_rate: Rates) -> NDArray[np.float32]:
        """How unlike the training data each clip is.

        Args:
            waveform: Clips, as for `predict`.
            sample_rate: Rate in Hz, as for `predict`.

        Returns:
            `[clip]`: distance to the nearest training clips, divided by the distance that 99 % of
            held-out clips stay below. Above 1, do not trust the probabilities.

        Raises:
            ValueError: The input is refused, or the classifier keeps no reference embeddings.
        """
        if self.references is None:
            raise ValueError("unlike: need reference embeddings, this classifier keeps none. Fit it again.")
        answers = self.answers(enumerate(self._log_mels(waveform, sample_rate)))
        return np.array([answer.unlike for _, answer in answers], dtype=np.float32)

    def predict_in_time(
        self,
        waveform: ArrayLike | Sequence[ArrayLike],
        sample_rate: Rates,
        *,
        window_ms: float = WINDOW_MS,
    ) -> list[InTime]:
        """Probabilities and events over time, one step every 16 frames (160 ms in the paper).

        Args:
            waveform: Clips, as for `predict`.
            sample_rate: Rate in Hz, as for `predict`.
            window_ms: Time around each step whose logits are averaged; 0 averages none. A head that reads
                deviations takes them from seven steps (1.1 s) for each.

        Returns:
            For each clip, probabilities `[step, class]`, times `[step]` and events.

        Raises:
            ValueError: The input is refused, as by `AudioEncoder.embed`.
        """
        log_mels = list(self._log_mels(waveform, sample_rate))
        return [
            self.in_time(heard.logits, self.duration_s(len(log_mel)), window_ms)
            for log_mel, (_, heard) in zip(log_mels, self.heard(enumerate(log_mels)), strict=True)
        ]

    def answers(self, pieces: Pieces) -> Iterator[tuple[int, Answer]]:
        """Answers for log-mels, by the numbers of their clips.

        Log-mels are rounded to float16, as those in shards are that a probe learns from. A linear head
        reads a clip's moments, so memory does not grow with its length; an attentive one reads all steps.
        """
        found = self.encoder.embed_pieces(
            _rounded(pieces), in_time=isinstance(self.head, AttentiveHead), pooling=self._pooling
        )
        for number, parts in groupby(found, itemgetter(0)):
            rows = np.concatenate([part for _, part in parts])
            if isinstance(self.head, AttentiveHead):
                logits, pooled = self._logits(rows, logits_of_clip)[None], rows.mean(0)
            else:
                logits, pooled = self._logits(rows, LinearHead.of_pooled), rows[0]
            probabilities = probabilities_of(logits, self.temperature, multi_label=self.multi_label)
            yield number, Answer(probabilities[0], self._unlike(pooled))

    def heard(self, pieces: Pieces) -> Iterator[tuple[int, Heard]]:
        """Logits of every step of log-mels, by the numbers of their clips.

        A head that reads deviations looks at neighbors, so all steps of a clip are held in memory.
        """
        found = self.encoder.embed_pieces(_rounded(pieces), in_time=True)
        for number, parts in groupby(found, itemgetter(0)):
            of_clip: Iterable[NDArray[np.float32]] = (part for _, part in parts)
            if self._pooling != "mean":
                steps = np.concatenate(list(of_clip))
                moments = np.concatenate([steps.mean(0), steps.std(0)])
                yield number, Heard(self._logits(steps, logits_of_steps), self._unlike(moments))
                continue
            logits, total = [], np.zeros(self.encoder.dim)
            for steps in of_clip:
                logits.append(self._logits(steps, logits_of_steps))
                total += steps.sum(0)
            whole = np.concatenate(logits)
            yield number, Heard(whole, self._unlike((total / len(whole)).astype(np.float32)))

    def in_time(
        self, logits: Float32[np.ndarray, "step class"], duration_s: float, window_ms: float = WINDOW_MS
    ) -> InTime:
        """Probabilities and events of a clip, from the logits of its steps."""
        step_s = PATCH * self.encoder.logmel.hop_samples / self.encoder.logmel.sample_rate_hz
        half = max(0, round((window_ms / (1000 * step_s) - 1) / 2))
        probabilities = probabilities_of(
            smoothed(logits, half), self.temperature, multi_label=self.multi_label
        )
        events = events_of(
            probabilities,
            self.classes,
            self.thresholds,
            multi_label=self.multi_label,
            step_s=step_s,
            duration_s=duration_s,
        )
        return InTime(probabilities, self.encoder.step_centers_ms(len(logits)), events)

    def generate_model_card(self, **about: Any) -> ModelCard:  # noqa: ANN401 - as the mixin has it
        """Write the model card; `about` may hold `license`, `scores` and `repo_id`."""
        return ModelCard(model_card(self._description(), self.encoder.facts(), **about))

    def _save_pretrained(self, save_directory: Path) -> None:
        self.encoder._save_pretrained(save_directory)
        write_classifier(save_directory, self._description(), self._tensors())

    @classmethod
    def _opened(cls, folder: Path, device: str | None) -> "Classifier":
        return load_classifier(folder, device)

    def digest(self) -> str:
        """SHA-256 of all that a folder of this classifier holds."""
        found = hashlib.sha256(self._description().model_dump_json().encode())
        for name, value in self._tensors().items():
            found.update(name.encode())
            found.update(value.numpy().tobytes())
        return found.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()}
        if self.references is not None:
            tensors[REFERENCES] = self.references.half().cpu().contiguous()
        return tensors

    @property
    def _pooling(self) -> Pooling:
        """What the head, and the references, know of a clip's steps."""
        return self.head.pooling if isinstance(self.head, LinearHead) else "mean"

    def _description(self) -> Description:
        return Description(
            head="attentive" if isinstance(self.head, AttentiveHead) else "linear",
            pooling=self._pooling,
            classes=self.classes,
            multi_label=self.multi_label,
            temperature=self.temperature,
            thresholds=tuple(self.thresholds.tolist()),
            usual_distance=self.usual_distance,
            precision=self.encoder.precision,
            channels=self.channels,
            encoder=self.encoder.digest(),
            scores=self.scores,
            origin=self.origin,
        )

    def _log_mels(
        self, waveform: ArrayLike | Sequence[ArrayLike], sample_rate: Rates
    ) -> Iterator[NDArray[np.float32]]:
        clips = clips_of(waveform)
        rates_hz = rates_of(sample_rate, len(clips))
        return (self.encoder.log_mel(clip, rate_hz) for clip, rate_hz in zip(clips, rates_hz, strict=True))

    def duration_s(self, num_frames: int) -> float:
        """Time that the frames of a log-mel hear, in s."""
        logmel = self.encoder.logmel
        return ((num_frames - 1) * logmel.hop_samples + logmel.window_samples) / logmel.sample_rate_hz

    @torch.inference_mode()
    def _logits(self, steps: Float32[np.ndarray, "step dim"], read: Any) -> NDArray[np.float32]:  # noqa: ANN401
        if isinstance(self.head, AttentiveHead):
            # As stores hold the steps that attentive probes learn from.
            steps = steps.astype(np.float16).astype(np.float32)
        logits: NDArray[np.float32] = read(self.head, self._on_device(steps)).float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def _unlike(self, pooled: Float32[np.ndarray, " dim"]) -> float:
        if self.references is None or self.usual_distance is None:
            return float("nan")
        found = distances(self._on_device(pooled[None]), self.head, self.references)
        return float(found[0]) / self.usual_distance

    def _on_device(self, values: NDArray[np.float32]) -> Tensor:
        """As the head needs them, which may have been cast."""
        return torch.from_numpy(values).to(self.encoder.device, self.head.weight.dtype)


def load_classifier(path: str | Path, device: str | None = None) -> Classifier:
    """Open a folder of `save_pretrained`; `matpac.load_classifier` describes arguments and errors."""
    folder = Path(path)
    description = read_description(folder)
    encoder = load_encoder(folder, device, precision=description.precision)
    if (found := encoder.digest()) != description.encoder:
        raise ValueError(
            f"{folder / DESCRIPTION}: encoder: need the encoder that the head was trained with "
            f"({description.encoder[:8]}...), found another ({found[:8]}...). Get a whole copy of the folder."
        )
    tensors = read_classifier_tensors(folder, description, encoder.dim)
    references = tensors.pop(REFERENCES, None)
    return Classifier(
        encoder,
        new_head(description.head, tensors, description.pooling),
        classes=description.classes,
        multi_label=description.multi_label,
        temperature=description.temperature,
        thresholds=np.array(description.thresholds),
        references=references,
        usual_distance=description.usual_distance,
        channels=description.channels,
        scores=description.scores,
        origin=description.origin,
    )


def _rounded(pieces: Pieces) -> Iterator[tuple[int, NDArray[np.float16]]]:
    return ((number, log_mel.astype(np.float16)) for number, log_mel in pieces)
