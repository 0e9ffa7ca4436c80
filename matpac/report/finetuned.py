"""classifiers, records -> a section of the page: encoder and head trained together, beside probes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matpac.files import read_json
from matpac.finetuning.scores import read_finetuned
from matpac.params import Params
from matpac.probing.heard import heard_in_words
from matpac.probing.scores import DETAILS, mean_and_interval, percent
from matpac.report.experiments import Experiment, Settings
from matpac.report.html import Section, section
from matpac.report.rows import what_differs
from matpac.report.scores import score_cell

READ_BY = {"linear": "Linear probe", "knn": "Nearest neighbors", "attentive": "Attention"}
HEADER = ["Task", "Measured by", "Chance", *READ_BY.values(), "Fine-tuned", "Above the linear probe"]


def finetuned_section(
    data: Path, params: Params, records: Sequence[Experiment], settings: Settings
) -> Section | None:
    """Scores beside those of the frozen encoder, and earlier runs; None if nothing was fine-tuned.

    Args:
        data: Folder `data` of the project.
        params: Parameters of the run.
        records: Records of fine-tuning.
        settings: Settings of this run's fine-tuning.
    """
    found = read_finetuned(data / "finetuned", params.finetune.datasets)
    if not found:
        return None
    rows = [row_of(name, about["scores"], frozen(data / "scores", name)) for name, about in found.items()]
    return section(
        "Fine-tuned",
        "finetuned.html.j2",
        header=HEADER,
        rows=rows,
        heard=heard_in_words({name: about["scores"].get("heard") for name, about in found.items()}),
        num_repeats=params.finetune.num_repeats,
        runs_header=["Run", *found],
        runs=runs_of(records, settings, list(found)),
    )


def frozen(scores: Path, dataset: str) -> dict[str, dict[str, Any]]:
    """Scores of the encoder as it is, by how its embeddings were read; empty without probes."""
    path = scores / f"{dataset}{DETAILS}"
    if not path.exists():
        return {}
    details = read_json(path)
    others = {kind: reading["pretrained"] for kind, reading in details["second_reading"].items()}
    return {"linear": details["summary"]["pretrained"], **others}


def row_of(name: str, scores: dict[str, Any], readings: dict[str, dict[str, Any]]) -> list[str]:
    gain = ""
    if "linear" in readings:
        gain = f"{100 * (scores['mean'] - readings['linear']['mean']):+.1f}"
    return [
        name,
        f"{scores['metric']}, {scores['protocol']}",
        f"{100 * scores['chance']:.1f}",
        *(score_cell(readings[kind]) if kind in readings else "" for kind in READ_BY),
        percent(scores),
        gain,
    ]


def runs_of(records: Sequence[Experiment], settings: Settings, datasets: Sequence[str]) -> list[list[str]]:
    """A row for each record, this run first; empty if there is nothing to compare with."""
    ours = next((one for one in records if one.settings == settings), None)
    others = [one for one in records if one is not ours]
    if ours is None or not others:
        return []
    rows = sorted([what_differs(one.settings, settings), *cells(one, ours, datasets)] for one in others)
    return [["this run", *cells(ours, ours, datasets)], *rows]


def cells(one: Experiment, ours: Experiment, datasets: Sequence[str]) -> list[str]:
    texts = []
    for name in datasets:
        found, today = one.results.get(name), ours.results.get(name)
        if found is None:
            texts.append("not run")
        elif today is not None and found.data != today.data:
            texts.append("other data")
        else:
            texts.append(percent(mean_and_interval(found.repeats)))
    return texts
