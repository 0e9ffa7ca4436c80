"""params.yaml -> typed, checked, frozen parameters.

Every number of a run stands once in params.yaml, and its meaning stands here. Loading refuses a
wrong key, unit, range or combination, in one line that names the key, what was needed and what was
found. DVC reads the same file by itself, so only what both read alike is read at all.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from matpac.files import read_json

Read = TypeVar("Read")

PUBLIC_KINDS = tuple(
    module.name for module in iter_modules([str(Path(__file__).with_name("datasets") / "public")])
)
"""The public datasets: every file of datasets/public is one. Listed here, imported by the
registry."""
WITH_MORE_KEYS = {"audioset", "magnatagatune"}
"""Public datasets whose sections have keys besides `source`, or another meaning of it."""
WITH_SEVERAL_LABELS = {"audioset", "fsd50k", "magnatagatune", "openmic"}
"""Public datasets whose clips may have several labels. Their pages say so too, but only the registry
imports those."""
if TYPE_CHECKING:
    PublicKind = str
else:
    PublicKind = Literal[*(kind for kind in PUBLIC_KINDS if kind not in WITH_MORE_KEYS)]

PARAMS = Path("params.yaml")
PATCH = 16
"""Side of a patch: mel bands and frames."""
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]


Precision = Literal["float32", "bfloat16"]
ScoreOn = Literal["test", "validation"]
Pooling = Literal["mean", "mean_and_deviation"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Demo(Section):
    """Recordings synthesised from a seed, without a network. See
    matpac/datasets/demo/recipes.py."""

    kind: Literal["demo"]
    recipe: Literal["corpus", "melodies", "rhythms", "scenes"]
    """The sounds and the task on them; `corpus` has no labels."""
    num_clips: PositiveInt
    """Number of recordings."""
    seed: NonNegativeInt
    """Seed of the sounds: a recording follows from it and from its own number."""


class SplitFractions(Section):
    """Shares of the labelled clips. The rest is the train split."""

    validation: Annotated[float, Field(gt=0, lt=0.5)]
    """Share that decides when a probe stops training, between 0 and 0.5."""
    test: Annotated[float, Field(gt=0, lt=0.5)]
    """Share that is scored, between 0 and 0.5."""


class Own(Section):
    """Your own recordings, read where they are and never changed."""

    source: str
    """Folder of the recordings; `~` is your home."""
    multi_label: bool = False
    """true if a clip may have several labels (scored by mAP), false if each has one (accuracy)."""
    splits: Literal["auto", "given", "none"] = "auto"
    """Splits or folds that the labels or the names of folders and files give. `auto`: use them if
    there are any. `given`: need them. `none`: ignore them."""
    num_folds: Annotated[int, Field(ge=3)] | None = 5
    """If no splits are used, divide the labelled clips into this many folds. Groups stay whole and
    copies together."""
    split_fractions: SplitFractions | None = None
    """Divide them into train, validation and test instead, in the same way."""
    join_copies: bool = False
    """Keep groups that share a recording together when clips are divided. Otherwise copies in several
    parts are an error, because nobody knows which group they belong to."""

    @model_validator(mode="before")
    @classmethod
    def _fractions_replace_the_default_folds(cls, raw: Any) -> Any:  # noqa: ANN401 - whatever a file holds
        if isinstance(raw, dict) and raw.get("split_fractions") is not None:
            return {"num_folds": None} | raw
        return raw

    @model_validator(mode="after")
    def _one_way_to_split(self) -> "Own":
        if self.num_folds is not None and self.split_fractions is not None:
            raise ValueError("need num_folds or split_fractions, got both: set one of them to null")
        return self


class Folder(Own):
    """Your own recordings, in any tree of audio files. See matpac/datasets/own/folder.py."""

    kind: Literal["folder"]
    labels: str = "none"
    """`none`, `folders` (the innermost folder names the class), or the path of a CSV, JSON Lines or
    parquet table; also the name of such tables in folders of the source (`metadata.csv`)."""
    label_column: str = "label"
    """Column of the table that holds a clip's label or labels."""


class Tar(Own):
    """Your own recordings, in tar shards as WebDataset writes them. See
    matpac/datasets/own/tar.py."""

    kind: Literal["tar"]
    labels: str = "none"
    """`none`, or the key of a clip's JSON that holds its label or labels."""


class Parquet(Own):
    """Your own recordings, in parquet files with a column of audio. See
    matpac/datasets/own/parquet.py."""

    kind: Literal["parquet"]
    labels: str = "none"
    """`none`, or the column that holds a clip's label or labels."""


class Public(Section):
    """A dataset that others publish, on its official split. See matpac/datasets/public."""

    kind: PublicKind
    source: str | None
    """Local copy to read: a folder in the official layout, an archive, or a folder of the archives.
    null: download it."""


class AudioSet(Public):
    """AudioSet. See matpac/datasets/public/audioset.py."""

    kind: Literal["audioset"]
    source: str
    """Folder of the part that you have: audio files, tar shards or parquet files. Its makers offer
    no audio."""


class MagnaTagATune(Public):
    """MagnaTagATune. See matpac/datasets/public/magnatagatune.py."""

    kind: Literal["magnatagatune"]
    untagged: Literal["keep", "drop"]
    """Whether to keep clips with none of the 50 tags as all-zero rows (the paper's 25,863)."""


Dataset = Annotated[Demo | Folder | Tar | Parquet | AudioSet | MagnaTagATune | Public, Discriminator("kind")]


class LogMel(Section):
    """The front end. Paper: 16 kHz, 25 ms windows every 10 ms, 80 mel bands from 50 Hz to 8 kHz."""

    sample_rate_hz: PositiveInt
    """Sample rate of the front end; recordings of other rates are resampled. Paper: 16,000."""
    window_ms: PositiveFloat
    """Length of a frame (a periodic Hann window) and of the FFT. Paper: 25."""
    hop_ms: PositiveFloat
    """Time from the start of a frame to the start of the next. Paper: 10."""
    num_mels: PositiveInt
    """Mel bands (Slaney's scale and norm), a multiple of 16 since patches are 16 x 16. Paper:
    80."""
    fmin_hz: NonNegative
    """Lower edge of the first band. Paper: 50."""
    fmax_hz: PositiveFloat
    """Upper edge of the last band, at most half the sample rate. Paper: 8,000."""
    resampler: Literal["soxr_hq", "kaiser_best"]
    """`soxr_hq` of soxr, or `kaiser_best`, the windowed sinc of the released code."""

    @property
    def window_samples(self) -> int:
        return round(self.sample_rate_hz * self.window_ms / 1000)

    @property
    def hop_samples(self) -> int:
        return round(self.sample_rate_hz * self.hop_ms / 1000)

    def first_difference(self, other: "LogMel") -> str | None:
        """Name of the first field in which two front ends differ; None if they are the same."""
        return next((name for name, value in self if value != getattr(other, name)), None)

    @property
    def frames_per_s(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    @model_validator(mode="after")
    def _windows_hold_samples(self) -> "LogMel":
        for name, num_samples in (("window_ms", self.window_samples), ("hop_ms", self.hop_samples)):
            if num_samples < 1:
                raise ValueError(
                    f"{name}: need milliseconds that hold a sample at {self.sample_rate_hz} Hz, "
                    f"got {getattr(self, name):g}"
                )
        return self

    @model_validator(mode="after")
    def _band_fits_below_nyquist(self) -> "LogMel":
        nyquist_hz = self.sample_rate_hz / 2
        if not self.fmin_hz < self.fmax_hz <= nyquist_hz:
            raise ValueError(
                f"need fmin_hz < fmax_hz <= {nyquist_hz:g} Hz (half the sample rate), "
                f"got {self.fmin_hz:g} and {self.fmax_hz:g}"
            )
        return self

    @model_validator(mode="after")
    def _mel_bands_fill_patches(self) -> "LogMel":
        if self.num_mels % PATCH:
            raise ValueError(
                f"num_mels: need a multiple of {PATCH} (patches are {PATCH} x {PATCH}), got {self.num_mels}"
            )
        return self


Channels = Literal["mean", "left", "loudest"]
"""What one waveform is made of if a recording has several channels."""


class Shards(Section):
    """How log-mels are packed: a few hundred clips to a shard."""

    format: Literal["webdataset", "zarr"]
    """Tars that any WebDataset reader opens, or one Zarr array. Batches are the same, bit for
    bit."""
    clips_per_shard: PositiveInt
    """Clips in a shard, which is converted, retried and repaired as a whole."""
    reject: tuple[Literal["silent", "truncated", "duplicate"], ...]
    """Recordings to leave out although they can be decoded. The released code keeps all three
    kinds. Public datasets keep their duplicates, since official splits stay as they are. In your
    own data a copy in another split or fold is an error whatever you list here."""
    channels: Channels
    """What becomes of several channels: their mean, as in the released code, the first one (`left`), or
    the loudest, which takes a second reading. `silent` above also rejects recordings whose channels
    cancel: their mean is 30 dB below them, and another choice here keeps them."""
    max_rejected_fraction: Fraction
    """The stage fails if a larger share of the recordings is unusable, and otherwise goes on
    without them. Fewer than three never stop it, unless the share is 0. In a dataset with labels,
    recordings without one do not count."""
    runner: Literal["threads", "processes", "dask"]
    """Prefect's task runner. The bytes of a shard do not depend on it or on num_workers."""
    num_workers: PositiveInt
    """Processes that convert shards."""
    dask_address: str | None
    """Address of a running Dask scheduler (tcp://...). null: start a cluster on this machine."""


class Custom(Section):
    """Dimensions of networks that have no name. Widths are multiples of 4, and attention heads divide
    them."""

    encoder_dim: PositiveInt
    """Width of the encoders of student and teacher."""
    encoder_depth: PositiveInt
    """Their blocks."""
    encoder_heads: PositiveInt
    """Attention heads of each block."""
    predictor_dim: PositiveInt
    """Width of the predictor."""
    predictor_depth: PositiveInt
    """Its blocks."""
    predictor_heads: PositiveInt
    """Attention heads of each block."""
    head_hidden: PositiveInt
    """Hidden units of the heads that classify."""
    head_bottleneck: PositiveInt
    """Dimensions of the unit vectors that the heads compare with the classes."""

    @model_validator(mode="after")
    def _attention_and_positions_fit(self) -> "Custom":
        for name, dim, heads in (
            ("encoder", self.encoder_dim, self.encoder_heads),
            ("predictor", self.predictor_dim, self.predictor_heads),
        ):
            if dim % 4:
                raise ValueError(
                    f"{name}_dim: need a multiple of 4 (for the positions of patches), got {dim}"
                )
            if dim % heads:
                raise ValueError(f"{name}_heads: need a divisor of {name}_dim ({dim}), got {heads}")
        return self


class Model(Section):
    """Sizes of the networks and of the two pretext tasks."""

    size: Literal["tiny", "small", "base", "large", "custom"]
    """Size of the networks, a row of matpac/model/sizes.py, or `custom`. `base` is the paper's."""
    custom: Custom | None = None
    """Dimensions of the networks if `size` is `custom`; otherwise null, or left out."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share of the patches that are hidden from the student and predicted. Paper: 0.7."""
    num_clusters: Annotated[int, Field(ge=2)]
    """K, the number of classes of the pretext classification. Paper: 2,048; Figure 2 tries
    others."""
    num_predictor_heads: PositiveInt
    """Predictions of each masked patch: 1 in MATPAC, 5 in MATPAC++ (multiple-choice learning)."""

    @model_validator(mode="after")
    def _dimensions_stand_once(self) -> "Model":
        if self.size == "custom" and self.custom is None:
            keys = ", ".join(Custom.model_fields)
            raise ValueError(f"custom: need {keys} for size custom, got null")
        if self.size != "custom" and self.custom is not None:
            raise ValueError(f"custom: need null for size {self.size}, or size custom, got dimensions")
        return self

    # Digests of runs, checkpoints and records are then those of before the key existed.
    @model_serializer(mode="wrap")
    def _without_missing_dimensions(self, serialize: Callable[["Model"], dict[str, Any]]) -> dict[str, Any]:
        plain = serialize(self)
        if self.custom is None:
            plain.pop("custom", None)
        return plain


class Ramp(Section):
    """A value that changes in a straight line over some epochs or the whole run, then stays."""

    first: NonNegative
    """Value at update 0."""
    last: NonNegative
    """Value at the end of the line."""


class Pretrain(Section):
    """How the encoder is trained. Numbers that the paper does not give are those of the released
    code."""

    datasets: tuple[Name, ...]
    """One dataset or a mixture. Every clip of each is seen once an epoch; labels are not used."""
    init: str | None
    """Weights to begin with: a checkpoint folder, a folder of `save_pretrained`, a released .pt
    file or a released name (matpac/weights/released.py). They need their own front end and bring
    their statistics. null: random weights."""
    crop_frames: PositiveInt
    """Length of the random crop of a clip that is seen in an epoch, a multiple of 16. Paper: 6 s,
    so 608."""
    short_clips: Literal["drop", "pad"]
    """Whether to leave out clips shorter than a crop, or to pad them with digital silence."""
    batch_size: PositiveInt
    """Clips per optimizer step, over all processes."""
    num_epochs: NonNegative
    """Number of times every clip is seen. 0: probe the weights of `init` without any training."""
    warmup_epochs: NonNegative
    """Epochs in which the learning rate rises from 0; then it falls to 0 along a cosine. M2D: 20 of
    300."""
    peak_learning_rate: PositiveFloat
    """AdamW's learning rate at the end of the warm-up. It is not scaled by the batch size. Released
    code: 3e-4 at 2,048 clips; M2D: 3e-4 for each 256 clips."""
    weight_decay: NonNegative
    """AdamW's decoupled decay, multiplied by the learning rate at every update. Released code and
    M2D: 0.05."""
    weight_decay_on: Literal["all", "matrices"]
    """Trained tensors that decay: `all`, or `matrices`, which spares biases and norms (M2D)."""
    adam_betas: tuple[Fraction, Fraction]
    """Decays of AdamW's averages of the gradient and of its square. Released code: 0.9 and 0.95."""
    adam_eps: PositiveFloat
    """Term that keeps AdamW's division finite. Released code: 1e-6; M2D: 1e-8."""
    max_grad_norm: PositiveFloat | None
    """Norm to which longer gradients are shortened. null: shorten none (M2D)."""
    alpha: Fraction
    """Eq. (5): weight of the prediction loss. The classification loss has weight 1 - alpha."""
    student_temperature: PositiveFloat
    """tau_s in Eq. (4)."""
    teacher_temperature: Ramp
    """tau_t in Eq. (3)."""
    teacher_temperature_epochs: PositiveFloat
    """n_tau: epochs in which tau_t goes from first to last; at most `num_epochs`."""
    encoder_decay: Ramp
    """lambda: decay of the teacher encoder's moving average, over the whole run."""
    head_decay: Ramp
    """zeta: decay of the teacher head's moving average, over the whole run."""
    teacher_follows: Literal["before_step", "after_step"]
    """Student weights that the teacher averages: those from before the optimizer's step, except at
    update 0 (the released code), or those from after every step (M2D)."""
    standardize_targets: bool
    """Give each of the teacher's latents mean 0 and deviation 1 over its dimensions (M2D)."""
    center_of: Literal["logits", "probabilities"]
    """Quantity whose mean is the center of Eq. (3): logits in the paper, probabilities in the
    released code."""
    center_momentum: Fraction
    """Share of the center of Eq. (3) that stays at every update. Released code: 0.9."""
    choice_temperature: Ramp
    """MATPAC++: first temperature of the choice among predictor heads, and the floor below which
    the choice is hard."""
    choice_decay: Fraction
    """MATPAC++: factor of the choice temperature at every update."""
    mixup: Annotated[float, Field(ge=0, le=0.5)]
    """Largest share of another crop's energy in each crop that is learned from; shares are uniform from 0.
    Neither the paper nor M2D mixes: 0. BYOL-A: 0.4."""
    seed: NonNegativeInt
    """Seed of initial weights, order of clips, crops, masks and mixtures."""
    precision: Precision
    """Precision of the forward pass (autocast). Weights, optimizer and teacher stay in float32."""

    @property
    def classifies(self) -> bool:
        """Whether the classification has a part in the loss; it has none at alpha = 1."""
        return self.alpha < 1

    @model_validator(mode="after")
    def _crops_fill_patches(self) -> "Pretrain":
        if self.crop_frames % PATCH:
            raise ValueError(
                f"crop_frames: need a multiple of {PATCH} (patches are {PATCH} x {PATCH}), "
                f"got {self.crop_frames}"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_train_or_to_take(self) -> "Pretrain":
        if not self.num_epochs and self.init is None:
            raise ValueError(
                "num_epochs: need more than 0, or weights in `init` to be taken as they are, got 0"
            )
        if self.num_epochs and not self.datasets:
            raise ValueError("datasets: need one at least, or num_epochs: 0, got none")
        return self

    @model_validator(mode="after")
    def _schedules_fit_the_run(self) -> "Pretrain":
        if self.num_epochs and self.warmup_epochs >= self.num_epochs:
            raise ValueError(
                f"warmup_epochs: need less than num_epochs ({self.num_epochs:g}), got {self.warmup_epochs:g}"
            )
        for name in ("encoder_decay", "head_decay"):
            ramp = getattr(self, name)
            if max(ramp.first, ramp.last) > 1:
                raise ValueError(f"{name}: need values from 0 to 1, got {ramp.first:g} and {ramp.last:g}")
        for name in ("teacher_temperature", "choice_temperature"):
            ramp = getattr(self, name)
            if min(ramp.first, ramp.last) <= 0:
                raise ValueError(f"{name}: need values above 0, got {ramp.first:g} and {ramp.last:g}")
        return self


BEFORE = {
    "init": None,
    "weight_decay_on": "all",
    "teacher_follows": "before_step",
    "standardize_targets": False,
    "mixup": 0.0,
}
"""Behavior of pre-training before these keys existed, for files on the disk that are older."""


class Compute(Section):
    """How pre-training uses the machine. Results change by rounding only, so an interrupted run can
    go on with other values. Fine-tuning uses `num_processes`, which share folds and repeats, and
    `save_every_s`."""

    num_processes: PositiveInt | None
    """Processes of this machine that train together, one a GPU or a core of the CPU. null: all
    visible GPUs; without one all cores that this process may use, for models small enough."""
    micro_batch_size: int | Literal["auto"]
    """Most clips in one forward pass of a process. Gradients accumulate up to pretrain.batch_size. auto:
    what fits into the free memory of the GPU; 32 on a CPU. If memory runs out all the same, the
    update is done again with half as many, and the run stays at that."""
    compile: bool
    """Compile the networks, which takes about a minute at the start."""
    recompute_activations: bool
    """Compute activations again in the backward pass instead of keeping them: less memory, more
    time."""
    residual: Literal["float32", "bfloat16"]
    """Precision in which blocks add their outputs to their inputs. bfloat16 moves fewer bytes and is
    a little coarser; it needs `pretrain.precision: bfloat16`."""
    log_every_updates: PositiveInt
    """Updates from one row of metrics.csv to the next."""
    save_every_s: PositiveFloat
    """Time between saved states, and so the most work that a kill may cost."""

    @field_validator("micro_batch_size", mode="before")
    @classmethod
    def _number_or_auto(cls, value: object) -> object:
        if value != "auto" and not (type(value) is int and value > 0):
            raise ValueError(f"need a whole number above 0 or auto, got {value!r}")
        return value


class Online(Section):
    """Evaluation of the student while it trains, with labels that it never learns from. Training
    does not depend on it, so an interrupted run can go on with other values; measurements made with
    the old ones are dropped. See matpac/training/online.py."""

    dataset: Name | None
    """Dataset with one label a clip. null: do not evaluate."""
    every_updates: PositiveInt
    """Updates from one evaluation to the next."""
    num_clips: PositiveInt
    """Most clips of the train split that vote, and of the validation split that are voted on."""
    k: PositiveInt
    """Number of nearest clips that vote."""


TAKEN = (
    *("pretrained", "random_init", "logmel_statistics"),
    *("ids", "split", "fold", "labels", "observed", "heard"),
    *("pretrained_steps", "pretrained_num_steps", "random_init_steps", "random_init_num_steps"),
    *("pretrained_deviation", "random_init_deviation"),
)
"""Names that a store of embeddings uses itself (matpac/probing/store.py)."""


class Other(Section):
    """An encoder that is not ours. See matpac/probing/external.py."""

    module: str
    """Name of a module with the HEAR 2021 API, installed or in a folder on PYTHONPATH."""
    model: str | None
    """Argument of its `load_model`: a path or a name. null: none, for the module's default."""

    @model_validator(mode="after")
    def _module_has_a_name(self) -> "Other":
        words = self.module.split(".")
        if words[-1] == "py" or not all(word.isidentifier() for word in words):
            raise ValueError(f"module: need a name as after `import`, not a file, got {self.module}")
        return self


class Embed(Section):
    """How labelled clips are embedded, and by which encoders."""

    precision: Precision
    """Precision of our encoders' matrix products (autocast). bfloat16 is meant for GPUs, which have
    units for it. It turns an embedding by a fifth of a degree at most."""
    batch_size: PositiveInt
    """Chunks per forward pass; for other encoders, clips of equal length."""
    over_time: bool
    """Also keep our encoder's output every 160 ms, in float16, for `probe.attentive`. It takes 5 GB
    for 10,000 clips of 10 s with the paper's 3,840 dimensions, and again for the untrained
    encoder."""
    others: dict[Name, Other]
    """Other encoders, by names of yours. They read the recordings and are probed exactly as ours
    is."""

    @model_validator(mode="after")
    def _names_are_free(self) -> "Embed":
        for name in self.others:
            if name in TAKEN:
                raise ValueError(f"others: need names other than {', '.join(TAKEN)}, got {name}")
        return self


class Probe(Section):
    """Paper: one linear layer, batch 128, Adam 1e-4, best validation loss kept, five repeats."""

    datasets: tuple[Name, ...]
    """Datasets with labels to embed and probe."""
    num_repeats: Annotated[int, Field(ge=2)]
    """Probes with different initial weights and orders of clips. Scores are their mean and
    interval."""
    batch_size: PositiveInt
    """Clips per optimizer step of a probe. Paper: 128."""
    learning_rate: PositiveFloat
    """Adam's learning rate, constant. Paper: 1e-4; standardized features allow a higher one."""
    max_epochs: PositiveInt
    """Most epochs of training."""
    patience_epochs: PositiveInt
    """Training stops if the validation loss has not improved for this many epochs."""
    score_on: ScoreOn
    """Clips that scores, tables and records speak of. `test` for results; `validation` to choose
    settings: a fold's test clips then enter no score. See docs/results.md."""
    pooling: Pooling
    """What linear probes and `knn` read of our encoder's steps over a clip: their mean (the paper), or mean
    and standard deviation side by side, as x-vectors do (https://doi.org/10.1109/ICASSP.2018.8461375).
    Other encoders and log-mel statistics, which have a deviation already, stay as they are."""
    standardize: bool
    """Scale every feature by the train split's mean and deviation before the linear layer and
    `knn`."""
    knn: PositiveInt | None
    """Number of nearest training clips whose votes read the embeddings a second time. null: no such
    reading. It stands in .details.json and below the report's table, never among the scores."""
    attentive: PositiveInt | None
    """Heads of the probes that read our encoder's embeddings over time (`embed.over_time`) and
    learn when to listen. null: no such probes. Results stand beside those of `knn`. See
    matpac/probing/attentive.py."""
    seed: NonNegativeInt
    """Seed of initial weights and order of clips, together with the number of the repeat."""


class SpecAugment(Section):
    """Masks over bands and moments of each training crop. Their places and widths are random."""

    num_freq_masks: NonNegativeInt
    """Masks over mel bands. EAT and M2D: 1."""
    max_freq_mels: PositiveInt
    """Most mel bands that a mask hides; the width is uniform from 0. M2D: 15 of 80 for ESC-50, 30 for
    AudioSet."""
    num_time_masks: NonNegativeInt
    """Masks over frames. EAT and M2D: 1."""
    max_time_frames: PositiveInt
    """Most frames that a mask hides; the width is uniform from 0. M2D: 48 for ESC-50, 192 for
    AudioSet."""


class Finetune(Section):
    """How encoder and a linear head are trained together on labelled clips. Folds, repeats and scores are
    those of probes; the head reads means, whatever `probe.pooling` is. See matpac/finetuning."""

    datasets: tuple[Name, ...]
    """Datasets with labels to fine-tune on, each by itself. None: the stage does nothing."""
    num_repeats: Annotated[int, Field(ge=2)]
    """Fits of each fold with other first weights of the head, crops and orders of clips. Scores are
    their mean and interval."""
    num_epochs: PositiveInt
    """Most epochs of training; the learning rate reaches 0 at their end."""
    warmup_epochs: NonNegative
    """Epochs in which learning rates rise from 0; then they fall to 0 along a cosine."""
    patience_epochs: PositiveInt | None
    """Training stops if the validation score has not improved for this many epochs. null: never. The
    best epoch is kept in either case."""
    batch_size: PositiveInt
    """Clips per optimizer step. EAT: 48; M2D: 128, and 64 for AudioSet-20k."""
    learning_rate: PositiveFloat
    """AdamW's learning rate of the head after the warm-up. EAT: 5e-5."""
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    """Factor of the learning rate from each block to the one before it; the norm after the last block
    learns like the head. EAT: 0.65. 1: all learn alike."""
    weight_decay: NonNegative
    """AdamW's decoupled decay of matrices; biases and norms have none. EAT: 0.05."""
    adam_betas: tuple[Fraction, Fraction]
    """Decays of AdamW's averages of the gradient and of its square. EAT: 0.9 and 0.95."""
    mixup: NonNegative
    """alpha of mixup: each crop is mixed with another, and their labels alike, by shares drawn from
    Beta(alpha, alpha). EAT: 0.8 for AudioSet. 0: none."""
    spec_augment: SpecAugment | None
    """Masks on training crops. null: none."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of each label that is spread over all classes; with several labels a clip, over yes and no.
    EAT: 0.1 for ESC-50."""
    class_balance: Literal["none", "weights", "sampling"]
    """What rare classes get: nothing, larger weights in the loss, or more draws in an epoch."""
    crop_frames: PositiveInt | None
    """Length of the random crop of a clip that is seen in an epoch. null: whole clips. Validation and
    test clips are always whole."""
    precision: Precision
    """Precision of the encoder's matrix products (autocast). Weights and optimizer stay in float32."""
    seed: NonNegativeInt
    """Seed of the head's first weights, order of clips, crops and augmentation, together with the
    numbers of repeat and fold."""

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "Finetune":
        if self.warmup_epochs >= self.num_epochs:
            raise ValueError(
                f"warmup_epochs: need less than num_epochs ({self.num_epochs}), got {self.warmup_epochs:g}"
            )
        return self


Cron = Annotated[str, StringConstraints(pattern=r"^\s*\S+(\s+\S+){4}\s*$")]


class Schedules(Section):
    """When deployments run by themselves (`python -m flows.serve`): a cron line of five fields
    (minute, hour, day, month, weekday) in UTC, or null for never."""

    download: Cron | None
    """Schedule for fetching every dataset that is not here."""
    shards: Cron | None
    """Schedule for converting every dataset that has changed."""
    reproduce: Cron | None
    """Schedule for the whole pipeline, as `dvc repro` runs it."""


class Params(Section):
    """A parameter file."""

    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    logmel: LogMel
    shards: Shards
    model: Model
    pretrain: Pretrain
    compute: Compute
    online: Online
    embed: Embed
    probe: Probe
    finetune: Finetune
    schedules: Schedules

    def source_of(self, dataset: str) -> Dataset:
        """The section of a dataset. Raises ValueError for a name that is not under `datasets`."""
        if dataset not in self.datasets:
            raise ValueError(f"need a name under `datasets` ({', '.join(self.datasets)}), got {dataset}")
        return self.datasets[dataset]

    def labels_of(self, dataset: str) -> Literal["none", "one", "several"]:
        """How many labels a clip of a dataset has, as far as its section tells."""
        match self.source_of(dataset):
            case Demo(recipe="corpus") | Folder(labels="none") | Tar(labels="none") | Parquet(labels="none"):
                return "none"
            case Demo(recipe="scenes") | Own(multi_label=True):
                return "several"
            case Public(kind=kind) if kind in WITH_SEVERAL_LABELS:
                return "several"
        return "one"

    @property
    def online_datasets(self) -> tuple[str, ...]:
        """The dataset of `online`, or none."""
        return () if self.online.dataset is None else (self.online.dataset,)

    @model_validator(mode="after")
    def _names_are_declared(self) -> "Params":
        named = {
            "pretrain.datasets": self.pretrain.datasets,
            "probe.datasets": self.probe.datasets,
            "finetune.datasets": self.finetune.datasets,
            "online.dataset": self.online_datasets,
        }
        for key, names in named.items():
            for name in names:
                if name not in self.datasets:
                    raise ValueError(
                        f"{key}: need names listed under `datasets` ({', '.join(self.datasets)}), got {name}"
                    )
            if len(set(names)) < len(names):
                raise ValueError(f"{key}: need each dataset once, got {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _recordings_are_seen_once_an_epoch(self) -> "Params":
        names: dict[Section, str] = {}
        for name in self.pretrain.datasets:
            same = names.setdefault(self.datasets[name], name)
            if same != name:
                raise ValueError(
                    f"pretrain.datasets: need each dataset once, got {same} and {name}, which are the same"
                )
        return self

    @model_validator(mode="after")
    def _clips_fill_a_batch(self) -> "Params":
        sources = [self.datasets[name] for name in self.pretrain.datasets]
        known = [source.num_clips for source in sources if isinstance(source, Demo)]
        if self.pretrain.num_epochs and len(known) == len(sources) and self.pretrain.batch_size > sum(known):
            raise ValueError(
                f"pretrain.batch_size: need at most the {sum(known)} clips of pretrain.datasets, "
                f"got {self.pretrain.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _probed_datasets_have_labels(self) -> "Params":
        named = {"probe.datasets": self.probe.datasets, "finetune.datasets": self.finetune.datasets}
        for key, name in ((key, name) for key, names in named.items() for name in names):
            if self.labels_of(name) == "none":
                own = f". Set datasets.{name}.labels; `matpac inspect {name}` says what there is"
                raise ValueError(
                    f"{key}: need datasets with labels, got {name}, which has none"
                    + (own if isinstance(self.datasets[name], Own) else "")
                )
        return self

    @model_validator(mode="after")
    def _votes_are_for_one_label(self) -> "Params":
        for name in self.online_datasets:
            if (found := self.labels_of(name)) != "one":
                raise ValueError(
                    f"online.dataset: need a dataset whose clips have one label each, got {name} with {found}"
                )
        return self

    @model_validator(mode="after")
    def _attention_has_steps(self) -> "Params":
        if self.probe.attentive is not None and not self.embed.over_time:
            raise ValueError("probe.attentive: need embed.over_time: true, got false")
        return self

    @model_validator(mode="after")
    def _settings_are_chosen_without_test_clips(self) -> "Params":
        if self.probe.score_on == "validation" and self.finetune.datasets:
            raise ValueError(
                "finetune.datasets: need [] with probe.score_on: validation, because fine-tuning is scored "
                f"on test clips, got {', '.join(self.finetune.datasets)}"
            )
        return self

    @model_validator(mode="after")
    def _coarse_sums_are_of_coarse_products(self) -> "Params":
        if self.compute.residual == "bfloat16" and self.pretrain.precision != "bfloat16":
            raise ValueError(
                f"compute.residual: need float32 with pretrain.precision: {self.pretrain.precision}, "
                f"got bfloat16"
            )
        return self

    # Checked here and not in the section, so that older checkpoints with other values still open.
    @model_validator(mode="after")
    def _temperature_rises_within_the_run(self) -> "Params":
        num_epochs, rising = self.pretrain.num_epochs, self.pretrain.teacher_temperature_epochs
        if 0 < num_epochs < rising:
            raise ValueError(
                f"pretrain.teacher_temperature_epochs: need pretrain.num_epochs ({num_epochs:g}) at most, "
                f"got {rising:g}"
            )
        return self

    @model_validator(mode="after")
    def _masks_leave_patches(self) -> "Params":
        num_patches = (self.logmel.num_mels // PATCH) * (self.pretrain.crop_frames // PATCH)
        num_visible = int(num_patches * (1 - self.model.mask_ratio))
        if not 0 < num_visible < num_patches:
            raise ValueError(
                f"model.mask_ratio: need visible and masked patches among the {num_patches} of a crop, "
                f"got {self.model.mask_ratio:g}, which leaves {num_visible} visible"
            )
        return self


UNREADABLE = re.compile(
    r"^%|[^\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", re.MULTILINE
)
"""Directives, tabs, control characters, line ends of YAML 1.1 and, as surrogates, bytes that are not
UTF-8. YAML allows some of them in some places, and its readers differ in which."""
WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{,18})")
DECIMAL = re.compile(r"[-+]?([0-9]+(\.[0-9]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|\.[0-9]+)")
AMBIGUOUS = re.compile(
    r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)"
    r"|[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?|<<|="
)
"""What one version of YAML or another takes for a number, a date or an instruction."""


def load_params(path: Path = PARAMS) -> Params:
    """Read and check a parameter file.

    Raises:
        ValueError: With one line per problem: the key, what was needed, what was found.
    """
    try:
        raw = read_yaml(path)
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file. Run from the project's folder, or copy one of presets/."
        ) from None
    return parse_params(raw, str(path))


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - whatever YAML holds
    """Read what DVC reads, which is YAML 1.2, and refuse what other versions or readers take differently.

    Args:
        path: A file of mappings, lists and plain values, without tags and merged keys (<<).

    Returns:
        Dicts with names as keys, lists, strings, numbers, booleans and None.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: In one line with file, line and key: what was needed and what was found.
    """
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    if unreadable := UNREADABLE.search(text):
        number = text.count("\n", 0, unreadable.start()) + 1
        needed = {"\t": "spaces, not tabs", "%": "no directives"}.get(unreadable[0], "printable UTF-8")
        found = repr(text.split("\n")[number - 1].strip()).replace(r"\udc", r"\x")
        raise ValueError(f"{path}, line {number}: need {needed}, found {found}")
    parts = (yaml.NodeEvent, yaml.CollectionEndEvent)
    try:
        events = (event for event in yaml.parse(text, yaml.SafeLoader) if isinstance(event, parts))
        first = next(events, None)
        raw = None if first is None else _value(first, events, {}, str(path), "")
        if second := next(events, None):
            raise ValueError(f"{path}, line {_line(second)}: need one document, found another after ---")
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: not YAML: {error.problem}") from error
    except RecursionError:
        raise ValueError(f"{path}: need a few levels, found hundreds") from None
    return raw


def _value(event: Any, events: Iterator[Any], anchors: dict[str, Any], path: str, key: str) -> Any:  # noqa: ANN401
    """The value that begins with an event, named by its anchor; the events that belong to it are taken."""
    where = f"{path}, line {_line(event)}: {key or '(top level)'}"
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise ValueError(f"{where}: need a value named &{event.anchor} above, found none")
        return anchors[event.anchor]
    if event.tag:
        raise ValueError(f"{where}: need a value without a tag, found {event.tag}")
    value: Any
    if isinstance(event, yaml.ScalarEvent):
        value = event.value if event.style else _plain(event.value, where)
    elif isinstance(event, yaml.SequenceStartEvent):
        value = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            value.append(_value(item, events, anchors, path, f"{key}.{len(value)}"))
    else:
        value = _mapping(events, anchors, path, key)
    if event.anchor:
        anchors[event.anchor] = value
    return value


def _mapping(events: Iterator[Any], anchors: dict[str, Any], path: str, key: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    while not isinstance(name_event := next(events), yaml.MappingEndEvent):
        name = _value(name_event, events, anchors, path, key)
        line, inner = _line(name_event), f"{key}.{name}".removeprefix(".")
        if not isinstance(name, str):
            raise ValueError(f"{path}, line {line}: {inner}: need a name, in quotes if it is no word")  # noqa: TRY004
        if name in found:
            raise ValueError(
                f"{path}, line {line}: {inner}: need each key once, found it in line {lines[name]}"
            )
        found[name], lines[name] = _value(next(events), events, anchors, path, inner), line
    return found


def _plain(text: str, where: str) -> str | float | bool | None:
    """The value of text without quotes."""
    if text in WORDS:
        return WORDS[text]
    if WHOLE.fullmatch(text) and abs(int(text)) < 2**63:
        return int(text)
    if DECIMAL.fullmatch(text):
        return float(text)
    if AMBIGUOUS.fullmatch(text):
        raise ValueError(
            f"{where}: need a decimal number without leading zeros, below 2^63, or text in quotes, "
            f"found {text}"
        )
    return text


def _line(event: Any) -> int:  # noqa: ANN401 - of a library
    return int(event.start_mark.line) + 1


def refuse_changes(path: Path, before: Params, *keys: str) -> None:
    """Raise if a parameter file no longer says what a stage has read there.

    DVC notes the parameters of a stage when it has ended. After an edit in between it would take
    the result for one of the new values, and would never make it again.

    Args:
        path: The file that the stage has read.
        before: What it said then.
        keys: Sections and keys that the result depends on, such as `pretrain` or `datasets.esc10`.

    Raises:
        ValueError: Values of these keys differ, or the file cannot be read any more.
    """
    then, now = (flat(params.model_dump(mode="json")) for params in (before, load_params(path)))
    read = tuple(f"{key}." for key in keys)
    changed = [key for key in then | now if f"{key}.".startswith(read) and then.get(key) != now.get(key)]
    if changed:
        raise ValueError(
            f"{path}: {', '.join(changed)} changed while this ran. Its result does not count, because DVC "
            "would take it for one of the new values. Run again, and edit the file between two runs."
        )


def parse_params(raw: Any, where: str = "params") -> Params:  # noqa: ANN401 - whatever YAML holds
    """Check values as `read_yaml` gives them. Types are not converted: DVC would not do so either.

    Raises:
        ValueError: With one line per problem: the key, what was needed, what was found.
    """
    return _checked(Params, raw, where)


def _checked(kind: type[Read], raw: Any, where: str) -> Read:  # noqa: ANN401 - whatever a file holds
    try:
        # As JSON, whose lists may become tuples in strict mode too.
        return TypeAdapter(kind).validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        remedy = ". Copy it from presets/demo.yaml." if kind is Params else ""
        problems = "\n".join(
            _problem(where, item) + (remedy if item["type"] == "missing" and len(item["loc"]) == 1 else "")
            for item in _with_guesses(error.errors())
        )
        raise ValueError(problems) from None


def _with_guesses(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Report a misspelt key once, not as an unknown key and a missing one."""
    missing = {item["loc"] for item in items if item["type"] == "missing"}
    guessed = {}
    for item in items:
        if item["type"] == "extra_forbidden":
            *section, found = item["loc"]
            names = [str(place[-1]) for place in missing if [*place[:-1]] == section]
            if close := get_close_matches(str(found), names, n=1):
                guessed[item["loc"]] = close[0]
                missing.remove((*section, close[0]))
    return [
        {**item, "meant": guessed.get(item["loc"])}
        for item in items
        if item["type"] != "missing" or item["loc"] in missing
    ]


def _problem(where: str, item: dict[str, Any]) -> str:
    location = [str(part) for part in item["loc"]]
    if item["type"] == "union_tag_invalid":
        kinds = item["ctx"]["expected_tags"].replace("'", "")
        return f"{where}: {'.'.join(location)}.kind: need one of {kinds}; got {item['ctx']['tag']}"
    if item["type"] == "union_tag_not_found":
        return f"{where}: {'.'.join(location)}.kind: this key is missing"
    if location[:1] == ["datasets"] and len(location) > 2:
        del location[2]  # The kind, which is no level of the file.
    key = ".".join(location) or "(top level)"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{where}: {key}: {message}" if item["loc"] else f"{where}: {message}"
    if item["type"] == "extra_forbidden":
        meant = item.get("meant")
        return f"{where}: {key}: unknown key" + (f"; did you mean {meant}?" if meant else "")
    if item["type"] == "missing":
        return f"{where}: {key}: this key is missing"
    return f"{where}: {key}: {message[0].lower()}{message[1:]}, got {item['input']!r}"


def digest(*parts: Any) -> str:  # noqa: ANN401 - anything JSON can hold, and sections
    """Short stable digest of parameters and plain values, for names of folders and files."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of a section and of those within, each under its whole key: `pretrain.alpha: 0.5`."""
    values: dict[str, Any] = {}
    for name, value in section.items():
        key = f"{prefix}{name}"
        values |= flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return values


def read_section(
    kind: type[Read],
    path: Path,
    head: Mapping[str, Any] = MappingProxyType({}),
    older: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Read:
    """Read a JSON file as strictly as params.yaml, and convert no types: "128" and true are no numbers.

    Args:
        kind: Section or dataclass that says which keys there are.
        path: File to read.
        head: Keys that the file must have with these values, because they say whose it is; not of `kind`.
        older: For sections of the file, values of the keys that older files lack.

    Returns:
        The contents of the file.

    Raises:
        ValueError: With one line per problem: the file, the key, what was needed, what was found.
    """
    raw = read_json(path)
    for key, value in head.items():
        found = raw.get(key) if isinstance(raw, dict) else type(raw).__name__
        if found != value:
            raise ValueError(
                f"{path}: {key}: need {value}, found {found}. It is of another program or version."
            )
        raw = {name: item for name, item in raw.items() if name != key}
    for key, values in older.items():
        if isinstance(raw.get(key), dict):
            raw[key] = {**values, **raw[key]}
    return _checked(kind, raw, str(path))
