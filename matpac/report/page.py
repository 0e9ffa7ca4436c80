"""scores, embeddings, checkpoint, shards -> one page that opens anywhere, offline."""

from pathlib import Path

from matpac.files import write_text
from matpac.grids import GRIDS
from matpac.params import Params
from matpac.report.curves import training_section
from matpac.report.experiments import (
    is_finetuned,
    read_experiments,
    scored_on,
    settings_of,
    settings_of_finetuned,
)
from matpac.report.finetuned import finetuned_section
from matpac.report.html import render
from matpac.report.paper_section import paper_section
from matpac.report.pictures import crops_section, maps_section
from matpac.report.provenance import data_section, provenance_section, read_optional, run_facts
from matpac.report.scores import classes_section, scores_section


def write_report(root: Path, out: Path, params: Params) -> None:
    """Write the page and the paper's tables as files. Stages that have not run are left out.

    Args:
        root: Folder that holds `data`.
        out: Folder to write `index.html` and the tables to.
        params: Parameters of the run.

    Raises:
        ValueError: If `out` is no folder, or a file of the run is broken.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(
            f"{out}: need a folder for the report, found a file. Move it away and run this again."
        )
    data = root / "data"
    scores, shards, checkpoint = data / "scores", data / "shards", data / "checkpoints" / "pretrained"
    meta, corpus = read_optional(checkpoint / "meta.json"), read_optional(data / "corpus.json")
    experiments = read_experiments(data / "experiments")
    probed = scored_on(experiments, params.probe.score_on)
    finetuned = [one for one in experiments if is_finetuned(one.settings)]
    settings = settings_of(params, corpus, meta)
    sections = [
        scores_section(scores, params.probe.datasets),
        finetuned_section(data, params, finetuned, settings_of_finetuned(params, corpus, meta)),
        training_section(checkpoint, meta, params.model.num_clusters),
        classes_section(scores, params.probe.datasets),
        maps_section(data / "embeddings", params.probe.datasets),
        crops_section(shards, params),
        data_section(shards, params),
        paper_section(shards, out, probed, settings, params, root / GRIDS),
        provenance_section(meta, corpus, experiments, settings, params),
    ]
    page = render(
        "page.html.j2",
        run=run_facts(meta, params),
        sections=[section for section in sections if section is not None],
    )
    write_text(out / "index.html", page)
