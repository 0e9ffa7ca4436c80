"""score files -> the headline table, classes, confusions."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from matpac.files import read_json
from matpac.probing.scores import (
    DETAILS,
    beats_random_init,
    more_than_chance,
    percent,
    read_summaries,
    with_star,
)
from matpac.report.markup import bar, folded, grid, paragraph, section, table

NAMES = {
    "pretrained": "Encoder",
    "random_init": "Untrained encoder",
    "logmel_statistics": "Log-mel statistics",
}
ABOUT_OTHERS = (
    "Other encoders (embed.others in params.yaml) embed the same recordings, read by the same probes. "
    "Below their score: minus that of our encoder."
)
READ_BY = {"knn": "{num_neighbours} nearest neighbours", "attentive": "attention, {num_heads} heads"}
ABOUT_READINGS = {
    "knn": (
        "Nearest neighbours: the same embeddings and the same test clips, read without any training. The "
        "training clips nearest by cosine vote for their labels. Where this tells another story than the "
        "linear probe, the embeddings hold the classes, but not as neighbourhoods. It has no randomness, "
        "hence no interval, and counts for none of the above."
    ),
    "attentive": (
        "Attention: a linear probe not on the mean over time, but on a mean that learns which moments to "
        "listen to. Same training and test clips, same repeats. Where this is far ahead of the linear probe, "
        "the encoder hears the classes at moments that the mean over time drowns. It counts for none of the "
        "above; log-mel statistics have no moments to choose from."
    ),
}
MAX_CLASSES_IN_MATRIX = 20
NUM_MISTAKES = 8


def headline(scores: Path, datasets: Sequence[str]) -> str:
    summaries = read_summaries(scores, datasets)
    if not summaries:
        return section("Scores", paragraph("No dataset was probed (probe.datasets is empty)."))
    others = names_of_others(summaries)
    rows = [
        [
            f"<b>{escape(summary['dataset'])}</b>",
            escape(f"{summary['metric']}, {summary['protocol']}"),
            f"{100 * summary['chance']:.1f}",
            *(score_cell(summary, name) for name in NAMES),
            gap_tag(summary["gain_over_random_init"]),
            *(other_cell(summary, name) for name in others),
        ]
        for summary in summaries
    ]
    header = ["Task", "Measured by", "Chance", *NAMES.values(), "Gain by pre-training", *others]
    return section(
        "Scores",
        paragraph(sentence(summaries), "lead"),
        f'<div class="wide">{table(header, rows, "scores")}</div>',
        paragraph(
            "In percent, higher is better: mean ± half the 95 % interval over "
            f"{summaries[0]['num_repeats']} repeats. A linear probe is a single linear layer, trained "
            "on embeddings that stay as they are: it tells how much of the task the embeddings already "
            "make easy. The untrained encoder is the same network before pre-training; the log-mel "
            "statistics are mean, standard deviation and maximum of the spectrogram over time, without "
            "any network. Bold: ahead of the untrained encoder by more than both intervals. Differences are "
            "taken repeat by repeat; * (and colour): the interval of the difference leaves out 0. Intervals "
            "cover the randomness of training a probe, not the choice of test clips nor of the "
            "pre-training seed.",
            "note",
        ),
        paragraph(ABOUT_OTHERS, "note") if others else "",
        grid([bars(summary) for summary in summaries], "three"),
        second_reading(scores, summaries),
    )


def names_of_others(summaries: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for summary in summaries for name in summary["others"]))


def other_cell(summary: dict[str, Any], name: str) -> str:
    """Empty where the encoder has not been probed on this task."""
    score = summary["others"].get(name)
    if score is None:
        return ""
    return f"{percent(score)} {gap_tag(score['minus_encoder'])}"


def gap_tag(gap: dict[str, float]) -> str:
    """Coloured where it has a star."""
    kind = ("ahead" if gap["mean"] > 0 else "behind") if more_than_chance(gap) else "even"
    return f'<span class="tag {kind}">{with_star(gap)}</span>'


def second_reading(scores: Path, summaries: Sequence[dict[str, Any]]) -> str:
    """Empty where embeddings were read by linear probes only."""
    rows, kinds = [], set()
    features = dict(NAMES) | {name: name for name in names_of_others(summaries)}
    for summary in summaries:
        readings = read_json(scores / f"{summary['dataset']}{DETAILS}")["second_reading"]
        kinds |= readings.keys()
        for kind, reading in readings.items():
            cells = [read_cell(reading[name]) if name in reading else "" for name in features]
            task = [escape(summary["dataset"]), escape(summary["metric"])]
            rows.append([*task, READ_BY[kind].format(**reading), *cells])
    if not rows:
        return ""
    content = table(["Task", "Measured by", "Read by", *features.values()], rows)
    notes = [paragraph(note, "note") for kind, note in ABOUT_READINGS.items() if kind in kinds]
    return f'<h3>Second reading</h3><div class="wide">{content}</div>{"".join(notes)}'


def read_cell(score: dict[str, Any]) -> str:
    """With an interval where the reading has randomness."""
    return percent(score) if "interval" in score else f"{100 * score['mean']:.1f}"


def sentence(summaries: Sequence[dict[str, Any]]) -> str:
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


def score_cell(summary: dict[str, Any], name: str) -> str:
    text = percent(summary[name])
    return f"<b>{text}</b>" if name == "pretrained" and beats_random_init(summary) else text


def bars(summary: dict[str, Any]) -> str:
    values = [(label, summary[name]["mean"], name) for name, label in NAMES.items()]
    values += [(name, score["mean"], "other") for name, score in summary["others"].items()]
    values += [("Chance", summary["chance"], "chance")]
    lines = "".join(
        f'<span class="name">{escape(label)}</span>{bar(fraction, kind)}'
        f'<span class="value">{100 * fraction:.1f}</span>'
        for label, fraction, kind in values
    )
    return f'<div class="card"><h3>{escape(summary["dataset"])}</h3><div class="bars">{lines}</div></div>'


def classes(scores: Path, datasets: Sequence[str]) -> str:
    parts = []
    for summary in read_summaries(scores, datasets):
        details = read_json(scores / f"{summary['dataset']}{DETAILS}")
        parts.append(f"<h3>{escape(summary['dataset'])}</h3>")
        parts.append(left_out(summary))
        left = f"<div>{class_table(details)}{mistakes(details)}</div>"
        parts.append(grid([left, confusion_table(details)], "two"))
    explained = paragraph(
        "For accuracy: the share of a class's test clips that were recognised. For mAP: the class's average "
        "precision, the area under its precision-recall curve. Over all repeats and folds.",
        "note",
    )
    return section("Class by class", explained if parts else "", *parts)


def left_out(summary: dict[str, Any]) -> str:
    sentences = []
    number = summary["num_classes"] - summary["num_classes_scored"]
    if number:
        unscored = (
            "have no test clip" if summary["metric"] == "accuracy" else "have no test clip, or no other"
        )
        sentences.append(f"{number} of {summary['num_classes']} classes {unscored}, and do not count.")
    if summary["observed"] < 1:
        sentences.append(
            f"Annotators looked at {summary['observed']:.0%} of all pairs of a test clip and a class; "
            "the others count neither in training nor in scores."
        )
    return paragraph(" ".join(sentences)) if sentences else ""


def class_table(details: dict[str, Any]) -> str:
    """Best recognised first."""
    ours, floor = (details["features"][name]["per_class"] for name in ("pretrained", "random_init"))
    order = sorted(range(len(ours)), key=lambda index: -1 if ours[index] is None else ours[index])
    rows = [
        [
            escape(details["classes"][index]),
            str(details["num_test_clips"][index]),
            bar(ours[index], "pretrained") + value(ours[index]),
            bar(floor[index], "random_init") + value(floor[index]),
        ]
        for index in reversed(order)
    ]
    content = table(["Class", "Test clips", "Encoder", "Untrained encoder"], rows, "classes")
    if len(rows) > MAX_CLASSES_IN_MATRIX:
        return folded(f"All {len(rows)} classes", content)
    return content


def value(fraction: float | None) -> str:
    return f'<span class="value">{"–" if fraction is None else f"{100 * fraction:.0f}"}</span>'  # noqa: RUF001


def mistakes(details: dict[str, Any]) -> str:
    """The most frequent ones of the encoder's probes; empty for multi-label tasks."""
    confusion = details["features"]["pretrained"].get("confusion")
    if confusion is None:
        return ""
    names = details["classes"]
    pairs = [
        (share, names[truth], names[guess])
        for truth, row in enumerate(confusion)
        for guess, share in enumerate(shares(row))
        if guess != truth and share > 0
    ]
    worst = sorted(pairs, key=lambda pair: -pair[0])[:NUM_MISTAKES]
    items = "".join(
        f"<li><b>{escape(truth)}</b> taken for <b>{escape(guess)}</b>: {share:.0%}</li>"
        for share, truth, guess in worst
    )
    return f"<h4>Most frequent mistakes</h4><ol>{items}</ol>" if items else "<p>No mistakes.</p>"


def confusion_table(details: dict[str, Any]) -> str:
    """Empty for multi-label tasks, and where there are too many classes to read it."""
    confusion, names = details["features"]["pretrained"].get("confusion"), details["classes"]
    if confusion is None or len(names) > MAX_CLASSES_IN_MATRIX:
        return ""
    upright = ' class="upright"' if max(map(len, names)) > 2 else ""
    head = "".join(f'<th scope="col"><span{upright}>{escape(name)}</span></th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(truth)}</th>'
        + "".join(
            shaded(share, f"{truth} taken for {guess}")
            for guess, share in zip(names, shares(row), strict=True)
        )
        + "</tr>"
        for truth, row in zip(names, confusion, strict=True)
    )
    return (
        '<div><h4>Confusion matrix</h4><div class="wide"><table class="confusion">'
        f"<thead><tr><th>true class ... taken for</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="note">Each row: percent of the clips of one class that the encoder\'s probes took for '
        f"the class of the column; on the right of the first row, <b>{escape(names[0])}</b> taken for "
        f"<b>{escape(names[-1])}</b>. A perfect probe has 100 on the diagonal.</p></div>"
    )


def shares(row: Sequence[int]) -> list[float]:
    total = max(sum(row), 1)
    return [count / total for count in row]


def shaded(share: float, meaning: str) -> str:
    colour = "#fff" if share > 0.55 else "#1f2933"
    text = f"{100 * share:.0f}" if share >= 0.005 else ""
    style = f"background:rgb(11 114 133/{share:.2f});color:{colour}"
    return f'<td title="{escape(meaning)}" style="{style}">{text}</td>'
