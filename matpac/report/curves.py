"""metrics.csv and online.csv of a pre-training run -> small charts, over the reference of its preset."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from matpac.report.html import COLORS, Section, data_url, section, styled, svg_of, unbox_
from matpac.training.history import METRICS, ONLINE, History, describe_collapse, read_rows
from matpac.training.references import Band, Comparison, compare, edges_of, facts_of, read_references

MAX_POINTS = 400


class Curve(NamedTuple):
    """A band of the reference."""

    epochs: Float[np.ndarray, " stretch"]
    """Middles of its stretches."""
    band: Band


class Chart(NamedTuple):
    title: str
    columns: dict[str, str]
    """Columns of metrics.csv or online.csv, and their names in the legend."""
    caption: str
    log_scale: bool = False


CHARTS = (
    Chart(
        "Neighbors in the embedding",
        {"knn_accuracy": "accuracy"},
        "How often the nearest labeled clips of the train split name the label of a clip of the validation "
        "split. Training never sees these labels.",
    ),
    Chart(
        "Rank of the embeddings",
        {"rankme": "RankMe"},
        "Number of dimensions in which the embeddings of these clips really differ (Garrido et al., 2023).",
    ),
    Chart(
        "Variance of single dimensions",
        {"variance_most": "largest", "variance_median": "median", "variance_least": "least"},
        "Variance of the embeddings of these clips. Dimensions near zero say nothing.",
        log_scale=True,
    ),
    Chart(
        "Loss",
        {
            "loss": "total",
            "prediction_loss": "prediction",
            "classification_loss": "classification",
        },
        "Training makes it smaller. Prediction: how far the predicted latents of hidden patches are "
        "from the teacher's. Classification: how badly the student guesses the teacher's classes. Both "
        "should fall; a small loss alone proves nothing, see the next four charts.",
    ),
    Chart(
        "Spread of the latents",
        {"student_variance": "student", "teacher_variance": "teacher"},
        "0 would mean that every patch gets the same latent (collapse), 1 that they point everywhere.",
    ),
    Chart(
        "Rank of the teacher's latents",
        {"teacher_rankme": "RankMe"},
        "Number of dimensions in which they really differ (Garrido et al., 2023); 1 would be a collapse.",
    ),
    Chart(
        "Perplexity of the teacher",
        {"teacher_perplexity": "perplexity"},
        "Number of classes that the teacher uses about equally often; 1 would be a collapse.",
    ),
    Chart(
        "Classes in use",
        {"teacher_used_classes": "classes"},
        "Number of classes that are the teacher's first choice for at least one patch of a batch.",
    ),
    Chart(
        "Size of the gradient",
        {"grad_norm": "norm before clipping"},
        "Lone spikes are cut by clipping; a steady climb says that the learning rate is too high.",
        log_scale=True,
    ),
    Chart(
        "Learning rate",
        {"learning_rate": "learning rate"},
        "As planned: a straight rise, then half a cosine down to zero.",
    ),
    Chart(
        "How slowly the teacher follows",
        {"encoder_decay": "encoder", "head_decay": "head"},
        "Share of the teacher's weights kept at each update; 1 means that it stands still.",
    ),
    Chart(
        "Teacher temperature",
        {"teacher_temperature": "temperature"},
        "The lower, the surer the teacher's classes. As planned: a rise, then flat.",
    ),
    Chart(
        "Speed",
        {"crops_per_s": "crops per second"},
        "Training crops per second since the previous point.",
    ),
)


def training_section(checkpoint: Path, meta: dict[str, Any], num_clusters: int) -> Section | None:
    columns = columns_of(checkpoint / METRICS)
    if "epoch" not in columns:
        return None
    online = columns_of(checkpoint / ONLINE)
    if online:
        online["epoch"] = np.interp(online["step"], columns["step"], columns["epoch"])
    comparison = compare(facts_of(meta), read_references()) if "pretrain" in meta else ""
    bands: dict[str, Curve] = {}
    if isinstance(comparison, Comparison):
        edges = edges_of(comparison.total_updates) * meta["pretrain"]["num_epochs"] / comparison.total_updates
        middles = (edges[:-1] + edges[1:]) / 2
        bands = {column: Curve(middles, band) for column, band in comparison.bands().items()}
    charts = [
        (chart, data_url(draw(chart, table, bands), "image/svg+xml"))
        for chart in CHARTS
        for table in (columns, online)
        if table.keys() & chart.columns.keys()
    ]
    num_rows = len(columns["epoch"])
    about = f"From the first to the last of {columns['epoch'][-1]:,.3g} epochs."
    if num_rows > MAX_POINTS:
        about += f" Each point is the mean of about {num_rows / MAX_POINTS:.0f} logged updates."
    if online:
        about += (
            f" The labeled clips were evaluated {len(online['step'])} times, "
            f"which took {online['seconds'].sum():,.1f} s."
        )
    return section(
        "How training went",
        "training.html.j2",
        alarm=alarm(columns, num_clusters),
        compared=in_words(comparison, checkpoint),
        about=about,
        charts=charts,
    )


def in_words(comparison: Comparison | str, checkpoint: Path) -> str:
    """Where the run leaves the reference, that it does not, or why there is none."""
    if isinstance(comparison, str):
        return comparison
    online = checkpoint / ONLINE
    history = History(read_rows(checkpoint / METRICS), read_rows(online) if online.exists() else [])
    gray = "Gray: values of a run that is like the reference."
    if departures := comparison.departures(history):
        return f"The run left its reference: {comparison.describe(departures)}. {gray}"
    return f"{comparison.introduce()} The run stayed near them. {gray}"


def columns_of(path: Path) -> dict[str, Float[np.ndarray, " row"]]:
    rows = read_rows(path) if path.exists() else []
    return {name: np.array([row[name] for row in rows], dtype=float) for name in (rows[0] if rows else {})}


def alarm(columns: dict[str, Float[np.ndarray, " row"]], num_clusters: int) -> str:
    """A warning if the run seemed to collapse, else nothing."""
    collapsing = np.flatnonzero(columns.get("collapsing", []))
    if len(collapsing) == 0:
        return ""
    first = {name: values[collapsing[0]].item() for name, values in columns.items()}
    sign = describe_collapse(first, num_clusters)
    return (
        f"The run seemed to collapse at update {first['step']:,.0f}: {sign}. "
        f"It did so in {len(collapsing):,} of {len(columns['step']):,} logged updates."
    )


@styled()
def draw(chart: Chart, columns: dict[str, Float[np.ndarray, " row"]], bands: dict[str, Curve]) -> bytes:
    drawing = Figure(figsize=(3.7, 2.3), layout="constrained")
    axes = drawing.subplots()
    for color, (column, label) in zip(COLORS, chart.columns.items(), strict=False):
        if column in columns:
            if column in bands:
                at, band = bands[column]
                axes.fill_between(at, band.lower, band.upper, color="#dee2e6", linewidth=0)
            epochs, values = thinned(columns["epoch"]), thinned(columns[column])
            axes.plot(epochs, values, color=color, linewidth=1.4, label=label)
    axes.set_xlabel("epoch")
    unbox_(axes)
    if chart.log_scale and all((columns[c] > 0).any() for c in chart.columns if c in columns):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.ticklabel_format(useOffset=False)
    if len(chart.columns) > 1:
        drawing.legend(loc="outside upper left", ncols=len(chart.columns), frameon=False, fontsize=8)
    return svg_of(drawing)


def thinned(values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " point"]:
    """At most MAX_POINTS values, each a mean of neighboring ones."""
    parts = np.array_split(values, min(len(values), MAX_POINTS))
    return np.array([part.mean() for part in parts])
