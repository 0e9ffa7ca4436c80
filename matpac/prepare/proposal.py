"""survey of a folder -> a params.yaml for it, with a comment on each choice.

All other numbers are those of a preset, whose text is kept.
"""

import math
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from matpac.datasets.own.places import split_in
from matpac.params import PATCH, PUBLIC_KINDS, LogMel, parse_params, read_yaml
from matpac.prepare.survey import Survey
from matpac.progress import duration

LEAST_UNUSABLE = 0.005
"""Share of unusable recordings in the sample for which the limit of the presets is too tight."""
FEW = 0.05
"""Share of clips too short for a crop that may be left out."""
SMALLEST_CROP, LARGEST_CROP, LARGEST_TINY_CROP = 32, 608, 208
"""Frames. The largest are those of the paper and of the demo."""
LONG = 30
"""A clip of so many crops is long."""
CROPS_IN_20_MINUTES = 300_000
"""Crops of 96 frames that `tiny` learns from in 20 minutes on two slow cores."""
HOURS_FOR_SMALL, HOURS_FOR_BASE = 100, 2000
FEWEST_ONLINE = 50
"""Labelled clips that are enough to look at embeddings during training."""
WIDTH = 100


class Choice(NamedTuple):
    key: str
    value: Any
    why: str = ""
    """A comment, in sentences."""


class Proposal(NamedTuple):
    text: str
    """The new params.yaml."""
    summary: tuple[str, ...]
    """Lines for the terminal."""


def name_of(text: str) -> str:
    """A name for params.yaml that is as close to the text as names allow."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "mine"


def refuse_edited(out: Path, presets: Path) -> None:
    """Raise ValueError if there is a parameter file, unless it is a copy of a preset and so not lost."""
    if not out.exists():
        return
    kept = {path.read_bytes() for path in presets.glob("*.yaml")}
    if out.read_bytes() not in kept:
        raise ValueError(
            f"{out}: need a copy of a preset, or no file, found one that was edited. Name another file "
            "with --out, or replace it with --force."
        )


def propose(name: str, folder: Path, found: Survey, presets: Path) -> Proposal:
    """Write a params.yaml that pre-trains on a folder and, if it has labels, probes it.

    Args:
        name: Name of the dataset.
        folder: The recordings, as `source` shall name them.
        found: What is in the folder.
        presets: Folder of the presets.

    Raises:
        ValueError: There are too few recordings, or no presets.
    """
    if found.num_recordings < 2:
        raise ValueError(
            f"{folder}: need two recordings at least to pre-train on, found one. "
            "Cut it into pieces of some seconds, for example with ffmpeg's -f segment."
        )
    base, size = _base(found)
    preset = presets / f"{base}.yaml"
    if not preset.is_file():
        raise ValueError(f"{preset}: no such file. Run from the project's folder.")
    logmel = LogMel.model_validate(read_yaml(preset)["logmel"])
    choices = [*_limit(found), *_model(found, base, size), *_training(found, logmel, base)]
    choices += _labelled(name, found)
    text = preset.read_text(encoding="utf-8")
    text = re.sub(r"\A(#.*\n|\n)*", "", text)
    text = re.sub(r"^datasets:.*?(?=^\w)", lambda _: _dataset(name, folder, found), text, flags=re.M | re.S)
    for choice in [Choice("pretrain.datasets", [name]), *choices]:
        text = with_choice(text, choice)
    seen = _seen(folder, found)
    text = f"{_comment('Made by `matpac init`. ' + ' '.join(seen))}\n{_comment(_others(base), '')}\n{text}"
    parse_params(yaml.safe_load(text), "the new params.yaml")
    said = [f"{choice.key}: {_scalar(choice.value)}. {choice.why}" for choice in choices if choice.why]
    return Proposal(text, (*seen, *_of_labels(found), *said))


def with_choice(text: str, choice: Choice) -> str:
    """The text of a parameter file with one value replaced, and the reason above it."""
    section, key = choice.key.split(".")
    pattern = re.compile(rf"(^{section}:.*\n(?:  .*\n)*?)  {key}:.*\n(?:    .*\n)*", re.MULTILINE)
    value = choice.value
    shown = "".join(f"\n    - {_scalar(item)}" for item in value) if value and isinstance(value, list) else ""
    line = f"  {key}:{shown or ' ' + _scalar(value)}\n"
    changed, number = pattern.subn(lambda match: match[1] + _comment(choice.why, "  ") + line, text, count=1)
    assert number == 1, choice.key
    return changed


def _base(found: Survey) -> tuple[str, str]:
    """The preset to begin with, and the size of the model."""
    if found.hours < HOURS_FOR_SMALL:
        return "demo", "tiny"
    return "paper", "small" if found.hours < HOURS_FOR_BASE else "base"


def _limit(found: Survey) -> list[Choice]:
    """A higher limit if so many recordings cannot be used that the shards would not be made."""
    share = len(found.unusable) / found.num_sampled
    if share < LEAST_UNUSABLE:
        return []
    why = (
        f"{len(found.unusable):,} of {found.num_sampled:,} sampled recordings cannot be used. The run goes "
        "on without them, up to this limit. Look at them (`matpac inspect`), mend them, and lower it to 0.01."
    )
    return [Choice("shards.max_rejected_fraction", min(1.0, math.ceil(200 * share) / 100), why)]


def _model(found: Survey, base: str, size: str) -> list[Choice]:
    there = f"About {duration(found.hours * 3600)} of audio"
    if base == "demo":
        why = (
            f"{there}: enough for a tiny model, which two cores train. Above {HOURS_FOR_SMALL} hours and "
            "with a GPU, try small."
        )
        return [Choice("model.size", size, why)]
    why = f"{there} need a GPU. The paper's is base, for 5,600 hours."
    return [Choice("model.size", size, why)]


def _training(found: Survey, logmel: LogMel, base: str) -> list[Choice]:
    """Crops that the lengths allow, and as many epochs as 20 minutes, or the preset."""
    crop = _crop_frames(found, logmel, LARGEST_TINY_CROP if base == "demo" else LARGEST_CROP)
    crop_s = crop / logmel.frames_per_s
    too_short = sum(length < crop_s for length in found.lengths_s) / len(found.lengths_s)
    why = (
        f"{crop_s:.2f} s. Three in four of the sampled clips last {found.length_s(0.25):.2f} s or longer, "
        f"half of them {found.length_s(0.5):.2f} s. Take more if a pattern that you care about lasts longer."
    )
    if found.length_s(0.5) > LONG * crop_s:
        why += " An epoch takes one crop of each clip. Cut long recordings to learn from all of it."
    padded = f"{too_short:.0%} of the sampled clips are shorter than a crop; they are padded with silence."
    dropped = (
        f"{f'{too_short:.0%}' if too_short else 'None'} of the sampled clips would be too short for a crop."
    )
    choices = [
        Choice("pretrain.crop_frames", crop, why),
        Choice("pretrain.short_clips", *(("drop", dropped) if too_short <= FEW else ("pad", padded))),
    ]
    number = found.num_recordings
    if base != "demo":
        batch = 2048 if found.hours >= HOURS_FOR_BASE else 512
        why = (
            "The paper's, for 2 M clips."
            if batch == 2048
            else "A quarter of the paper's, for fewer clips. Untried."
        )
        return [*choices, Choice("pretrain.batch_size", min(batch, number), why)]
    batch = 64 if number >= 2000 else min(32, 2 ** ((number // 2).bit_length() - 1))
    epochs = max(5, min(300, round(CROPS_IN_20_MINUTES * 96 / crop / number)))
    took = duration(60 * max(1, round(20 * number * epochs * crop / 96 / CROPS_IN_20_MINUTES)))
    return [
        *choices,
        Choice("pretrain.batch_size", batch, f"For {number:,} clips; a whole batch must fit into them."),
        Choice("pretrain.num_epochs", epochs, f"About {took} on two slow cores. More epochs often help."),
    ]


def _crop_frames(found: Survey, logmel: LogMel, largest: int) -> int:
    frames = (found.length_s(0.25) - logmel.window_ms / 1000) * logmel.frames_per_s + 1
    return max(SMALLEST_CROP, min(largest, int(frames + 1e-6) // PATCH * PATCH))


def _labelled(name: str, found: Survey) -> list[Choice]:
    """Whether the dataset is probed, and looked at during training."""
    has_labels = found.labels.number != "none"
    watched = found.labels.number == "one" and found.num_recordings >= FEWEST_ONLINE
    if watched:
        why = "Its labels show during training whether embeddings get better. They are never learned from."
    elif found.labels.number == "one":
        why = f"Fewer than {FEWEST_ONLINE} clips have labels, too few to look at during training."
    else:
        why = (
            "Needs a dataset with one label a clip, to look at during training. esc50 is one to download: "
            "add `esc50: {kind: esc50, source: null}` to datasets and name it here and in probe.datasets."
        )
    return [
        Choice("online.dataset", name if watched else None, why),
        Choice(
            "probe.datasets",
            [name] if has_labels else [],
            "" if has_labels else "Nothing is probed, since there are no labels.",
        ),
    ]


def _dataset(name: str, folder: Path, found: Survey) -> str:
    lines = [f"datasets:\n  {name}:\n    kind: {found.kind}\n    source: {_scalar(str(folder))}\n"]
    for number, (key, value) in enumerate(found.labels.keys.items()):
        lines.append(_comment(found.labels.why, "    ") if number == 0 else "")
        lines.append(f"    {key}: {_scalar(value)}\n")
    if found.labels.number != "none":
        lines += [
            _comment(_splits(found), "    "),
            f"    splits: {'none' if _ignores_splits(found) else 'auto'}\n",
        ]
        lines.append(_comment(found.groups, "    "))
    return "".join([*lines, "\n"])


def _of_labels(found: Survey) -> list[str]:
    keys = "; ".join(f"{key}: {_scalar(value)}" for key, value in found.labels.keys.items())
    said = [f"{keys}. {found.labels.why}"]
    if found.labels.number != "none":
        said += [_splits(found), *([found.groups] if found.groups else [])]
    return said


def _ignores_splits(found: Survey) -> bool:
    """Whether the names of places tell splits that are no use: in doubt, or without train or test."""
    places = found.places
    return bool(found.doubt) or (
        places is not None and places.tells and not {"train", "test"} <= set(map(split_in, places.names))
    )


def _splits(found: Survey) -> str:
    if found.doubt:
        return f"Some names of folders look like splits. {found.doubt}"
    if _ignores_splits(found):
        return f"{found.places} are no train and test. They are ignored, and clips are divided into 5 folds."
    if found.places is not None and found.places.tells:
        return f"The names of folders or files tell the splits: {found.places}."
    return (
        "No names of folders or files tell splits. If labels do not either, clips are divided into 5 folds."
    )


def _seen(folder: Path, found: Survey) -> list[str]:
    where = {"folder": "files", "tar": "tars", "parquet": "parquet or arrow files"}[found.kind]
    rates = ", ".join(f"{rate:,} Hz" for rate, _ in found.rates_hz.most_common(3))
    said = [
        f"{folder} holds {found.num_recordings:,} recordings in {where}, about "
        f"{duration(found.hours * 3600)}.",
        f"A sample of {found.num_sampled:,} headers: {rates}; {found.lengths_s[0]:.2f} to "
        f"{found.lengths_s[-1]:.2f} s, half of them below {found.length_s(0.5):.2f} s.",
    ]
    if found.unusable:
        path, reason = next(iter(found.unusable.items()))
        said.append(f"{len(found.unusable):,} of the sample cannot be used; {path}: {reason}.")
    if found.others:
        said.append(f"Not read: {', '.join(f'{number:,} in {one}' for one, number in found.others.items())}.")
    if found.passed_over:
        said.append(f"Not taken for recordings: {found.passed_over}.")
    if folder.name in PUBLIC_KINDS:
        said.append(f"If this is the public {folder.name}, `kind: {folder.name}` reads its official splits.")
    return said


def _others(base: str) -> str:
    return f"Other numbers are those of presets/{base}.yaml. docs/parameters.md explains every key."


def _comment(text: str, indent: str = "") -> str:
    if not text:
        return ""
    begin = f"{indent}# "
    wrap = textwrap.TextWrapper(
        WIDTH, initial_indent=begin, subsequent_indent=begin, break_long_words=False, break_on_hyphens=False
    )
    return wrap.fill(_plain(text)) + "\n"


def _plain(text: str) -> str:
    """Text that a parameter file may hold in a comment: names of files may have control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _scalar(value: Any) -> str:  # noqa: ANN401 - any value of a parameter file
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).split("\n")[0]
