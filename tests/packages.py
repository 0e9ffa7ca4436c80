"""Processes that find only some of the packages that are installed here."""

from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REFUSING = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in REFUSED else self.finder.find_spec(name, path, target)

REFUSED = set(sys.argv.pop(1).split(","))
sys.meta_path[:] = map(Without, sys.meta_path)
"""
"""Begins a program that finds no package whose name is in its first argument, a list with commas."""


def distributions_below(lines: list[str]) -> set[str]:
    """These distributions and all that they require, here and without extras of ours."""
    waiting, found = [Requirement(line) for line in lines], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        try:
            below = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
        extras = requirement.extras or {""}
        for line in map(Requirement, below):
            if line.marker is None or any(line.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(line)
    return found


def names_outside(distributions: set[str]) -> set[str]:
    """Names that can be imported here, but come neither from `distributions` nor from this project."""
    return {
        name
        for name, found in packages_distributions().items()
        if not distributions & {canonicalize_name(distribution) for distribution in found}
    } - {"matpac", "flows"}
