"""rows and columns of a table -> notes below it: missing cells and how to fill them, seeds, revisions."""

import json
import shlex
from collections.abc import Sequence

from matpac.params import Params
from matpac.report.columns import Column
from matpac.report.experiments import INIT_DIGEST, Experiment, is_other
from matpac.report.rows import Run, on_same_data, repeats_by_seed, shared_seeds

UNKNOWN = "unknown"


def notes_of(
    runs: Sequence[Run],
    base: Run,
    reference: Experiment | None,
    columns: Sequence[Column],
    grids: Sequence[str],
    params: Params,
    baselines: Sequence[Run] = (),
) -> list[str]:
    """All notes that apply to a table.

    `reference` was probed on today's recordings; `grids` are the table's grids in presets/grids.
    """
    notes = [
        on_validation_clips(params),
        not_run(runs),
        not_probed_here(columns, params),
        not_probed_there(runs, base, reference, columns),
        without_seeds([*baselines, *runs], base, grids),
        revisions(runs),
    ]
    return [note for note in notes if note]


def on_validation_clips(params: Params) -> str:
    if params.probe.score_on == "test":
        return ""
    return (
        "Ours are scores on VALIDATION clips (`probe.score_on: validation`), printed ones on test clips: "
        "they cannot be compared. Records of test scores are kept; `probe.score_on: test` shows them."
    )


def not_run(runs: Sequence[Run]) -> str:
    """Rows without any experiment, and the commands that run them."""
    sentences = []
    for grid in dict.fromkeys(run.grid for run in runs if not run.seeds):
        labels = "; ".join(run.label for run in runs if run.grid == grid and not run.seeds)
        command = f"python -m flows.grid {grid}" if grid else "dvc repro"
        sentences.append(f"Not run: {labels}. To run: `{command}`.")
    return " ".join(sentences)


def not_probed_here(columns: Sequence[Column], params: Params) -> str:
    """Columns of datasets that params.yaml does not probe, and the edit that fills them."""
    kinds = list(dict.fromkeys(kind for column in columns for kind in column.not_probed))
    if not kinds:
        return ""
    known: dict[str, str] = {source.kind: name for name, source in params.datasets.items()}
    names = ", ".join(known.get(kind, kind) for kind in kinds)
    text = f"Not probed: {names}. To probe: name them under `probe.datasets` in params.yaml"
    absent = [kind for kind in kinds if kind not in known]
    if absent:
        which = "their entries" if absent == kinds else f"the entries of {', '.join(absent)}"
        text += f" and copy {which} from presets/paper.yaml to `datasets`"
    return f"{text}, then `dvc repro`, and for other rows their command again. Means need all their datasets."


def not_probed_there(
    runs: Sequence[Run], base: Run, reference: Experiment | None, columns: Sequence[Column]
) -> str:
    """Rows that were run without some of the datasets probed now, or on other recordings."""
    datasets = list(dict.fromkeys(name for column in columns for name in column.datasets))
    sentences = []
    for run in runs:
        names = [
            name
            for name in datasets
            if run.seeds and not repeats_by_seed(on_same_data(run.seeds, reference, [name]), [name])
        ]
        if names:
            sentences.append(f"{run.label}: not probed on {', '.join(names)} of today; {again(run, base)}.")
    return " ".join(sentences)


def again(run: Run, base: Run) -> str:
    """Command that runs it with today's datasets."""
    if run.settings == base.settings:
        return "`dvc repro`"
    if is_other(run.settings):
        return "name it under `embed.others` in params.yaml, then `dvc repro`"
    if run.grid:
        return f"`python -m flows.grid {run.grid}`"
    # Fingerprints of recordings and initial weights are settings, but no parameters.
    changes = [
        f"-S {shlex.quote(f'{key}={value if isinstance(value, str) else json.dumps(value)}')}"
        for key, value in run.settings.items()
        if base.settings.get(key) != value and not key.startswith("corpus.") and key != INIT_DIGEST
    ]
    if not changes:
        return "its own recordings are needed for that"
    return f"`dvc exp run {' '.join([*changes, 'record'])}`"


def without_seeds(runs: Sequence[Run], base: Run, grids: Sequence[str]) -> str:
    """Rows whose differences are not over seeds of pre-training; empty if there are none."""
    single = [
        run
        for run in runs
        if run.settings != base.settings
        and run.seeds
        and base.seeds
        and len(shared_seeds(run.seeds, base.seeds)) < 2
    ]
    if not single:
        return ""
    text = (
        f"Paired by repeats of the probe, not by seed: {'; '.join(run.label for run in single)}. "
        "A * there speaks of the probe only: another seed of pre-training may make as large a difference."
    )
    commands = " and ".join(f"`python -m flows.grid {grid} --seeds 3`" for grid in grids)
    return f"{text} More seeds: {commands}."


def revisions(runs: Sequence[Run]) -> str:
    """Rows by the revision that made them; empty if there is one revision.

    A tree with changes counts as its commit, because an edited params.yaml is a change.
    """
    labels: dict[str, list[str]] = {}
    for run in runs:
        results = [result for one in run.seeds.values() for result in one.results.values()]
        for result in results:
            made_by = dict.fromkeys([result.trained_revision, result.git_revision])
            words = " and ".join(revision.removesuffix("+") for revision in made_by if revision)
            labels.setdefault(words or UNKNOWN, []).append(run.label)
    if len(labels) < 2:
        return ""
    told = "; ".join(f"{words}: {', '.join(dict.fromkeys(names))}" for words, names in labels.items())
    if len(labels.keys() - {UNKNOWN}) < 2:
        return f"Not all rows are known to come from one revision of the code. {told}."
    return f"Rows come from different revisions of the code. {told}."
