"""Score against compute: python -m benchmarks.scaling [add <folder of a project>]

Without arguments, reads benchmarks/results/scaling.csv, fits error against compute, and writes the
tables of docs/scaling.md and docs/scaling.svg. `add` adds the scores of a project's runs of
presets/matpac_small_compute.yaml, also those with other epochs, sizes of networks and seeds, as
`python -m flows.grid budget` makes them.

The error is 1 - score. Three curves are tried over the compute C in PFLOP:

    power law     a * C^-b
    saturating    e + a * C^-b, with e of 0 or more
    logarithm     p + q * ln C

The one that best predicts a budget left out of its fit is taken. Points are means over seeds.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matpac.files import write_text
from matpac.grids import EPOCHS, changed
from matpac.params import Params, flat, load_params, parse_params
from matpac.probing.store import BASELINES
from matpac.progress import stop
from matpac.report.experiments import SECTIONS, Experiment, Settings, read_experiments, sections_of
from matpac.report.rows import compute_of
from matpac.shards.corpus import fingerprint
from matpac.training.cost import GPUS, assumptions, crops_of, estimate, flops_of

PROJECT = Path(__file__).resolve().parent.parent
RUNS = PROJECT / "benchmarks/results/scaling.csv"
PAGE = PROJECT / "docs/scaling.md"
DRAWING = PROJECT / "docs/scaling.svg"
PRESETS = ("paper", "matpac_plus", "m2d", "cheaper")
AUDIOSET_CLIPS = 2_012_615
"""Clips of AudioSet that the authors had."""
NUM_DRAWS = 1_000
RECIPE = PROJECT / "presets/matpac_small_compute.yaml"
FREE = ("model.size", "model.custom.", "pretrain.seed", *EPOCHS, "probe.num_repeats")
"""Keys in which runs of the recipe may differ. Repeats of a probe differ far less than seeds."""
REACH = 4
"""How many times the largest budget a curve is drawn beyond it."""

Floats = NDArray[np.float64]


class Row(NamedTuple):
    """Scores of one run on one dataset, as fractions."""

    size: str
    num_epochs: float
    crops: int
    gflop_a_crop: float
    pflop: float
    """Operations of the whole pre-training."""
    seed: int
    dataset: str
    score: float
    untrained: float
    statistics: float


class Fit(NamedTuple):
    form: str
    coefficients: Floats
    """One row for each draw of seeds; the first row is the fit to the means."""
    left_out: dict[str, float]
    """Root mean square error of predicting a budget left out, by form; fractions."""


# The three curves. `error` is [sample, budget], coefficients are [sample, coefficient].


def line(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Intercept and slope of the least squares lines."""
    centered = x - x.mean()
    slope = (y * centered).sum(1) / (centered**2).sum()
    return y.mean(1) - slope * x.mean(), slope


def fit_power(pflop: Floats, error: Floats) -> Floats:
    intercept, slope = line(np.log(pflop), np.log(np.maximum(error, 1e-4)))
    return np.stack([np.exp(intercept), -slope], axis=1)


def fit_logarithm(pflop: Floats, error: Floats) -> Floats:
    return np.stack(line(np.log(pflop), error), axis=1)


def fit_saturating(pflop: Floats, error: Floats) -> Floats:
    """Least squares over a grid of exponents; floor and factor are never negative."""
    best, least = np.zeros((len(error), 3)), np.full(len(error), np.inf)
    for exponent in np.geomspace(0.02, 3, 120):
        x = pflop**-exponent
        floor, factor = line(x, error)
        through_zero = (error * x).sum(1) / (x**2).sum()
        factor = np.where(floor < 0, through_zero, factor)
        floor = np.where(factor < 0, error.mean(1), np.maximum(floor, 0))
        factor = np.maximum(factor, 0)
        missed = ((floor[:, None] + factor[:, None] * x - error) ** 2).sum(1)
        found = np.stack([floor, factor, np.full_like(floor, exponent)], axis=1)
        best = np.where((missed < least)[:, None], found, best)
        least = np.minimum(missed, least)
    return best


FORMS: dict[str, tuple[Callable[[Floats, Floats], Floats], Callable[[Floats, Floats], Floats], int]] = {
    "power law": (fit_power, lambda c, at: c[:, :1] * at ** -c[:, 1:], 2),
    "saturating": (fit_saturating, lambda c, at: c[:, :1] + c[:, 1:2] * at ** -c[:, 2:], 3),
    "logarithm": (fit_logarithm, lambda c, at: c[:, :1] + c[:, 1:] * np.log(at), 2),
}
"""How each curve is fitted and computed [sample, budget], and its number of coefficients."""


def predict(fit: Fit, at: Floats) -> Floats:
    """Scores [sample, budget], at most 1, which the logarithm would pass."""
    return 1 - np.maximum(0, FORMS[fit.form][1](fit.coefficients, at))


def fit_curve(pflop: Floats, scores: Sequence[Floats], random: np.random.Generator) -> Fit | None:
    """Fit one curve.

    Args:
        pflop: Budgets.
        scores: Scores of the seeds at each budget; fractions.
        random: Draws other seeds: normal around the means, with the spread of seeds pooled over budgets.

    Returns:
        The form that best predicts a budget left out, fitted to the means and to each draw. None with
        fewer than four budgets: any line goes through two, and leaving one out leaves no check.
    """
    if len(pflop) < 4:
        return None
    means = 1 - np.array([[one.mean() for one in scores]])
    left_out = {}
    for form, (fitted, curve, num_coefficients) in FORMS.items():
        if len(pflop) - 1 <= num_coefficients:
            continue
        missed = []
        for index in range(len(pflop)):
            rest = np.arange(len(pflop)) != index
            coefficients = fitted(pflop[rest], means[:, rest])
            missed.append(curve(coefficients, pflop[[index]])[0, 0] - means[0, index])
        left_out[form] = float(np.sqrt(np.mean(np.square(missed))))
    form = min(left_out, key=lambda one: left_out[one])
    # Two or three seeds say little about the spread at their budget; those of all budgets say more.
    num_free = sum(len(one) - 1 for one in scores)
    spread = math.sqrt(sum(((one - one.mean()) ** 2).sum() for one in scores) / num_free) if num_free else 0.0
    spread_of_means = spread / np.sqrt([len(one) for one in scores])
    drawn = means + spread_of_means * random.normal(size=(NUM_DRAWS, len(scores)))
    samples = np.concatenate([means, drawn])
    return Fit(form, FORMS[form][0](pflop, samples), left_out)


def interval(samples: Floats) -> tuple[float, float]:
    """95 % of the draws, without the first row, which is the fit itself."""
    low, high = np.percentile(samples[1:], [2.5, 97.5])
    return float(low), float(high)


def rows_of(root: Path) -> list[Row]:
    """Rows of the project's runs of the recipe.

    Raises:
        ValueError: No record of such a run, or one of other recordings than the project has now.
    """
    params, shards = load_params(root / "params.yaml"), root / "data/shards"
    recipe = fixed(flat(sections_of(load_params(RECIPE), SECTIONS)))
    experiments = [
        one for one in read_experiments(root / "data/experiments") if fixed(one.settings) == recipe
    ]
    if not experiments:
        raise ValueError(
            f"{root}: need records of runs of {RECIPE.relative_to(PROJECT)} in data/experiments, found none. "
            "Copy it to params.yaml and run `python -m flows.grid budget` there."
        )
    return [row for one in experiments for row in rows_of_run(one, params, shards)]


def fixed(settings: Settings) -> Settings:
    """What runs of one recipe share."""
    return {key: value for key, value in settings.items() if not key.startswith((*FREE, "corpus."))}


def rows_of_run(experiment: Experiment, params: Params, shards: Path) -> list[Row]:
    """A row for each dataset of the run; `params` are those of its project."""
    settings = experiment.settings
    for key, found in settings.items():
        section, _, dataset = key.partition(".")
        if section == "corpus" and found != fingerprint(shards / dataset):
            raise ValueError(f"{shards / dataset}: need the recordings of all recorded runs, found others")
    changes = {key: value for key, value in settings.items() if not key.startswith("corpus.")}
    ours = parse_params(changed(params.model_dump(mode="json"), changes), str(shards))
    epochs, per_crop, crops = compute_of(ours, shards)
    assert crops is not None
    numbers = (float(f"{one:.4g}") for one in (per_crop / 1e9, crops * per_crop / 1e15))
    known = (ours.model.size, epochs, crops, *numbers, ours.pretrain.seed)
    rows = []
    for dataset, result in experiment.results.items():
        repeats = (result.repeats, *(result.baselines[name] for name in BASELINES))
        scores = (round(float(np.mean(one)), 4) for one in repeats)
        rows.append(Row(*known, dataset, *scores))
    return rows


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(*(Row.__annotations__[key](value) for key, value in one.items()))
            for one in csv.DictReader(file)
        ]


def kind_of(row: Row) -> tuple[str, str, float]:
    """What the seeds of a budget share."""
    return row.dataset, row.size, row.pflop


def add_rows(path: Path, rows: Sequence[Row]) -> None:
    """Add rows; a run that is there already is replaced."""
    found = {(*kind_of(row), row.seed): row for row in [*read_rows(path), *rows]}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(found[one] for one in sorted(found))


class Curve(NamedTuple):
    """Runs of one dataset: the budgets of one size, and their fit."""

    dataset: str
    size: str
    pflop: Floats
    scores: list[Floats]
    """Scores of the seeds at each budget."""
    fit: Fit | None
    others: list[Row]
    """Runs of other sizes, which are in no fit."""


def curves_of(rows: Sequence[Row]) -> list[Curve]:
    """A curve for each dataset, over the size with the most budgets."""
    curves = []
    for name in dict.fromkeys(row.dataset for row in rows):
        ours = [row for row in rows if row.dataset == name]
        sizes = sorted({row.size for row in ours}, key=lambda one: -len(budgets(ours, one)))
        pflop = budgets(ours, sizes[0])
        of_size = [row for row in ours if row.size == sizes[0]]
        scores = [np.array([row.score for row in of_size if row.pflop == one]) for one in pflop]
        fit = fit_curve(np.array(pflop), scores, np.random.default_rng(0))
        others = [row for row in ours if row.size != sizes[0]]
        curves.append(Curve(name, sizes[0], np.array(pflop), scores, fit, others))
    return curves


def budgets(rows: Sequence[Row], size: str) -> list[float]:
    return sorted({row.pflop for row in rows if row.size == size})


@cache
def cost_lines() -> list[str]:
    """What the shipped recipes would take on one GPU, and what that assumes."""
    runs = {name: load_params(PROJECT / f"presets/{name}.yaml") for name in PRESETS}
    lines = [
        "| preset | crops | GFLOP a crop | PFLOP | crops/s, H100 | hours | crops/s, H200 | hours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, params in runs.items():
        crops, per_crop = crops_of(params, AUDIOSET_CLIPS), flops_of(params).total
        assert crops is not None
        cells = [f"{crops:,}", f"{per_crop / 1e9:.1f}", f"{crops * per_crop / 1e15:,.0f}"]
        for gpu in (GPUS["h100"], GPUS["h200"]):
            speed = estimate(params, gpu).crops_per_s
            cells += [f"{speed:,.0f}", f"{crops / speed / 3600:.1f}"]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    told = assumptions(GPUS["h100"], 1, None).splitlines()
    h200 = assumptions(GPUS["h200"], 1, None).splitlines()[1]
    items = (fill(item, 100, subsequent_indent="  ") for item in (told[1], h200, *told[2:]))
    return [*lines, "", told[0], "", *items]


@cache
def pflop_of_paper() -> float:
    params = load_params(PROJECT / "presets/paper.yaml")
    crops = crops_of(params, AUDIOSET_CLIPS)
    assert crops is not None
    return crops * flops_of(params).total / 1e15


def scaling_lines(rows: Sequence[Row]) -> list[str]:
    """Measured scores, the fits, and how far they reach."""
    if not rows:
        return ["No runs yet: `python -m benchmarks.scaling add <folder>` adds those of a project."]
    curves = curves_of(rows)
    lines = [
        "| dataset | size | epochs | PFLOP | seeds | score | untrained | statistics |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(map(kind_of, rows)):
        same = [row for row in rows if kind_of(row) == kind]
        name, size, pflop = kind
        score, untrained, statistics = (
            f"{100 * np.mean([getattr(row, name) for row in same]):.1f}"
            for name in ("score", "untrained", "statistics")
        )
        cells = [name, size, f"{same[0].num_epochs:g}", f"{pflop:g}", str(len(same))]
        lines.append(f"| {' | '.join([*cells, score, untrained, statistics])} |")
    lines += [
        "",
        f"| dataset | curve | misses a budget left out by | at {REACH} x the largest budget | other sizes |",
        "|---|---|---|---|---|",
    ]
    for curve in curves:
        lines.append(f"| {' | '.join([curve.dataset, *fit_cells(curve)])} |")
    largest = max(curve.pflop[-1] for curve in curves)
    whole = pflop_of_paper()
    beyond = float(f"{whole / largest:.2g}")
    return [
        *lines,
        "",
        "Percent. Curves are fitted to means over seeds of one size; brackets and bands hold 95 % of fits to",
        "other seeds, drawn with the spread of seeds pooled over budgets. They take the form of the curve",
        "for granted; how far a curve misses a budget left out of its fit says more about that.",
        "",
        f"**These curves end at {largest:g} PFLOP, and nothing beyond {REACH} times that is claimed.** The",
        f"paper's run takes {whole:,.0f} PFLOP, {beyond:,.0f} times as many, with larger networks, other",
        "recordings and other tasks. So no curve here predicts its scores (ESC-50 93.5, NSynth 74.3, mean of",
        "seven tasks 74.9; MATPAC, Table II): they stand here for scale only.",
    ]


def fit_cells(curve: Curve) -> list[str]:
    if curve.fit is None:
        return [f"none: need 4 budgets of one size, found {len(curve.pflop)}", "", "", ""]
    fit = curve.fit
    missed = ", ".join(f"{form} {100 * value:.1f}" for form, value in fit.left_out.items())
    samples = predict(fit, np.array([REACH * curve.pflop[-1]]))
    low, high = interval(samples)
    cells = [in_words(fit), missed, f"{100 * samples[0, 0]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"]
    others = []
    for size, pflop in sorted({(row.size, row.pflop) for row in curve.others}):
        found = np.mean([row.score for row in curve.others if (row.size, row.pflop) == (size, pflop)])
        gap = found - predict(fit, np.array([pflop]))[0, 0]
        others.append(f"{size} at {pflop:g} PFLOP: {100 * gap:+.1f} from the curve")
    return [*cells, "; ".join(others)]


def in_words(fit: Fit) -> str:
    first = fit.coefficients[0]
    if fit.form == "power law":
        return f"error {100 * first[0]:.3g} C^{-first[1]:.3f}"
    if fit.form == "saturating":
        return f"error {100 * first[0]:.3g} + {100 * first[1]:.3g} C^{-first[2]:.3f}"
    return f"error {100 * first[0]:.3g} {100 * first[1]:+.3g} ln C"


def draw(curves: Sequence[Curve]) -> bytes:
    from matplotlib.figure import Figure

    from matpac.report.html import COLORS, styled, svg_of, unbox_

    with styled():
        drawing = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = drawing.subplots()
        for color, curve in zip(COLORS, curves, strict=False):
            for pflop, scores in zip(curve.pflop, curve.scores, strict=True):
                axes.plot([pflop] * len(scores), 100 * scores, "o", color=color, markersize=3)
            for row in curve.others:
                axes.plot([row.pflop], [100 * row.score], "^", color=color, markersize=4)
            axes.plot([], [], "o", color=color, label=f"{curve.dataset}, {curve.size}")
            if curve.fit is not None:
                measured, ahead = (
                    np.geomspace(start, end, 40)
                    for start, end in (
                        (curve.pflop[0], curve.pflop[-1]),
                        (curve.pflop[-1], REACH * curve.pflop[-1]),
                    )
                )
                for at, style in ((measured, "-"), (ahead, ":")):
                    samples = 100 * predict(curve.fit, at)
                    low, high = np.percentile(samples[1:], [2.5, 97.5], axis=0)
                    axes.plot(at, samples[0], style, color=color, linewidth=1.2)
                    axes.fill_between(at, low, high, color=color, alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        axes.set_xlabel("PFLOP of pre-training; dotted: not measured; triangles: other sizes")
        axes.set_ylabel("percent")
        unbox_(axes)
        drawing.legend(frameon=False, fontsize=8, loc="outside right upper")
        found: bytes = svg_of(drawing)
        return found


def between(text: str, mark: str, lines: Sequence[str]) -> str:
    """The page with other lines between `<!-- mark -->` and `<!-- end of mark -->`."""
    before, rest = text.split(f"<!-- {mark} -->\n")
    _, after = rest.split(f"<!-- end of {mark} -->")
    return f"{before}<!-- {mark} -->\n" + "\n".join(lines) + f"\n<!-- end of {mark} -->{after}"


def page_of(text: str, rows: Sequence[Row]) -> str:
    return between(between(text, "cost", cost_lines()), "scaling", scaling_lines(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["add"], help="add the scores of a project's runs")
    parser.add_argument("folder", nargs="?", type=Path, help="its folder, with params.yaml and data")
    wanted = parser.parse_args()
    if (wanted.what is None) != (wanted.folder is None):
        parser.error("need `add` with the folder of a project, or nothing")
    try:
        if wanted.folder is not None:
            found = rows_of(wanted.folder)
            add_rows(RUNS, found)
            csv.writer(sys.stdout).writerows(found)
            return
        rows = read_rows(RUNS)
        write_text(PAGE, page_of(PAGE.read_text(encoding="utf-8"), rows))
        if rows:
            write_text(DRAWING, draw(curves_of(rows)).decode())
    except ValueError as error:
        stop(f"scaling: {error}")
    print(f"{PAGE.relative_to(PROJECT)} is written from {len(rows)} scores of {RUNS.relative_to(PROJECT)}.")


if __name__ == "__main__":
    main()
