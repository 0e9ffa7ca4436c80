"""scores, embeddings, checkpoint, shards -> one page that opens anywhere, offline."""

from importlib.resources import files
from pathlib import Path

from matpac.files import write_text
from matpac.params import Params
from matpac.report.curves import training
from matpac.report.experiments import read_experiments, settings_of
from matpac.report.markup import contents, facts
from matpac.report.paper_section import paper
from matpac.report.pictures import maps, spectrograms
from matpac.report.provenance import data, provenance, read_optional, run_facts
from matpac.report.scores import classes, headline

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MATPAC report</title>
<style>
{style}
</style>
</head>
<body>
<header>
<h1>MATPAC report</h1>
<p>An audio encoder, trained without labels by predicting hidden parts of spectrograms, and what its
embeddings are worth on labelled tasks.</p>
{run}
{contents}
</header>
<main>
{sections}
</main>
</body>
</html>
"""


def build_report(root: Path, out: Path, params: Params) -> None:
    """Write `out`/index.html, and the paper's tables beside it, from the folder `data` below `root`.

    Whatever stage has not run yet is left out of the page. Raises ValueError where `out` is no folder.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"report: need a folder at {out}, got a file. Move it away and run this again.")
    source = root / "data"
    checkpoint = source / "checkpoints" / "pretrained"
    meta, corpus = read_optional(checkpoint / "meta.json"), read_optional(source / "corpus.json")
    experiments = read_experiments(source / "experiments")
    this_run = settings_of(params, corpus, meta)
    sections = [
        headline(source / "scores", params.probe.datasets),
        paper(source / "shards", out, experiments, this_run, params),
        classes(source / "scores", params.probe.datasets),
        training(checkpoint, params.model.num_clusters),
        maps(source / "embeddings", params.probe.datasets),
        spectrograms(source / "shards", params),
        data(source / "shards", params),
        provenance(meta, corpus, experiments, this_run, params),
    ]
    page = PAGE.format(
        style=files("matpac.report").joinpath("style.css").read_text(encoding="utf-8"),
        run=facts(run_facts(meta, params)),
        contents=contents(sections),
        sections="\n".join(part for part in sections if part),
    )
    write_text(out / "index.html", page)
