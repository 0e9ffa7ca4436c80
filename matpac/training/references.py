"""curves of a run, reference curves of the presets -> where the run leaves them, and what differs.

references/<preset>/about.json   parameters and data that all seeds share; origin of each seed
references/<preset>/metrics.csv  thinned rows of metrics.csv, and their seed
references/<preset>/online.csv   rows of online.csv, and their seed

The report reads them without loading PyTorch. Pre-training does not depend on them: what they say
is printed and is no part of its result.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from numpy.lib.stride_tricks import sliding_window_view

from matpac.files import read_json, write_json
from matpac.params import BEFORE, LogMel, Model, Online, Pretrain, Section, flat, read_section
from matpac.training.history import History, Row, read_history, write_history
from matpac.training.schedules import durations_of

SHIPPED = Path(__file__).with_name("references")
ABOUT = "about.json"

EARLY, LATE = 30, 50
"""Stretches of the first tenth of a run, where most mistakes show, and of the rest."""
CONSECUTIVE = 3
"""A run leaves the reference if it is outside for so many stretches in a row, on the same side."""
NAMES = {
    "loss": "loss",
    "prediction_loss": "prediction loss",
    "classification_loss": "classification loss",
    "grad_norm": "gradient norm",
    "teacher_rankme": "RankMe of the teacher",
    "teacher_perplexity": "perplexity of the teacher",
    "knn_accuracy": "k-NN accuracy",
}
"""Columns of metrics.csv and online.csv that references have."""
LEAST_WIDENING = {
    "loss": (0.15, 0.15),
    "prediction_loss": (0.15, 0.4),
    "classification_loss": (0.15, 0.15),
    "grad_norm": (0.5, 0.5),
    "teacher_rankme": (0.07, 0.2),
    "teacher_perplexity": (0.3, 0.3),
    "knn_accuracy": (0.3, 0.3),
}
"""Logarithm of the factor by which values may leave the range of the seeds, however near these are: in
the first tenth of a run, and later, when seeds may part for good (NOTES.md, 2026-11-28)."""
SHAPING = (
    *("logmel.", "model.", "pretrain.init", "pretrain.crop_frames", "pretrain.short_clips"),
    *("pretrain.batch_size", "pretrain.num_epochs", "pretrain.mixup"),
)
"""Keys without which two runs are no longer of one kind. Other keys of `pretrain` are suspects."""
NEVER_SUSPECT = ("pretrain.seed", "pretrain.datasets")
"""Names of datasets are free; that the data is the same shows in clips, mean and deviation."""


class Facts(Section):
    """What the curves of a run depend on."""

    logmel: LogMel
    model: Model
    pretrain: Pretrain
    online: Online | None
    num_clips: int
    mean: float
    """Mean of all log-mel values of the data."""
    std: float
    """Deviation of all log-mel values of the data."""

    @property
    def total_updates(self) -> int:
        return durations_of(self.num_clips, self.pretrain).total

    @property
    def parameters(self) -> dict[str, Any]:
        values = flat(self.model_dump(mode="json", include={"logmel", "model", "pretrain"}))
        return {key: value for key, value in values.items() if key not in NEVER_SUSPECT}


class Origin(Section):
    """How the curves of one seed were made."""

    seed: int
    update: int
    """Updates done; fewer than planned if the run was stopped."""
    git_revision: str
    hardware: str
    versions: dict[str, str]
    duration_s: float


class About(Facts):
    """about.json of a reference: what its seeds share, and the origin of each."""

    origins: tuple[Origin, ...]


class Reference(NamedTuple):
    name: str
    """Name of its preset, as in presets/<name>.yaml."""
    about: About
    history: History
    """Rows of all seeds, each with a column `seed`."""


class Band(NamedTuple):
    """A column of all seeds over the stretches of a run."""

    least: Float[np.ndarray, " stretch"]
    most: Float[np.ndarray, " stretch"]
    """Range of the seeds."""
    lower: Float[np.ndarray, " stretch"]
    upper: Float[np.ndarray, " stretch"]
    """Range in which a run is like the reference."""


class Departure(NamedTuple):
    """Where one column of a run first leaves the reference."""

    column: str
    update: int
    value: float
    least: float
    most: float
    share: float
    """Share of the stretches so far that were outside."""


class Comparison(NamedTuple):
    """A run laid over the reference that it is like."""

    reference: Reference
    suspects: dict[str, tuple[Any, Any]]
    """Keys that differ: value of the run, value of the reference."""
    total_updates: int
    same_online: bool
    """Whether both were evaluated on the same labelled clips."""

    def departures(self, history: History) -> list[Departure]:
        """Columns that leave the reference, in the order in which they do."""
        found = [self._departure(column, history.updates) for column in NAMES if column != "loss"]
        if self.same_online:
            found.append(self._departure("knn_accuracy", history.online))
        return sorted((one for one in found if one), key=lambda one: one.update)

    def bands(self) -> dict[str, Band]:
        """Bands of the columns that can be compared, each over all stretches of the run."""
        return {
            column: made
            for column in NAMES
            if (column != "knn_accuracy" or self.same_online)
            and (made := band(self.reference, column)) is not None
        }

    def _departure(self, column: str, rows: Sequence[Row]) -> Departure | None:
        rows = [row for row in rows if column in row]
        reference = band(self.reference, column) if rows else None
        if reference is None:
            return None
        values = stretches_of(rows, column, self.total_updates)
        if rows[-1]["step"] < self.total_updates - 1:  # The last stretch may get more rows.
            values[stretch_at([rows[-1]["step"]], self.total_updates)] = np.nan
        seen = np.flatnonzero(~np.isnan(values))
        side = np.sign(values[seen] - np.clip(values[seen], reference.lower[seen], reference.upper[seen]))
        for last in range(CONSECUTIVE - 1, len(seen)):
            if abs(side[last - CONSECUTIVE + 1 : last + 1].sum()) == CONSECUTIVE:
                at = seen[last]
                inside = [row["step"] for row in rows if stretch_at([row["step"]], self.total_updates) == at]
                return Departure(
                    column,
                    int(inside[-1]),
                    float(values[at]),
                    float(reference.least[at]),
                    float(reference.most[at]),
                    float(np.abs(side).mean()),
                )
        return None

    def describe(self, departures: Sequence[Departure]) -> str:
        """One line: which columns leave the reference, where, and the keys that differ."""
        seeds = _seeds(self.reference)
        said = "; ".join(
            f"{NAMES[one.column]} {one.value:.3g} at update {one.update:,}, "
            f"reference {_range(one.least, one.most)}"
            for one in departures
        )
        origin = self.reference.about.origins[0]
        made_with = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
        causes = _differing(self.suspects) or (
            f"no parameter differs, so look at recordings, hardware and versions (reference: {made_with})"
        )
        return f"{said} ({seeds} of presets/{self.reference.name}.yaml): {causes}"

    def introduce(self) -> str:
        differing = _differing(self.suspects)
        return (
            f"Compared with {_seeds(self.reference)} of presets/{self.reference.name}.yaml"
            f"{', though ' + differing if differing else ''}."
        )


def compare(facts: Facts, references: Iterable[Reference]) -> Comparison | str:
    """Find the reference that a run is like.

    Args:
        facts: What the run's curves depend on.
        references: Curves to choose from.

    Returns:
        The comparison, or one line that says why there is none.
    """
    references = list(references)
    same_data = [one for one in references if _is_same_data(facts, one.about)]
    if not same_data:
        names = ", ".join(f"presets/{one.name}.yaml" for one in references)
        return f"No reference curves for this data; there are some for that of {names or 'no preset'}."
    differing = [(_differences(facts, one.about), one) for one in same_data]
    # Fewest keys that make another kind of run, then fewest others.
    different, nearest = min(differing, key=lambda pair: (len(_shaping(pair[0])), len(pair[0])))
    if shaping := _shaping(different):
        return (
            f"No reference curves for this run. Nearest is presets/{nearest.name}.yaml, "
            f"but {_differing(shaping)}."
        )
    return Comparison(nearest, different, facts.total_updates, _is_same_online(facts, nearest.about))


def facts_of(meta: dict[str, Any]) -> Facts:
    """What meta.json of a checkpoint says of it.

    Raises:
        KeyError: It lacks a key that it has had in all versions.
        ValueError: A value is not as it should be.
    """
    return Facts.model_validate(
        {
            "logmel": meta["logmel"],
            "model": meta["model"],
            "pretrain": BEFORE | meta["pretrain"],
            "online": meta.get("online"),
            "num_clips": meta["num_clips"],
            "mean": meta["standard"]["mean"],
            "std": meta["standard"]["std"],
        }
    )


def band(reference: Reference, column: str) -> Band | None:
    """The column's range over the seeds, and the wider one in which a run is like them; None without rows.

    More seeds would differ more. So the range over three stretches is widened on both sides by the
    width between the seeds nearby, or by LEAST_WIDENING if that is more, which counts three times
    for one seed. Widths are those of logarithms.
    """
    seeds = []
    for origin in reference.about.origins:
        for table in reference.history:
            rows = [row for row in table if row["seed"] == origin.seed and column in row]
            if rows:
                values = stretches_of(rows, column, reference.about.total_updates)
                known = np.flatnonzero(~np.isnan(values))
                logs = np.log(np.maximum(values[known], 1e-6))
                stopped = origin.update < reference.about.total_updates
                after = np.nan if stopped else logs[-1]
                seeds.append(np.interp(np.arange(len(values)), known, logs, right=after))
    if not seeds:
        return None
    # Of a seed that was stopped early, the rest is NaN; fmin and fmax pass over it.
    least, most = np.fmin.reduce(seeds), np.fmax.reduce(seeds)
    num_seeds = np.sum(~np.isnan(seeds), axis=0)
    at_least = np.repeat(LEAST_WIDENING[column], (EARLY, LATE)) * np.maximum(1, 3 / np.maximum(1, num_seeds))
    widening = np.maximum(_around(most - least, 4).max(1), at_least)
    lower, upper = _around(least, 1).min(1) - widening, _around(most, 1).max(1) + widening
    return Band(*map(np.exp, (least, most, lower, upper)))


def edges_of(total_updates: int) -> Float[np.ndarray, " edge"]:
    """First updates of the stretches of a run, and its end."""
    tenth = total_updates / 10
    early, late = np.linspace(0, tenth, EARLY + 1), np.linspace(tenth, total_updates, LATE + 1)
    return np.concatenate([early[:-1], late])


def stretch_at(updates: Sequence[float], total_updates: int) -> Int64[np.ndarray, " update"]:
    found = np.searchsorted(edges_of(total_updates), updates, side="right") - 1
    return np.clip(found, 0, EARLY + LATE - 1)


def stretches_of(rows: Sequence[Row], column: str, total_updates: int) -> Float[np.ndarray, " stretch"]:
    """Median of the column in each stretch, whatever the number of rows there; NaN without rows."""
    stretches = stretch_at([row["step"] for row in rows], total_updates)
    values = np.array([row[column] for row in rows])
    medians = np.full(EARLY + LATE, np.nan)
    for stretch in np.unique(stretches):
        medians[stretch] = np.median(values[stretches == stretch])
    return medians


def thinned(rows: Sequence[Row], seed: int, total_updates: int) -> list[Row]:
    """One row for each stretch that has any, with medians of its columns of NAMES, and the seed."""
    steps = [row["step"] for row in rows]
    stretches = stretch_at(steps, total_updates)
    columns = {name: stretches_of(rows, name, total_updates) for name in NAMES if rows and name in rows[0]}
    return [
        {
            "seed": seed,
            "step": int(np.mean([step for step, at in zip(steps, stretches, strict=True) if at == stretch])),
        }
        | {name: float(f"{values[stretch]:.5g}") for name, values in columns.items()}
        for stretch in np.unique(stretches)
    ]


def read_references(folder: Path = SHIPPED) -> list[Reference]:
    """All references below a folder.

    Raises:
        ValueError: A file is damaged; the error names it.
    """
    return [read_reference(about.parent) for about in sorted(folder.glob(f"*/{ABOUT}"))]


def read_reference(folder: Path) -> Reference:
    about = read_section(About, folder / ABOUT, older={"pretrain": BEFORE})
    return Reference(folder.name, about, read_history(folder))


def folder_of(preset: str) -> Path:
    """Folder of the reference of a preset.

    Raises:
        ValueError: It is no name but a path, below which no run would look.
    """
    if not re.fullmatch(r"\w[\w-]*", preset):
        raise ValueError(f"need the name of a preset, such as {Path(preset).stem}, found {preset}")
    return SHIPPED / preset


def add_to_reference(checkpoint: Path, folder: Path) -> int:
    """Add the curves of a run to a reference, instead of those that it has of this seed.

    A run that was stopped counts as far as it went; one seed must have been finished.

    Args:
        checkpoint: Checkpoint or saved state: meta.json, metrics.csv and online.csv.
        folder: Reference to write, named like its preset; made if it is missing.

    Returns:
        Number of seeds that the reference has now.

    Raises:
        ValueError: There is no run, the first one is not finished, or others differ from it in more than
            the seed: in parameters, data, or clips that `online` names.
    """
    meta = read_json(checkpoint / "meta.json")
    try:
        facts, seed, update = facts_of(meta), meta["pretrain"]["seed"], meta["update"]
    except KeyError as error:
        raise ValueError(
            f"{checkpoint / 'meta.json'}: need that of a run, found one without {error}"
        ) from None
    total = facts.total_updates
    origins, history = {}, History([], [])
    if (folder / ABOUT).exists():
        older = read_reference(folder)
        if different := _differences(facts, older.about) | _differences_in_data(facts, older.about):
            raise ValueError(
                f"{checkpoint}: need a run like those of {folder}, found that {_differing(different)}."
            )
        facts = older.about
        origins = {origin.seed: origin for origin in older.about.origins if origin.seed != seed}
        for table, rows in zip(history, older.history, strict=True):
            table += [row | {"seed": int(row["seed"])} for row in rows if row["seed"] != seed]
    if max([update, *(origin.update for origin in origins.values())]) < total:
        raise ValueError(
            f"{checkpoint}: need a finished run first, found one at update {update:,} of {total:,}."
        )
    origins[seed] = Origin.model_validate(
        {key: meta[key] for key in Origin.model_fields if key != "seed"} | {"seed": seed}
    )
    for table, rows in zip(history, read_history(checkpoint), strict=True):
        table += thinned(rows, seed, total)
        table.sort(key=lambda row: (row["seed"], row["step"]))
    shared = {name: getattr(facts, name) for name in Facts.model_fields}
    about = About(**shared, origins=tuple(origins[number] for number in sorted(origins)))
    folder.mkdir(parents=True, exist_ok=True)
    write_history(folder, history)
    write_json(folder / ABOUT, about.model_dump(mode="json"))
    return len(origins)


def _is_same_data(run: Facts, reference: Facts) -> bool:
    return (
        abs(run.num_clips - reference.num_clips) <= reference.num_clips / 100
        and abs(run.mean - reference.mean) < 0.05
        and abs(run.std - reference.std) < 0.05
    )


def _is_same_online(run: Facts, reference: Facts) -> bool:
    """Whether both were evaluated on the same labelled clips, however often."""
    ours, theirs = run.online, reference.online
    return (
        ours is not None
        and theirs is not None
        and ours == theirs.model_copy(update={"every_updates": ours.every_updates})
    )


def _differences_in_data(run: Facts, reference: Facts) -> dict[str, tuple[Any, Any]]:
    """Of the clips learned from, and of those that `online` names: value of the run, of the reference."""
    names = [] if _is_same_data(run, reference) else ["num_clips", "mean", "std"]
    names += [] if run.online is reference.online is None or _is_same_online(run, reference) else ["online"]
    return {name: (getattr(run, name), getattr(reference, name)) for name in names}


def _differences(run: Facts, reference: Facts) -> dict[str, tuple[Any, Any]]:
    """Keys that differ: value of the run, value of the reference."""
    ours, theirs = run.parameters, reference.parameters
    return {
        key: (ours.get(key), theirs.get(key))
        for key in sorted(ours | theirs)
        if ours.get(key) != theirs.get(key)
    }


def _shaping(different: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    return {key: pair for key, pair in different.items() if key.startswith(SHAPING)}


def _differing(different: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(
        f"{key} is {_plain(ours)}, reference {_plain(theirs)}" for key, (ours, theirs) in different.items()
    )


def _plain(value: Any) -> str:  # noqa: ANN401 - any value of a parameter
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def _range(least: float, most: float) -> str:
    ends = f"{least:.3g}", f"{most:.3g}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _seeds(reference: Reference) -> str:
    number = len(reference.about.origins)
    return f"{number} seed{'s' if number > 1 else ''}"


def _around(values: Float[np.ndarray, " stretch"], reach: int) -> Float[np.ndarray, "stretch near"]:
    """For each stretch, the values of those at most `reach` away."""
    return sliding_window_view(np.pad(values, reach, mode="edge"), 2 * reach + 1)
