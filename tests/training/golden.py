"""Five recorded updates of the authors' code; the folder's README says how they were made."""

import json

import numpy as np
import torch

from matpac.model.masking import split_by
from matpac.model.pretext import Pretext
from matpac.model.sizes import Size
from matpac.params import Compute, Pretrain, Ramp, load_params
from matpac.training.loop import Example
from matpac.training.schedules import Durations, Knobs, knobs_at
from matpac.weights.released import our_names

CASES = ["paper", "released", "released_yaml", "pred_only", "mcl", "released_clip0.5"]
NUM_HYPOTHESES = 5
MASK_RATIO = 0.7


def arrays(path) -> dict:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


class Golden:
    def __init__(self, folder, case, project):
        self.meta = json.loads((folder / "train_meta.json").read_text())
        self.case = self.meta["cases"][case]
        self.values = arrays(folder / f"train_{case}.npz")
        self.folder, self.name, self.project = folder, case, project

    def state(self, name):
        return torch.load(self.folder / f"{name}.pt", weights_only=True)

    def pretext(self) -> Pretext:
        arch = self.meta["arch"]
        initial = self.state("train_init")
        if self.case["use_mcl"]:
            initial |= self.state("train_init_mcl")
        size = Size(
            *(arch[name] for name in ("embed", "depth", "heads", "dec", "dec_depth", "dec_heads")),
            head_hidden=arch["head_hidden"],
            head_bottleneck=initial["cls_student_head.last_layer.weight_v"].shape[1],
        )
        pretext = Pretext(
            size,
            num_mels=arch["n_freq"],
            crop_frames=arch["n_t"],
            num_clusters=arch["K"],
            num_hypotheses=NUM_HYPOTHESES if self.case["use_mcl"] else 1,
            center_momentum=0.9,
        )
        pretext.load_state_dict(our_names(initial))
        return pretext

    def params(self) -> Pretrain:
        schedule, adam = self.case["sched"], self.meta["adam"]
        batch = self.meta["batch"]
        return load_params(self.project / "presets/demo.yaml").pretrain.model_copy(
            update={
                "batch_size": batch,
                "adam_betas": tuple(adam["betas"]),
                "adam_eps": adam["eps"],
                "weight_decay": adam["weight_decay"],
                "max_grad_norm": self.case["clip"],
                "alpha": self.case["alpha"],
                "student_temperature": 0.1,
                "teacher_temperature": Ramp(first=schedule["t_warm"], last=schedule["t_end"]),
                "encoder_decay": Ramp(first=schedule["ema_decay"], last=schedule["ema_end_decay"]),
                "head_decay": Ramp(first=schedule["head_ema"], last=schedule["head_ema_end"]),
                "choice_temperature": Ramp(first=schedule["mcl_start"], last=schedule["mcl_end"]),
                "choice_decay": schedule["mcl_decay"],
                "center_of": "logits" if self.case["center"] == "paper" else "probabilities",
            }
        )

    def compute(self, **changed) -> Compute:
        whole = {"micro_batch_size": self.meta["batch"], "compile": False}
        return load_params(self.project / "presets/demo.yaml").compute.model_copy(update=whole | changed)

    def knobs(self, update: int, params: Pretrain) -> Knobs:
        """Settings of an update; the recorded cases keep the learning rate constant."""
        return knobs_at(update, self.durations(), params)._replace(learning_rate=self.meta["lr"])

    def durations(self) -> Durations:
        schedule = self.case["sched"]
        return Durations(schedule["max_update"], 0, schedule["t_warm_steps"])

    def examples(self) -> list[Example]:
        inputs = arrays(self.folder / "train_inputs.npz")
        log_mels = torch.from_numpy(inputs["batches_int8"] * inputs["batches_scale"])
        noise = torch.from_numpy(inputs["noise"])
        return [
            Example(log_mel.float(), split_by(one, MASK_RATIO))
            for log_mel, one in zip(log_mels, noise, strict=True)
        ]
