"""What pages take from the code when the site is built, so that they cannot fall behind it.

<!-- parameters -->                             sections of params.yaml: types, defaults, meanings
<!-- source matpac.model.losses:distances -->   the code of a function or class
$$ ... $$ and \\( ... \\)                         LaTeX as MathML, which browsers draw without a script
"""

import inspect
import pkgutil
import re
import textwrap
import typing
from pathlib import Path
from typing import Any

import latex2mathml.converter
import yaml

from matpac.datasets.registry import READERS
from matpac.params import Params, Public, Section

PROJECT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = re.sub(r"<!-- source (\S+) -->", lambda found: source(found[1]), markdown)
    markdown = re.sub(r"\$\$(.+?)\$\$", lambda found: mathml(found[1], "block"), markdown, flags=re.DOTALL)
    markdown = re.sub(r"\\\((.+?)\\\)", lambda found: mathml(found[1], "inline"), markdown)
    return (
        markdown.replace("<!-- parameters -->", parameters())
        if "<!-- parameters -->" in markdown
        else markdown
    )


def mathml(latex: str, display: str) -> str:
    converted = latex2mathml.converter.convert(latex.strip(), display=display)
    # Markdown takes a line that begins with <math> for one that ends the paragraph.
    return f"<span>{converted}</span>" if display == "inline" else converted


def source(name: str) -> str:
    module, _, _ = name.partition(":")
    code = textwrap.dedent(inspect.getsource(pkgutil.resolve_name(name)))
    return f'```python title="{module.replace(".", "/")}.py"\n{code}```'


def parameters() -> str:
    default = yaml.safe_load((PROJECT / "presets/demo.yaml").read_text())
    paper = yaml.safe_load((PROJECT / "presets/paper.yaml").read_text())
    parts = []
    for name, field in Params.model_fields.items():
        if name == "datasets":
            continue
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, Section)
        parts += [f"## {name}", inspect.cleandoc(section.__doc__ or ""), ""]
        parts += ["| key | type | default | the paper's | meaning |", "|---|---|---|---|---|"]
        parts += [
            f"| `{key}` | {kind(about.annotation)} | {shown(default[name].get(key))} "
            f"| {shown(paper[name].get(key))} | {in_a_line(about.description)} |"
            for key, about in section.model_fields.items()
        ]
        parts.append("")
    return "\n".join(parts + kinds_of_datasets())


def kinds_of_datasets() -> list[str]:
    union = typing.get_args(typing.get_args(Params.model_fields["datasets"].annotation)[1])[0]
    parts = ["## datasets", "A name of yours each, with a `kind` and the keys of that kind.", ""]
    parts += ["| kind | keys | what |", "|---|---|---|"]
    kinds_of: dict[tuple[str, ...], list[str]] = {}
    for section in typing.get_args(union):
        own = {key: about for key, about in section.model_fields.items() if key != "kind"}
        for name in typing.get_args(section.model_fields["kind"].annotation):
            page = READERS[name].module.__doc__ if issubclass(section, Public) else section.__doc__
            what = in_a_line((page or "").partition("\n\n")[0])
            parts.append(f"| `{name}` | {', '.join(f'`{key}`' for key in own)} | {what} |")
            for key, about in own.items():
                default = "" if about.is_required() else shown(about.default)
                row = (key, kind(about.annotation), default, in_a_line(about.description))
                kinds_of.setdefault(row, []).append(f"`{name}`")
    parts += ["", "| key | type | default | of | meaning |", "|---|---|---|---|---|"]
    for (key, type_, default, meaning), names in kinds_of.items():
        parts.append(f"| `{key}` | {type_} | {default} | {', '.join(names)} | {meaning} |")
    return parts


def in_a_line(text: str | None) -> str:
    return " ".join((text or "").split())


def kind(annotation: Any) -> str:
    """A type as a reader says it: constraints aside, they are in the error messages."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return ", ".join(f"`{key}`" for key in annotation.model_fields)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{argument}`" for argument in arguments)
    if origin is typing.Annotated:
        return kind(arguments[0])
    if origin is dict:
        return f"names of yours, each with {kind(arguments[1])}"
    if origin is tuple:
        return f"list of {kind(arguments[0])}"
    if arguments:
        return " or ".join(kind(argument) for argument in arguments)
    return "null" if annotation is type(None) else annotation.__name__


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(shown(part) for part in value) or "none"
    return "null" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"
