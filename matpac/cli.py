"""The command `matpac`: the pipeline's stages after the shards, and tools for trained encoders.

Slow imports are inside the commands, so that `--help` answers at once.
"""

from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Literal

import typer

import matpac
from matpac.clip import REJECT
from matpac.files import WORK, check_place, exclusive, line_of, read_json, write_json, write_text
from matpac.progress import escape_logs, say, stop

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

SOURCES = Path("data/sources")
RAW = Path("data/raw")
SHARDS = Path("data/shards")
CORPUS = Path("data/corpus.json")
CORPUS_PARTS = Path("data/corpus")
CHECKPOINT = Path("data/checkpoints/pretrained")
EMBEDDINGS = Path("data/embeddings")
SCORES = Path("data/scores")
CLASSIFIERS = Path("data/classifiers")
FINETUNED = Path("data/finetuned")
ABOUT_FINETUNED = """Classifiers, one folder for each dataset of `finetune.datasets` in params.yaml.
`matpac finetune` writes them; none are made by default.
"""
EXPERIMENTS = Path("data/experiments")
RECORDED_ELSEWHERE = SOURCES / "experiments.json"
REPORT = Path("data/report")
PRESETS = Path("presets")

ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file.", readable=False)]
DEFAULT_PARAMS = Path("params.yaml")
HopMs = Annotated[
    float | None,
    typer.Option("--hop-ms", help="Time between embeddings over time: 160 (default), 80, 40, 20 or 10 ms."),
]

PoolingOption = Annotated[
    Literal["mean", "mean_and_deviation"],
    typer.Option(help="mean_and_deviation adds the deviation over time: twice as long."),
]


def _say_version(asked: bool) -> bool:
    if asked:
        _print(f"matpac {matpac.__version__}")
        raise typer.Exit
    return asked


@app.callback()
def matpac_command(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """Self-supervised audio representation learning with MATPAC.

    `dvc repro` runs the whole pipeline; pretrain, probe, report and others are its stages. `embed`
    also takes your own files, `inspect` and `cost` tell what a run would do before it begins.
    """


@app.command()
def datasets(params: ParamsFile = DEFAULT_PARAMS) -> None:
    """List the built-in public datasets and the state of yours.

    Public datasets are listed with size, licence and protocol, those of params.yaml with the
    recordings and shards that are on disk.
    """
    from matpac.datasets.preview import own_table, public_table
    from matpac.params import load_params

    _print(f"{public_table()}\n\n{own_table(load_params(params).datasets)}")


@app.command()
def inspect(
    dataset: Annotated[str, typer.Argument(help="A name under `datasets` in params.yaml.")],
    params: ParamsFile = DEFAULT_PARAMS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with all counts.")] = False,
) -> None:
    """Show what preparing a dataset would do, before any work.

    Counts clips, hours, classes and rejections, and finds leaks between splits. Reads headers and
    checksums of the recordings on disk; downloads and converts nothing.
    """
    from matpac.params import load_params
    from matpac.prepare.inspect import inspect_dataset
    from matpac.prepare.inspect_text import json_of, text_of
    from matpac.prepare.plan import rules_for
    from matpac.signal.audio import mute_c_libraries

    checked = load_params(params)
    source, pretrain = checked.source_of(dataset), checked.pretrain
    mute_c_libraries()
    shards = rules_for(source, checked.shards)
    found = inspect_dataset(dataset, source, checked.logmel, shards, pretrain.crop_frames)
    text = json_of if as_json else text_of
    _print(text(found, shards, pretrain))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of your recordings; it is only read.")],
    out: Annotated[Path, typer.Option(help="Parameter file to write.")] = DEFAULT_PARAMS,
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset; by default that of the folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that you have edited.")] = False,
) -> None:
    """Write a params.yaml for a folder of your recordings.

    Reads all names and some headers: audio files in any tree, tars, parquet files, datasets of
    Hugging Face. Chooses labels, crops, model and epochs, with a comment on each choice. Replaces
    a params.yaml that is still a preset, and no other.

    matpac init ~/recordings && matpac inspect recordings && dvc repro
    """
    from matpac.params import LogMel, read_yaml
    from matpac.prepare.proposal import name_of, propose, refuse_edited
    from matpac.prepare.survey import survey
    from matpac.signal.audio import mute_c_libraries

    if not force:
        refuse_edited(out, PRESETS)
    mute_c_libraries()
    folder = folder.expanduser()
    logmel = LogMel.model_validate(read_yaml(PRESETS / "demo.yaml")["logmel"])
    dataset = name_of(name or folder.absolute().name)
    proposal = propose(dataset, folder, survey(folder, logmel), PRESETS)
    write_text(out, proposal.text)
    at = "" if out == DEFAULT_PARAMS else f" --params {out}"
    todo = "dvc repro" if not at else f"cp {out} params.yaml && dvc repro"
    for line in proposal.summary:
        say(*wrap(line, 100, subsequent_indent="  ", break_long_words=False), out=True)
    say("", f"{out} is written. Look at it, then:", "", out=True)
    say(f"    matpac inspect {dataset}{at}", f"    {todo}", out=True)


@app.command()
def sources(params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Record the state of files that are read in place.

    These are recordings, initial weights, other encoders, and records of experiments that DVC ran
    in copies of this folder. DVC sees from data/sources whether they changed.
    """
    from matpac.datasets.fingerprints import write_encoders, write_sources
    from matpac.elsewhere import recorded_elsewhere
    from matpac.params import load_params

    with exclusive(WORK / "sources", SOURCES):
        checked = load_params(params)
        write_sources(SOURCES, checked.datasets)
        write_encoders(SOURCES, checked.pretrain.init, checked.embed.others)
        write_json(RECORDED_ELSEWHERE, recorded_elsewhere())
        # What `corpus`, `record` and `report` depend on: the datasets of now, even if there are none.
        for folder in (CORPUS_PARTS, SHARDS / str(None)):
            folder.mkdir(parents=True, exist_ok=True)
        # DVC warns of empty folders.
        write_text(FINETUNED / "README.md", ABOUT_FINETUNED)
        for part in CORPUS_PARTS.glob("*.json"):
            if part.stem not in checked.pretrain.datasets:
                part.unlink()


@app.command()
def verify(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Folders and files to check; by default all of data.")
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Check that files are still as they were written.

    Reads recordings, shards, checkpoints, embeddings and scores, and compares their checksums. Says
    for each damaged one how to get it back, and ends with 1 then. Best while nothing else runs.

    matpac verify data/shards/esc10 data/checkpoints
    """
    from matpac.params import load_params
    from matpac.verify import DATA, verify

    compared, damaged = verify(load_params(params).datasets, paths or [DATA])
    for one in damaged:
        say(f"{one.path}: {one.found}. {one.remedy}", out=True)
    say(f"Compared {compared}; damaged: {len(damaged) or 'none'}.", out=True)
    if damaged:
        raise typer.Exit(1)


@app.command()
def corpus(
    dataset: Annotated[
        str | None, typer.Argument(help="Only this dataset, into data/corpus/<dataset>.json.")
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Record which shards pre-training reads (data/corpus.json)."""
    from matpac.params import load_params, refuse_changes
    from matpac.shards.corpus import write_corpus

    with exclusive(WORK / "corpus", CORPUS, CORPUS_PARTS):
        checked = load_params(params)
        if dataset is None:
            write_corpus(SHARDS, checked.pretrain.datasets, checked.online_datasets, CORPUS)
        else:
            write_corpus(SHARDS, [dataset], [], CORPUS_PARTS / f"{dataset}.json")
        refuse_changes(params, checked, "pretrain.datasets", "online.dataset")
    for folder in (EMBEDDINGS, SCORES):
        # The report depends on these folders, even if nothing is probed.
        folder.mkdir(parents=True, exist_ok=True)


@app.command()
def compare_corpus(
    a: Annotated[Path, typer.Argument(help="Checkpoint, saved encoder, shards or a digests.parquet.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    listing: Annotated[
        Path | None, typer.Option("--list", help="CSV to write of the recordings whose content differs.")
    ] = None,
) -> None:
    """Show which recordings two models or datasets share.

    Of a folder of shards, all recordings are compared; of a checkpoint or saved encoder, those that it
    learned from. Recordings are the same if their files have the same bytes. Another download or codec of the
    same clip has the same id and other bytes: copies of AudioSet differ by 10 to 15 %.

    matpac compare-corpus data/shards/audioset /elsewhere/data/shards/audioset    two copies

    matpac compare-corpus data/checkpoints/pretrained data/shards/esc10    test clips learned from?

    matpac compare-corpus first/pretrained second/pretrained --list differ.csv    two runs
    """
    from matpac.shards.compare import compare, opened, text_of, write_listing

    if listing is not None:
        check_place(listing)
    found = compare(opened(a), opened(b))
    _print(text_of(found, a, b))
    if listing is not None:
        num_rows = write_listing(listing, found)
        say(f"{listing}: {num_rows:,} recordings whose content the other side lacks.", out=True)


@app.command()
def cost(
    params: Annotated[
        list[Path] | None, typer.Argument(help="Parameter files to compare; by default params.yaml.")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(help="Number of clips; by default that of the finished shards.", min=1)
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(help="TFLOP/s that the machine sustains in training, to estimate hours.", min=0.001),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="GPU to estimate hours on: h100, h200, a100, l40s or 4090.")
    ] = None,
    gpus: Annotated[int, typer.Option(help="Number of such GPUs.", min=1)] = 1,
    price: Annotated[
        float | None, typer.Option(help="Price of an hour of one GPU, in any currency.", min=0)
    ] = None,
) -> None:
    """Show what pre-training would cost, before it begins.

    Prints GFLOP per crop by part of the model, PFLOP of the whole run and, with --tflops, its
    hours. With --gpu also memory, speed, hours and price that the GPU's data sheet lets expect, and
    what that assumes.

    matpac cost presets/paper.yaml presets/cheaper.yaml --clips 2012615 --gpu h100 --gpus 8 --price
    2.5
    """
    from matpac.params import load_params
    from matpac.training.cost import GPUS, cost_table, roofline_table

    if gpu is None and (gpus, price) != (1, None):
        raise ValueError("cost: need --gpu with --gpus or --price, to know the speed of a GPU; got none")
    if gpu is not None and gpu.lower() not in GPUS:
        raise ValueError(f"--gpu: need one of {', '.join(GPUS)}, got {gpu}; --tflops takes any speed")
    runs = {str(path): load_params(path) for path in params or [DEFAULT_PARAMS]}
    said = cost_table(runs, SHARDS, num_clips=clips, tflop_per_s=tflops)
    if gpu is not None:
        kind = GPUS[gpu.lower()]
        said += "\n\n" + roofline_table(runs, SHARDS, kind, num_gpus=gpus, price=price, num_clips=clips)
    _print(said)


@app.command()
def pretrain(params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Pre-train an encoder on the corpus.

    Continues a run that was cut off. The result is data/checkpoints/pretrained. It starts one
    process for each GPU, or for each core of the CPU (compute.num_processes in params.yaml). On
    several machines, start it on each:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint <host> -m matpac
    pretrain
    """
    from matpac.params import load_params, refuse_changes
    from matpac.training.ranks import begin_all_processes

    checked = load_params(params)
    begin_all_processes(checked)
    # Slow to import, and not needed by a process that only starts others.
    from matpac.training.run import pretrain_stage

    check = partial(refuse_changes, params, checked, "logmel", "model", "pretrain", "online")
    pretrain_stage(SHARDS, CHECKPOINT, checked, CORPUS, check)


@app.command()
def reference(
    preset: Annotated[str, typer.Argument(help="Name of the preset, as in presets/<name>.yaml.")],
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs of the preset, one a seed, a finished one first.", show_default=False),
    ] = None,
) -> None:
    """Make runs the reference of a preset.

    `matpac pretrain` and the report lay later runs over their curves. A seed that the reference has
    is replaced, others stay.

    matpac reference demo data/checkpoints/pretrained
    """
    from matpac.training.references import add_to_reference, folder_of

    folder = folder_of(preset)
    for checkpoint in checkpoints or [CHECKPOINT]:
        number = add_to_reference(checkpoint, folder)
        say(
            f"{folder}: {checkpoint} is added; it has {number} seed{'s' if number > 1 else ''} now.", out=True
        )


@app.command()
def embed(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Audio files, and folders to search for them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the embeddings: .npz, .parquet or .zarr.")
    ] = None,
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint or saved folder, released .pt file or released name.")
    ] = CHECKPOINT,
    in_time: Annotated[
        bool, typer.Option("--in-time", help="One embedding every 16 frames with its time, not one per file.")
    ] = False,
    hop_ms: HopMs = None,
    pooling: PoolingOption = "mean",
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="bfloat16 is meant for GPUs, and nearly the same."),
    ] = "float32",
    keep_all: Annotated[
        bool,
        typer.Option("--all", help="Embed truncated and silent files, too, instead of leaving them out."),
    ] = False,
    dataset: Annotated[str | None, typer.Option(help="Embed a dataset of params.yaml instead.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Embed audio files, or the shards of a dataset.

    Continues a run that was cut off; does nothing if the result is complete. Files that shards would
    reject are left out for the same reasons, which are counted at the end and stand in the result.

    matpac embed recordings/ --out e.parquet    one row per file: path and embedding

    matpac embed a.wav b.flac --out e.npz       arrays `embeddings` [file, dim] and `paths`

    matpac embed a.wav --out e.npz --in-time --hop-ms 40    a row every 40 ms, array `time_ms`

    matpac embed --dataset esc10                the pipeline's stage (data/embeddings/esc10)
    """
    of_files = files, out, in_time, hop_ms, keep_all, pooling != "mean", precision != "float32"
    if dataset is not None and not any(of_files):
        _embed_dataset(dataset, checkpoint, params)
    elif files and out is not None and dataset is None:
        from matpac.encoder.files import embed_files
        from matpac.signal.audio import mute_c_libraries

        mute_c_libraries()
        embed_files(
            files,
            checkpoint,
            out,
            in_time=in_time,
            hop_ms=hop_ms,
            pooling=pooling,
            precision=precision,
            reject=() if keep_all else REJECT,
        )
    else:
        raise ValueError(
            "embed: need either files and --out, or --dataset alone, which reads params.yaml and "
            "keeps both kinds of pooling. See `matpac embed --help`."
        )


def _embed_dataset(dataset: str, checkpoint: Path, params: Path) -> None:
    """The pipeline's stage `embed`."""
    from matpac.datasets.registry import recordings_root
    from matpac.params import load_params, refuse_changes
    from matpac.probing.embed import embed_stage
    from matpac.probing.external import Located

    with exclusive(WORK / "embed" / dataset, EMBEDDINGS / dataset):
        checked = load_params(params)
        root = recordings_root(dataset, checked.source_of(dataset))
        located = Located(RAW / dataset, root, checked.shards.channels)
        embed_stage(SHARDS / dataset, located, checkpoint, EMBEDDINGS / dataset, checked.embed)
        refuse_changes(params, checked, "embed")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="File to write (.onnx).")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint or saved folder, or released .pt file.")
    ] = None,
    in_time: Annotated[
        bool, typer.Option("--in-time", help="Give embeddings over time instead of their mean.")
    ] = False,
    hop_ms: HopMs = None,
    pooling: PoolingOption = "mean",
    classifier: Annotated[
        Path | None, typer.Option(help="Export this classifier instead, of `matpac fit`.")
    ] = None,
) -> None:
    """Write an encoder or a classifier to an ONNX file.

    The graph takes waveforms of any length and gives their mean embeddings, those over time, or the
    probabilities of a classifier's classes, which are named in the metadata of the file.

    matpac export data/checkpoints/pretrained --out encoder.onnx

    matpac export --classifier data/classifiers/esc10 --out classifier.onnx
    """
    from matpac.encoder.encoder import load_encoder
    from matpac.encoder.onnx import check_out, export_onnx

    check_out(out)
    of_encoder = in_time, hop_ms, pooling != "mean"
    if classifier is not None and checkpoint is None and not any(of_encoder):
        from matpac.classifier.classifier import load_classifier
        from matpac.classifier.onnx import export_classifier

        opened = load_classifier(classifier, "cpu")
        export_classifier(opened, out)
        rate_hz, num_classes = opened.encoder.logmel.sample_rate_hz, len(opened.classes)
        _print(f"{out}: waveform [batch, time] at {rate_hz} Hz -> probabilities [batch, {num_classes}]")
        return
    if checkpoint is None or classifier is not None:
        raise ValueError("export: need a checkpoint, or --classifier alone. See `matpac export --help`.")
    encoder = load_encoder(checkpoint, "cpu")
    export_onnx(encoder, out, in_time=in_time, hop_ms=hop_ms, pooling=pooling)
    width = encoder.dim if pooling == "mean" else 2 * encoder.dim
    given = f"steps [batch, step, {encoder.dim}]" if in_time else f"embedding [batch, {width}]"
    _print(f"{out}: waveform [batch, time] at {encoder.sample_rate} Hz -> {given}")


@app.command()
def info(
    weights: Annotated[
        str, typer.Argument(help="Checkpoint or saved folder, released .pt file or name (matpac_10_2048).")
    ] = str(CHECKPOINT),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what an encoder or classifier is.

    Prints sizes, front end, statistics and training; of a classifier also classes and scores. Downloads
    nothing.
    """
    from matpac.classifier.saved import facts_of_classifier
    from matpac.weights.describe import facts_of, json_of, text_of

    text = json_of if as_json else text_of
    _print(text(facts_of_classifier(Path(weights)) | facts_of(weights)))


@app.command()
def probe(
    dataset: Annotated[str, typer.Argument(help="A dataset in params.yaml that has been embedded.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Train linear probes on a dataset's embeddings.

    Writes the scores to data/scores/<dataset>.json and prints their table.
    """
    from matpac.params import load_params, refuse_changes
    from matpac.probing.probe import probe as run_probe
    from matpac.probing.scores import DETAILS, score_table

    scores, details = SCORES / f"{dataset}.json", SCORES / f"{dataset}{DETAILS}"
    with exclusive(WORK / "probe" / dataset, scores, details):
        checked = load_params(params)
        run_probe(dataset, EMBEDDINGS / dataset, scores, checked.probe)
        refuse_changes(params, checked, "probe")
    _print(score_table(SCORES, [dataset]))


@app.command()
def fit(
    dataset: Annotated[str, typer.Argument(help="A dataset in params.yaml that has been embedded.")],
    attentive: Annotated[
        bool,
        typer.Option("--attentive", help="Learn when to listen; needs embed.over_time: true."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; by default data/classifiers/<dataset>.")
    ] = None,
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint that the dataset was embedded with.")
    ] = CHECKPOINT,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Keep a dataset's probe as a classifier.

    Trains the probes of `matpac probe` again, each without its test clips, to measure their score and
    to choose temperature and thresholds from validation clips. Then trains one on all labelled clips,
    for as many epochs, and writes a folder that holds the encoder, too.

    matpac fit esc10

    matpac predict recordings/ --classifier data/classifiers/esc10 --out tags.csv
    """
    from matpac.classifier.saved import check_folder, replacing
    from matpac.params import load_params, refuse_changes
    from matpac.probing.fit import NUM_HEADS, summary_of_fit
    from matpac.probing.fit import fit as run_fit

    out = CLASSIFIERS / dataset if out is None else out
    check_folder(out)
    with exclusive(WORK / "fit" / out.name, out):
        checked = load_params(params)
        classifier = run_fit(
            EMBEDDINGS / dataset,
            checkpoint,
            checked.probe,
            num_heads=(checked.probe.attentive or NUM_HEADS) if attentive else None,
            precision=checked.embed.precision,
            channels=checked.shards.channels,
        )
        refuse_changes(params, checked, "probe", "embed")
        with replacing(out) as partial:
            classifier.save_pretrained(partial)
    say(f"{out}: {summary_of_fit(classifier)}", out=True)


@app.command()
def finetune(
    dataset: Annotated[str, typer.Argument(help="A dataset in params.yaml that has shards and labels.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Train encoder and head together on a labelled dataset.

    Folds, repeats and scores are those of probes; `finetune` in params.yaml has all numbers. Then
    trains on all labelled clips and writes a classifier to data/finetuned/<dataset>. Continues a run
    that was cut off. It starts one process for each GPU, or for each core of the CPU
    (compute.num_processes), which share the folds and repeats.

    matpac finetune esc10

    matpac predict recordings/ --classifier data/finetuned/esc10 --out tags.csv
    """
    from matpac.devices import memory_bytes
    from matpac.finetuning.scores import score_table
    from matpac.params import load_params, refuse_changes
    from matpac.shards.folder import read_task
    from matpac.training.ranks import begin_processes, processes_for_fits, this_rank

    checked = load_params(params)
    checked.source_of(dataset)
    task = read_task(SHARDS / dataset) if (SHARDS / dataset / "task.json").exists() else None
    num_fits = checked.finetune.num_repeats * ((task and task.num_folds) or 1)
    begin_processes(checked, lambda cores: processes_for_fits(checked, num_fits, cores, memory_bytes()))
    # Slow to import, and not needed by a process that only starts others.
    from matpac.finetuning.stage import finetune_stage

    check = partial(refuse_changes, params, checked, "finetune", "shards.channels")
    finetune_stage(SHARDS / dataset, CHECKPOINT, FINETUNED / dataset, checked, check)
    if this_rank().is_first:
        _print(score_table(FINETUNED, [dataset]))


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="Audio files, and folders to search for them.")],
    classifier: Annotated[Path, typer.Option(help="Folder that `matpac fit` or `matpac finetune` wrote.")],
    out: Annotated[Path, typer.Option(help="Table to write, .csv or .parquet; a folder for --labels.")],
    events: Annotated[
        bool, typer.Option("--events", help="One row per event, with onset and offset, not one per file.")
    ] = False,
    labels: Annotated[
        Literal["audacity", "raven"] | None,
        typer.Option(help="Write events as label tracks or selection tables, a file per recording."),
    ] = None,
    keep_all: Annotated[
        bool, typer.Option("--all", help="Take truncated and silent files, too, instead of leaving them out.")
    ] = False,
) -> None:
    """Say which classes are heard in audio files.

    Continues a run that was cut off; does nothing if the result is complete. Files that cannot be used
    are listed with the reason. `unlike` is the distance of a file to the nearest training clips: above
    1, it is unlike the training data, and its probabilities mean little.

    matpac predict recordings/ --classifier data/classifiers/esc10 --out tags.csv

    matpac predict recordings/ --classifier data/classifiers/esc10 --out events.csv --events

    matpac predict recordings/ --classifier data/classifiers/esc10 --out tracks --labels audacity
    """
    from matpac.classifier.files import predict_files
    from matpac.signal.audio import mute_c_libraries

    mute_c_libraries()
    reject = () if keep_all else REJECT
    predict_files(files, classifier, out, events=events, labels=labels, reject=reject)


@app.command()
def record(params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Add the scores to the records of all runs.

    The report's tables are made from these records (data/experiments). Those of experiments that
    DVC ran in copies of this folder are added.
    """
    from matpac.elsewhere import records_of
    from matpac.params import load_params, refuse_changes
    from matpac.report.experiments import record_run

    with exclusive(WORK / "record", EXPERIMENTS):
        checked = load_params(params)
        hashes = read_json(RECORDED_ELSEWHERE) if RECORDED_ELSEWHERE.exists() else []
        record_run(Path(), checked, records_of(hashes))
        refuse_changes(params, checked, "logmel", "model", "pretrain", "probe", "finetune")


@app.command()
def report(params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Write the report and print the table of scores.

    The report is one page: data/report/index.html.
    """
    from matpac.params import load_params, refuse_changes
    from matpac.probing.scores import score_table
    from matpac.report.page import write_report

    with exclusive(WORK / "report", REPORT):
        checked = load_params(params)
        write_report(Path(), REPORT, checked)
        # All but those that say how and when: a change of these changes no result.
        refuse_changes(params, checked, *(set(type(checked).model_fields) - {"compute", "schedules"}))
    _print(f"{score_table(SCORES, checked.probe.datasets)}\n\nThe whole report: {REPORT / 'index.html'}")


PIPELINE = {
    *("dvclive", "librosa", "matplotlib", "prefect", "pyarrow", "sklearn", "threadpoolctl"),
    *("webdataset", "zarr"),
}
"""Packages of the extra `pipeline`, as they are imported."""


def main() -> None:
    """Run a command. An error that the user can fix is one line, not a traceback."""
    escape_logs()
    try:
        app()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PIPELINE:
            raise
        stop(f"matpac: this needs {package}. Install it: pip install 'matpac[pipeline]'")
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
            raise
        stop(f"matpac: {line_of(error)}")


def _print(text: str) -> None:
    say(*text.split("\n"), out=True)
