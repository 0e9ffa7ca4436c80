"""python -m tests.training.compiled_graphs <size> ...: for each size of micro-batch, graphs of blocks.

Prints JSON: the names of compiled functions and how many operations each new graph has. In a
process of its own, because pytest's checks of types do not compile. The graphs run as they are.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from matpac.model.masking import random_split
from matpac.params import load_params
from matpac.training.objective import Objective
from matpac.weights.checkpoint import new_pretext

PROJECT = Path(__file__).resolve().parents[2]


def main(sizes: list[int]) -> None:
    params = load_params(PROJECT / "presets/demo.yaml")
    made: list[int] = []

    def counting(graph: torch.fx.GraphModule, _inputs: object) -> object:
        made.append(sum(node.op.startswith("call_") for node in graph.graph.nodes))
        return graph.forward

    compile_with = torch.compile
    torch.compile = lambda function, **given: compile_with(function, backend=counting, **given)
    pretext = new_pretext(params.logmel, params.model, params.pretrain)
    objective = Objective(pretext, params.pretrain)
    objective.compile_parts_()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    # So small a bucket holds no whole block, as with the paper's size and the usual buckets.
    dist._DEFAULT_FIRST_BUCKET_BYTES = 50_000
    distributed = DistributedDataParallel(objective, gradient_as_bucket_view=True, bucket_cap_mb=0.1)
    generator = torch.Generator().manual_seed(0)
    found = []
    for size in sizes:
        made.clear()
        log_mel = torch.randn(size, params.logmel.num_mels, params.pretrain.crop_frames, generator=generator)
        split = random_split(size, pretext.num_patches, params.model.mask_ratio, generator)
        distributed(log_mel, split, torch.tensor(0.05), None).loss.backward()
        found.append(list(made))
    dist.destroy_process_group()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]])
