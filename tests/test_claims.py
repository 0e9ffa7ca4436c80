import re

import yaml

from benchmarks.claims import Claim


def test_a_limit_is_reached_in_percent_and_a_peer_in_times():
    of_peer = Claim("crops", "crops/s", 50_000, "the usual loop", 5_000, goal=8)
    assert of_peer.cells() == ["crops", "50,000 crops/s", "the usual loop: 5,000", "10 x", "at least 8 x"]
    of_limit = Claim("crops", "crops/s", 50_000, "memory copy", 80_000, goal=0.75, is_limit=True)
    assert of_limit.cells()[2:] == ["memory copy: 80,000", "62.5 % of it", "at least 75 % of it (missed)"]
    assert Claim.from_json(of_limit.as_json()) == of_limit


def test_the_machinery_benchmark_calls_every_stage_of_the_pipeline(project):
    called = re.findall(r'timed\("(\w+)"\)', (project / "benchmarks/machinery.py").read_text())
    assert set(called) == set(yaml.safe_load((project / "dvc.yaml").read_text())["stages"])
