"""test logits -> scores with intervals, score files and tables.

`<dataset>.json` holds the few numbers that `dvc metrics` compares between runs.
`<dataset>.details.json` holds the summary with its intervals, and scores of all repeats, folds and
classes, confusions and learning curves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt8

from matpac.files import read_json
from matpac.params import ScoreOn
from matpac.probing.folds import Fold, both_kinds, scored_classes
from matpac.probing.heard import heard_in_words, heard_of
from matpac.probing.store import FEATURES, EmbeddedClips
from matpac.progress import in_columns

Logits = Float[np.ndarray, "test class"]
Labels = UInt8[np.ndarray, "test class"]

DETAILS = ".details.json"
"""Ending of the files that hold everything about a dataset's probes."""


@dataclass(frozen=True)
class Fit:
    """Results of one trained probe."""

    repeat: int
    fold: int
    """Index into the folds."""
    train_losses: list[float]
    """Mean over the observed entries in each epoch, taken while the weights move."""
    validation_losses: list[float]
    best_epoch: int
    """Epoch of the lowest validation loss, from 1; its weights give the logits."""
    head: dict[str, Float[np.ndarray, "..."]]
    """Tensors of the head by name, as `matpac.classifier.heads` takes them."""
    validation_logits: Float[np.ndarray, "validation class"]
    test_logits: Float[np.ndarray, "test class"]


def confusion_matrix(logits: Logits, labels: Labels) -> Int64[np.ndarray, "class class"]:
    """Counts of clips; rows are the true classes, columns the predicted ones."""
    num_classes = labels.shape[1]
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (labels.argmax(1), logits.argmax(1)), 1)
    return counts


def accuracy(confusion: Int64[np.ndarray, "class class"]) -> float:
    return float(confusion.trace() / confusion.sum())


def average_precisions(logits: Logits, labels: Labels, observed: Labels) -> Float[np.ndarray, " class"]:
    """Average precision of each class over the clips observed for it, as PaSST on OpenMIC.

    Equals scikit-learn's with `observed` as sample weights. NaN if none or all of these clips have
    the class.
    """
    from sklearn.metrics import average_precision_score

    return np.array(
        [
            average_precision_score(truth[seen], score[seen]) if scored else math.nan
            for truth, score, seen, scored in zip(
                labels.T, logits.T, observed.T.astype(bool), both_kinds(labels, observed), strict=True
            )
        ]
    )


def class_scores(confusion: Int64[np.ndarray, "class class"]) -> Float[np.ndarray, " class"]:
    """Share of each class's clips that were recognised; NaN for a class without clips."""
    num_clips = confusion.sum(1)
    return confusion.diagonal() / np.where(num_clips > 0, num_clips, math.nan)


def score_of(logits: Logits, labels: Labels, observed: Labels, metric: str) -> float:
    """Accuracy or mAP as a fraction; NaN if no class can be scored."""
    if metric == "accuracy":
        return accuracy(confusion_matrix(logits, labels))
    precisions = average_precisions(logits, labels, observed)
    return float(np.nanmean(precisions)) if np.isfinite(precisions).any() else math.nan


def mean_and_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and half the width of its 95 % interval by Student's t, from at least two values."""
    from scipy.special import stdtrit

    spread = float(np.std(values, ddof=1))
    quantile = float(stdtrit(len(values) - 1, 0.975))
    return {"mean": float(np.mean(values)), "interval": quantile * spread / math.sqrt(len(values))}


def repeat_scores(scores: Sequence[Sequence[float]]) -> list[float]:
    """Mean over folds of each repeat; `scores` holds a list of folds for each repeat."""
    return [float(np.mean(folds)) for folds in scores]


def fold_scores(logits: Sequence[Logits], clips: EmbeddedClips, folds: Sequence[Fold]) -> dict[str, Any]:
    """Scores of a reading without repeats, as fractions: one for each fold, and their mean."""
    scores = [
        score_of(answers, clips.labels[fold.test], clips.observed[fold.test], clips.task.metric)
        for answers, fold in zip(logits, folds, strict=True)
    ]
    return {"mean": float(np.mean(scores)), "folds": scores}


def details_of(fits: Sequence[Fit], clips: EmbeddedClips, folds: Sequence[Fold]) -> dict[str, Any]:
    """Everything about the probes of one feature set; scores are fractions, None if undefined.

    `fits`: repeats first, then folds.
    """
    labels = [clips.labels[fold.test] for fold in folds]
    observed = [clips.observed[fold.test] for fold in folds]
    confusion = {}
    if clips.task.metric == "accuracy":
        confusions = [confusion_matrix(fit.test_logits, labels[fit.fold]) for fit in fits]
        scores = [accuracy(counts) for counts in confusions]
        total = np.sum(confusions, axis=0)
        confusion["confusion"] = total.tolist()
        per_class = class_scores(total)
    else:
        precisions = [
            average_precisions(fit.test_logits, labels[fit.fold], observed[fit.fold]) for fit in fits
        ]
        scores = [float(np.nanmean(precision)) for precision in precisions]
        num_defined = (~np.isnan(precisions)).sum(0)
        per_class = np.nansum(precisions, axis=0) / np.where(num_defined > 0, num_defined, math.nan)
    return {
        "scores": np.reshape(scores, (-1, len(folds))).tolist(),
        **confusion,
        "per_class": [None if math.isnan(score) else float(score) for score in per_class],
        "best_epochs": [fit.best_epoch for fit in fits],
        "learning_curve": {
            "repeat": fits[0].repeat,
            "fold": fits[0].fold,
            "train": fits[0].train_losses,
            "validation": fits[0].validation_losses,
        },
    }


def summary_of(
    details: dict[str, dict[str, Any]], clips: EmbeddedClips, folds: Sequence[Fold], score_on: ScoreOn
) -> dict[str, Any]:
    """Scores of a dataset for tables and the report, as fractions.

    `num_classes_scored` is the number of classes behind accuracy or mAP, in the fold with the
    fewest. `observed` is the share of entries [scored clip, class] that were observed. `others` holds
    the scores of other encoders, and their lead over the trained encoder, repeat by repeat.
    """
    task, scored = clips.task, np.concatenate([fold.test for fold in folds])
    repeats = {name: repeat_scores(details[name]["scores"]) for name in clips.features}
    gain = np.subtract(repeats["pretrained"], repeats["random_init"])
    ahead = {name: np.subtract(repeats[name], repeats["pretrained"]).tolist() for name in clips.others}
    return {
        "dataset": clips.dataset,
        "metric": task.metric,
        "score_on": score_on,
        "protocol": protocol(task.num_folds),
        "num_clips": num_clips(folds, task.num_folds, score_on),
        "num_classes": len(task.classes),
        "num_classes_scored": min(int(scored_classes(clips, fold).sum()) for fold in folds),
        "observed": float(clips.observed[scored].mean()),
        "official_split": task.official_split,
        "num_repeats": len(gain),
        "heard": heard_of(clips, folds),
        "chance": chance(clips.labels[scored], clips.observed[scored], task.metric),
        **{name: mean_and_interval(repeats[name]) for name in FEATURES},
        "gain_over_random_init": mean_and_interval(gain.tolist()),
        "others": {
            name: mean_and_interval(repeats[name]) | {"minus_encoder": mean_and_interval(gap)}
            for name, gap in ahead.items()
        },
    }


def compared(summary: dict[str, Any]) -> dict[str, float]:
    """A row of `dvc metrics show`, short enough for a terminal; fractions.

    Scores on validation clips have names of their own, so that `dvc metrics diff` never subtracts
    them from scores on test clips.
    """
    prefix = "validation." if on_validation(summary) else ""
    values = {
        "chance": summary["chance"],
        **{name: summary[name]["mean"] for name in FEATURES},
        "gain": summary["gain_over_random_init"]["mean"],
        **{f"others.{name}": score["mean"] for name, score in summary["others"].items()},
    }
    return {f"{prefix}{name}": value for name, value in values.items()}


def on_validation(summary: Mapping[str, Any]) -> bool:
    """Whether these are scores on validation clips. Scores from before `probe.score_on` are on test clips."""
    return bool(summary.get("score_on") == "validation")


def measured_by(summary: Mapping[str, Any]) -> str:
    """The metric, marked if it was measured on validation clips."""
    return f"{summary['metric']} on VALIDATION" if on_validation(summary) else summary["metric"]


def about_validation(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences on what the validation scores among these are worth; none if all are on test clips."""
    chosen = [summary for summary in summaries if on_validation(summary)]
    if not chosen:
        return []
    which = "" if len(chosen) == len(summaries) else f" of {', '.join(one['dataset'] for one in chosen)}"
    sentences = [
        f"The scores{which} are on VALIDATION clips (probe.score_on: validation): for choosing settings, not "
        "results.",
        "Probes stop by the loss on these clips, so the scores are slightly high, for all encoders alike.",
    ]
    if folds := [one["dataset"] for one in chosen if "all_folds" in one["num_clips"]]:
        sentences.append(
            f"{', '.join(folds)}: a validation clip of one fold is a test clip of another, so settings "
            "chosen here have an advantage in the test score, too. Judge them on other datasets."
        )
    return sentences


def about_heard(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences on the scored clips that were in pre-training, those of test clips first."""
    sentences = []
    scored: tuple[ScoreOn, ...] = ("test", "validation")
    for score_on in scored:
        ours = [one for one in summaries if on_validation(one) == (score_on == "validation")]
        found = {one["dataset"]: one.get("heard") for one in ours}
        sentences += heard_in_words(found, score_on)
    return sentences


def protocol(num_folds: int | None) -> str:
    return "train/validation/test" if num_folds is None else f"{num_folds}-fold"


def num_clips(folds: Sequence[Fold], num_folds: int | None, score_on: ScoreOn) -> dict[str, int]:
    if num_folds is None:
        return num_members(folds[0], score_on)
    return {"all_folds": sum(len(fold.test) for fold in folds)}


def num_members(fold: Fold, score_on: ScoreOn) -> dict[str, int]:
    """Clips in each part of a fold; without `test`, if validation clips stand in its place."""
    counts = {part: len(indices) for part, indices in fold._asdict().items()}
    return counts if score_on == "test" else {part: counts[part] for part in ("train", "validation")}


def chance(labels: Labels, observed: Labels, metric: str) -> float:
    """Accuracy of always answering the most frequent class; for mAP the mean share of positives."""
    if metric == "accuracy":
        return float(labels.mean(0).max())
    scored = both_kinds(labels, observed)
    return float((labels.sum(0)[scored] / observed.sum(0)[scored]).mean())


def read_summaries(folder: Path, datasets: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Summaries of `datasets` that have scores, in this order; None for all datasets, by name."""
    if datasets is None:
        datasets = sorted(path.name.removesuffix(DETAILS) for path in folder.glob(f"*{DETAILS}"))
    paths = [folder / f"{name}{DETAILS}" for name in datasets]
    return [read_json(path)["summary"] for path in paths if path.exists()]


def beats_random_init(summary: dict[str, Any]) -> bool:
    """Whether the encoder is ahead of the untrained one by more than both intervals together."""
    ours, floor = summary["pretrained"], summary["random_init"]
    return bool(ours["mean"] - ours["interval"] > floor["mean"] + floor["interval"])


def more_than_chance(gap: dict[str, float]) -> bool:
    """Whether the interval of a difference excludes 0."""
    return bool(abs(gap["mean"]) > gap["interval"])


def percent(score: Mapping[str, Any], *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{100 * score['mean']:{sign}z.1f} ± {100 * score['interval']:.1f}"


def with_star(gap: dict[str, float], said: str = "") -> str:
    """A difference, with * if its interval excludes 0; * means this in every table."""
    return f"{percent(gap, signed=True)}{said}{' *' if more_than_chance(gap) else ''}"


def score_table(folder: Path, datasets: Sequence[str] | None = None) -> str:
    """Plain text: a line per task, then one per task and other encoder.

    `datasets` as in `read_summaries`.
    """
    summaries = read_summaries(folder, datasets)
    if not summaries:
        return f"No scores in {folder}: probe.datasets in params.yaml names no dataset."
    header = ["task", "metric", "chance", "encoder", "random init", "log-mel statistics", "gain"]
    lines = [
        [
            summary["dataset"],
            measured_by(summary),
            f"{100 * summary['chance']:.1f}",
            *(percent(summary[name]) for name in FEATURES),
            gap_cell(summary["gain_over_random_init"]),
        ]
        for summary in summaries
    ]
    ahead = [summary["dataset"] for summary in summaries if beats_random_init(summary)]
    notes = [
        "",
        "Percent: mean and 95 % interval over repeats of the linear probe, one seed of pre-training.",
        "gain (encoder minus random init) and minus encoder are differences repeat by repeat;",
        "* if the interval of the difference excludes 0.",
        f"Ahead of random init by more than both intervals: {', '.join(ahead) or 'none'}.",
        *about_validation(summaries),
        *about_heard(summaries),
    ]
    return "\n".join([*aligned(header, lines), *others_table(summaries), *notes])


def others_table(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of the second table, none without other encoders."""
    lines = [
        [summary["dataset"], name, percent(score), gap_cell(score["minus_encoder"])]
        for summary in summaries
        for name, score in summary["others"].items()
    ]
    return ["", *aligned(["task", "other encoder", "score", "minus encoder"], lines)] if lines else []


def gap_cell(gap: dict[str, float]) -> str:
    """`with_star`, padded so that numbers align with and without a star."""
    return with_star(gap) if more_than_chance(gap) else f"{with_star(gap)}  "


def aligned(header: list[str], lines: Sequence[list[str]]) -> list[str]:
    """The first two columns hold words, the others numbers."""
    rule = ["-" * max(map(len, column)) for column in zip(header, *lines, strict=True)]
    return in_columns([header, rule, *lines], right=range(2, len(header)))
