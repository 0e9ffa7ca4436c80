from importlib.metadata import packages_distributions

from matpac.report.experiments import Experiment, Result
from matpac.report.provenance import PACKAGES, records
from tests.test_architecture import PROJECT, STAGES, closure, entry_of, imports_in


def test_the_packages_named_are_those_that_the_stages_import():
    distributions = packages_distributions()
    used = {
        distribution.lower()
        for stage in STAGES.values()
        for file in closure(entry_of((stage.get("do") or stage)["cmd"]))
        for module in imports_in(PROJECT / file)
        for distribution in distributions.get(module.split(".")[0], [])
    }
    # DVC runs the stages.
    assert set(PACKAGES) - {"matpac", "dvc"} <= used


def test_a_record_made_without_git_says_so_and_an_older_one_is_unknown():
    dated = Result("data", [0.5], recorded="2026-11-27T10:00:00+00:00")
    older = Result("data", [0.5])
    experiments = [
        Experiment({"pretrain.seed": 0}, {"a": dated}),
        Experiment({"pretrain.seed": 1}, {"a": older}),
    ]
    assert records(experiments, {"pretrain.seed": 0}) == [
        ["this run", "0", "2026-11-27 10:00:00", "no git", "no git"],
        ["this run", "1", "unknown", "unknown", "unknown"],
    ]
