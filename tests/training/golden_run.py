"""Golden cases in their own processes: python -m tests.training.golden_run <golden> <out> <changes> <case>...

`changes` are parameters as JSON. Under torchrun all ranks train together, and the first writes the results
into the folder `out`, one file a case.
(A process of its own, because pytest's checks of types do not compile.)
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from matpac.model.masking import Split
from matpac.training.loop import Example, Learner, update_
from matpac.training.ranks import Ranks, all_ranks
from tests.training.golden import Golden

PROJECT = Path(__file__).resolve().parents[2]


def train(golden: Golden, changes: dict, ranks: Ranks) -> dict[str, Tensor]:
    """Losses and weights after the recorded updates, with `changes` to `pretrain` and `compute`.

    Runs on the device of `ranks`.
    """
    params = golden.params().model_copy(update=changes.get("pretrain", {}))
    pretext = golden.pretext().to(ranks.device)
    learner = Learner(pretext, params, golden.compute(**changes.get("compute", {})), ranks)
    part = ranks.part(params.batch_size)
    reports = []
    for update, whole in enumerate(golden.examples()):
        log_mel, *split = (values[part].to(ranks.device) for values in (whole.log_mel, *whole.split))
        example = Example(log_mel, Split(*split))
        reports.append(update_(learner, example, update, golden.knobs(update, params), watch=True))
    found = {
        "losses": torch.stack([report.losses for report in reports]),
        "grad_norms": torch.stack([report.grad_norm for report in reports]),
        "perplexities": torch.tensor([report.health.values()["teacher_perplexity"] for report in reports]),
        **pretext.state_dict(),
    }
    return {name: values.cpu() for name, values in found.items()}


def main(folder: str, out: str, changes: str, *cases: str) -> None:
    torch.set_num_threads(1)
    with all_ranks() as ranks:
        for case in cases:
            found = train(Golden(Path(folder), case, PROJECT), json.loads(changes), ranks)
            if ranks.is_first:
                save_file(found, Path(out, case))


if __name__ == "__main__":
    main(*sys.argv[1:])
