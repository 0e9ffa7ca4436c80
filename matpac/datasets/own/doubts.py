"""classes of own recordings -> questions: are these splits, are those several labels in one name?"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from matpac.clip import Task
from matpac.datasets.own.places import SPLITS

NUM_SHOWN = 3
FOLD = re.compile(r"(fold|split|part)[ _-]?\d+", re.IGNORECASE)
SEPARATORS = re.compile(r"[;|,/]")


def several_in_one(classes: Collection[str]) -> list[str]:
    """Classes that look like several labels: each of their parts is a class, or part of another one.

    `Music, sad` is one class, unless there are `Music` and `sad` too.
    """
    divided = {name: parts_of(name) for name in classes}
    counts = Counter(part for parts in divided.values() for part in set(parts))
    return sorted(
        name
        for name, parts in divided.items()
        if len(parts) > 1 and all(part in divided or counts[part] > 1 for part in parts)
    )


def doubts_about(task: Task) -> Iterator[str]:
    """Questions about the classes of a task, with what to do if they are answered by yes."""
    if not task.multi_label and (found := several_in_one(task.classes)):
        yield f"{_shown(found)} look like several labels each. If they are, set multi_label to true"
    found = [name for name in task.classes if name.lower() in SPLITS or FOLD.fullmatch(name)]
    if found:
        yield (
            f"{_shown(found)} look like splits or folds, not classes. If they are, move these folders above "
            "or below the classes, or give a table with the columns path, label and split (or fold)"
        )


def parts_of(name: str) -> list[str]:
    """What separators divide a name into."""
    return [part for part in (part.strip() for part in SEPARATORS.split(name)) if part]


def _shown(names: Sequence[str]) -> str:
    number = f"{len(names):,} classes" if len(names) > 1 else "1 class"
    return f"{number} ({', '.join(names[:NUM_SHOWN])}{', ...' if len(names) > NUM_SHOWN else ''})"
