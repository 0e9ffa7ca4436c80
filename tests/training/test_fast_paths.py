"""Every option that makes training faster or smaller reproduces the authors' recorded updates."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from matpac.params import load_params
from matpac.training.ranks import (
    Ranks,
    begin_all_processes,
    processes_for_fits,
    processes_on_cpu,
    this_process,
)
from matpac.weights.released import our_names
from tests.training.golden import CASES, Golden
from tests.training.golden_run import train

PROJECT = Path(__file__).resolve().parents[2]
EXACT = 5e-5 if torch.cuda.is_available() else 5e-6
BFLOAT16 = 5e-3
"""Eight bits of mantissa are 0.4 % of a product; losses and weights are sums of thousands of them."""
SAME_PROCESS = {
    "accumulated": ({"compute": {"micro_batch_size": 1}}, EXACT),
    "recomputed": ({"compute": {"recompute_activations": True}}, EXACT),
    "bfloat16": ({"pretrain": {"precision": "bfloat16"}}, BFLOAT16),
    "bfloat16 sums": (
        {"pretrain": {"precision": "bfloat16"}, "compute": {"residual": "bfloat16"}},
        BFLOAT16,
    ),
}
COMPILED = {
    "compiled": ({"compute": {"compile": True}}, EXACT),
    "all together": (
        {
            "pretrain": {"precision": "bfloat16"},
            "compute": {
                "compile": True,
                "recompute_activations": True,
                "micro_batch_size": 1,
                "residual": "bfloat16",
            },
        },
        BFLOAT16,
    ),
}
OF_RANKS = ("paper", "pred_only", "mcl")


@pytest.fixture
def demo():
    return load_params(PROJECT / "presets/demo.yaml")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("path", SAME_PROCESS)
def test_a_fast_path_matches_the_authors_code(golden_folder, project, path, case):
    changes, tolerance = SAME_PROCESS[path]
    golden = Golden(golden_folder, case, project)
    check(train(golden, changes, this_process()), golden, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("path", COMPILED)
def test_compiled_it_matches_the_authors_code(golden_folder, project, tmp_path, path):
    """In the case `mcl`, which has all networks of the others, and several hypotheses."""
    changes, tolerance = COMPILED[path]
    launch([], golden_folder, tmp_path, changes, "mcl")
    check(load_file(tmp_path / "mcl"), Golden(golden_folder, "mcl", project), tolerance)


@pytest.mark.slow
def test_every_size_of_micro_batch_has_whole_graphs_even_with_several_ranks():
    """Blocks of student, predictor and teacher, the matching of hypotheses, and the losses."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.training.compiled_graphs", *"234"],
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    first, *others = json.loads(run.stdout)
    block = first[0]
    assert [size > 1 for size in first] == [True] * 5
    assert first[1] == first[2] == block > 15, "whole blocks"
    assert others == [first] * 2, "later sizes are compiled as the first is"


@pytest.fixture(scope="module")
def of_two_ranks(golden_folder, tmp_path_factory):
    """A batch of three: one clip on the first rank, two on the second, in micro-batches of one."""
    out = tmp_path_factory.mktemp("ranks")
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--log-dir",
        os.devnull,
    ]
    launch(launcher, golden_folder, out, {"compute": {"micro_batch_size": 1}}, *OF_RANKS)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("case", OF_RANKS)
def test_two_ranks_match_the_authors_code(golden_folder, project, of_two_ranks, case):
    check(load_file(of_two_ranks / case), Golden(golden_folder, case, project), EXACT)


def launch(launcher: list[str], golden_folder: Path, out: Path, changes: dict, *cases: str) -> None:
    arguments = [str(golden_folder), str(out), json.dumps(changes), *cases]
    subprocess.run(
        [sys.executable, *launcher, "-m", "tests.training.golden_run", *arguments],
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )


def check(found: dict[str, torch.Tensor], golden: Golden, tolerance: float) -> None:
    for column, name in enumerate(["loss_pred", "loss_cls", "loss_total"]):
        expect(found["losses"][:, column], golden.values[name], tolerance)
    expect(found["grad_norms"], golden.values["grad_norm"], 4 * tolerance)
    expect(found["perplexities"], golden.values["cls_perplexity"], 200 * tolerance)
    if (golden.folder / f"train_{golden.name}_final.pt").exists():
        final = our_names(golden.state(f"train_{golden.name}_final"))
        for name in final.keys() - {"center.value"}:  # recorded one update late
            expect(found[name], final[name], tolerance)


def expect(found: torch.Tensor, recorded: object, tolerance: float) -> None:
    recorded = torch.as_tensor(recorded).float()
    torch.testing.assert_close(found, recorded, atol=tolerance, rtol=0)


def test_parts_make_up_the_batch_and_differ_by_one_clip_at_most():
    for size, number in [(8, 2), (7, 3), (3, 3), (2048, 7)]:
        parts = [Ranks(rank, number, torch.device("cpu")).part(size) for rank in range(number)]
        assert [clip for part in parts for clip in range(part.start, part.stop)] == list(range(size))
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_more_gpus_than_there_are_is_refused(demo, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    many = demo.model_copy(update={"compute": demo.compute.model_copy(update={"num_processes": 1000})})
    with pytest.raises(ValueError, match=r"compute.num_processes: need 1000 GPUs, found 2"):
        begin_all_processes(many)


@pytest.mark.parametrize(
    ("size", "batch_size", "cores", "gigabytes", "expected"),
    [
        ("tiny", 32, 2, 8, 2),
        ("tiny", 32, 1, 8, 1),
        ("tiny", 32, 64, 512, 4),  # eight crops each
        ("tiny", 4, 64, 512, 1),
        ("base", 2048, 16, 16, 2),  # 3.1 GB each, in half of the memory
        ("base", 2048, 16, 4, 1),
    ],
)
def test_processes_on_a_cpu(demo, size, batch_size, cores, gigabytes, expected):
    params = demo.model_copy(
        update={
            "model": demo.model.model_copy(update={"size": size}),
            "pretrain": demo.pretrain.model_copy(update={"batch_size": batch_size}),
        }
    )
    assert processes_on_cpu(params, cores, gigabytes * 10**9) == expected


@pytest.mark.parametrize(
    ("size", "num_fits", "cores", "gigabytes", "expected"),
    [("tiny", 15, 2, 8, 2), ("tiny", 3, 16, 64, 3), ("base", 15, 16, 16, 3), ("base", 15, 16, 2, 1)],
)
def test_processes_for_fits(demo, size, num_fits, cores, gigabytes, expected):
    params = demo.model_copy(update={"model": demo.model.model_copy(update={"size": size})})
    assert processes_for_fits(params, num_fits, cores, gigabytes * 10**9) == expected
