"""score files -> sections of the page: scores of all tasks, and each task class by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matpac.files import read_json
from matpac.probing.scores import (
    DETAILS,
    about_heard,
    about_validation,
    beats_random_init,
    measured_by,
    on_validation,
    percent,
    read_summaries,
)
from matpac.report.html import Section, section

NAMES = {
    "pretrained": "Encoder",
    "random_init": "Untrained encoder",
    "logmel_statistics": "Log-mel statistics",
}
READ_BY = {"knn": "{num_neighbours} nearest neighbors", "attentive": "attention, {num_heads} heads"}
MAX_CLASSES_IN_MATRIX = 20
NUM_MISTAKES = 8


class SecondReading(NamedTuple):
    """A row of the table of second readings."""

    kind: str
    """`knn` or `attentive`."""
    cells: list[str]


class ClassScores(NamedTuple):
    name: str
    num_clips: int
    """Clips of the class among those that are scored."""
    encoder: float | None
    """Score as a fraction; None if the class cannot be scored."""
    untrained: float | None


class Mistake(NamedTuple):
    truth: str
    guess: str
    share: float
    """Share of the clips of the true class."""


class Task(NamedTuple):
    """A probed dataset, class by class."""

    dataset: str
    scored: str
    """`Test clips`, or what else was scored."""
    remarks: list[str]
    classes: list[ClassScores]
    """Best recognized first."""
    mistakes: list[Mistake] | None
    """The encoder's most frequent mistakes; None for multi-label tasks."""
    class_names: list[str]
    confusion: list[list[float]] | None
    """Shares of each true class; None for multi-label tasks, and if there are too many classes to read."""


def scores_section(scores: Path, datasets: Sequence[str]) -> Section:
    summaries = read_summaries(scores, datasets)
    others = list(dict.fromkeys(name for summary in summaries for name in summary["others"]))
    return section(
        "Scores",
        "scores.html.j2",
        summaries=summaries,
        names=NAMES,
        others=others,
        lead=lead(summaries),
        warning=" ".join(about_validation(summaries)),
        measured_by=measured_by,
        heard=about_heard(summaries),
        second_readings=second_readings(scores, summaries, [*NAMES, *others]),
    )


def lead(summaries: Sequence[dict[str, Any]]) -> str:
    """What the scores say, in a few sentences."""
    ahead = [summary["dataset"] for summary in summaries if beats_random_init(summary)]
    behind = [s["dataset"] for s in summaries if s["gain_over_random_init"]["mean"] < 0]
    below = [s["dataset"] for s in summaries if s["pretrained"]["mean"] < s["logmel_statistics"]["mean"]]
    text = (
        f"Pre-training clearly helps on {len(ahead)} of {len(summaries)} tasks: there the encoder is "
        "ahead of the same encoder before training by more than both intervals."
    )
    if behind:
        text += f" It scores lower than the untrained encoder on {', '.join(behind)}."
    if below:
        text += f" Plain log-mel statistics score higher than the encoder on {', '.join(below)}."
    return text


def second_readings(
    scores: Path, summaries: Sequence[dict[str, Any]], features: Sequence[str]
) -> list[SecondReading]:
    """Empty if embeddings were read by linear probes only."""
    rows = []
    for summary in summaries:
        readings = read_json(scores / f"{summary['dataset']}{DETAILS}")["second_reading"]
        for kind, reading in readings.items():
            cells = [score_cell(reading[name]) if name in reading else "" for name in features]
            read_by = READ_BY[kind].format(**reading)
            rows.append(SecondReading(kind, [summary["dataset"], measured_by(summary), read_by, *cells]))
    return rows


def score_cell(score: dict[str, Any]) -> str:
    """In percent, with an interval if the reading has randomness."""
    return percent(score) if "interval" in score else f"{100 * score['mean']:.1f}"


def classes_section(scores: Path, datasets: Sequence[str]) -> Section | None:
    summaries = read_summaries(scores, datasets)
    if not summaries:
        return None
    tasks = [task_of(summary, read_json(scores / f"{summary['dataset']}{DETAILS}")) for summary in summaries]
    return section(
        "Class by class", "classes.html.j2", tasks=tasks, max_classes_in_matrix=MAX_CLASSES_IN_MATRIX
    )


def task_of(summary: dict[str, Any], details: dict[str, Any]) -> Task:
    names, confusion = details["classes"], details["features"]["pretrained"].get("confusion")
    matrix = None if confusion is None else [shares(row) for row in confusion]
    return Task(
        summary["dataset"],
        "Validation clips" if on_validation(summary) else "Test clips",
        uncounted(summary),
        classes_of(details),
        None if matrix is None else mistakes(names, matrix),
        names,
        matrix if len(names) <= MAX_CLASSES_IN_MATRIX else None,
    )


def uncounted(summary: dict[str, Any]) -> list[str]:
    """Sentences about classes and labels that do not count."""
    sentences = []
    number = summary["num_classes"] - summary["num_classes_scored"]
    clip = "validation clip" if on_validation(summary) else "test clip"
    if number:
        unscored = f"have no {clip}" if summary["metric"] == "accuracy" else f"have no {clip}, or no other"
        sentences.append(f"{number} of {summary['num_classes']} classes {unscored}, and do not count.")
    if summary["observed"] < 1:
        sentences.append(
            f"Annotators looked at {summary['observed']:.0%} of all pairs of a {clip} and a class; "
            "the others count neither in training nor in scores."
        )
    return sentences


def classes_of(details: dict[str, Any]) -> list[ClassScores]:
    """Best recognized first."""
    encoder, untrained = (details["features"][name]["per_class"] for name in ("pretrained", "random_init"))
    found = map(ClassScores, details["classes"], details["num_clips_scored"], encoder, untrained)
    # Ties in reverse order of the classes.
    return sorted(found, key=lambda one: -1 if one.encoder is None else one.encoder)[::-1]


def mistakes(names: Sequence[str], matrix: Sequence[Sequence[float]]) -> list[Mistake]:
    found = [
        Mistake(names[truth], names[guess], share)
        for truth, row in enumerate(matrix)
        for guess, share in enumerate(row)
        if guess != truth and share > 0
    ]
    return sorted(found, key=lambda mistake: -mistake.share)[:NUM_MISTAKES]


def shares(row: Sequence[int]) -> list[float]:
    total = max(sum(row), 1)
    return [count / total for count in row]
