"""constraints.txt pins everything, so that an installation resolves nothing."""

from importlib.metadata import distribution, distributions

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ELSEWHERE = {
    "here": {},
    "Python 3.12": {"python_version": "3.12", "python_full_version": "3.12.4"},
    "Python 3.13": {"python_version": "3.13", "python_full_version": "3.13.1"},
    "macOS": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}
NOT_PINNED = {"matpac", "pip"}


@pytest.fixture(scope="module")
def requirements():
    """What each installed package requires."""
    return {
        canonicalize_name(one.name): [Requirement(line) for line in one.requires or []]
        for one in distributions()
    }


@pytest.fixture(params=ELSEWHERE)
def environment(request):
    return default_environment() | ELSEWHERE[request.param]


@pytest.fixture
def pins(project, environment):
    lines = (project / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines]
    assert [pin.name for pin in pins] == sorted((pin.name for pin in pins), key=canonicalize_name)
    return {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(environment)
    }


def needed(requirements, environment):
    """All requirements of `matpac[dev]`, each with the one that asks for it.

    Packages that are not installed here, because other systems need them, are not followed.
    """
    waiting, seen = [("matpac", "dev"), ("setuptools", "")], set()
    while waiting:
        name, extra = waiting.pop()
        for requirement in requirements.get(name, []):
            if requirement.marker is None or requirement.marker.evaluate(environment | {"extra": extra}):
                yield name, requirement
                wanted = [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]
                waiting += [each for each in wanted if each not in seen]
                seen.update(wanted)


def test_every_requirement_is_pinned_to_a_version_that_fits(requirements, environment, pins):
    for name, requirement in needed(requirements, environment):
        required = canonicalize_name(requirement.name)
        if required not in NOT_PINNED:
            assert required in pins, f"{name} needs {requirement}"
            assert requirement.specifier.contains(pins[required], prereleases=True), f"{name}: {requirement}"


def test_nothing_is_pinned_that_nobody_needs(requirements, pins):
    wanted = {canonicalize_name(each.name) for _, each in needed(requirements, default_environment())}
    assert {name for name in pins if name in requirements} <= wanted | {"setuptools"}


def test_what_is_installed_is_what_is_pinned(requirements, pins, environment):
    if environment != default_environment():
        pytest.skip("another system")
    assert {name: distribution(name).version for name in pins} == pins
