"""Five updates of the authors' code, step by step. The folder's README says how they were recorded."""

import json

import numpy as np
import pytest
import torch

from matpac.model.masking import split_by
from matpac.model.pretext import Pretext
from matpac.model.released import our_names
from matpac.model.sizes import Size
from matpac.params import Pretrain, Ramp, load_params
from matpac.training.loop import Example, new_optimizer, update_
from matpac.training.schedules import Durations, knobs_at

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
        return load_params(self.project / "params.yaml").pretrain.model_copy(
            update={
                "batch_size": batch,
                "micro_batch_size": batch,
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

    def lasting(self) -> Durations:
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


@pytest.fixture(params=CASES)
def golden(request, golden_folder, project):
    return Golden(golden_folder, request.param, project)


def test_five_updates_match_the_authors_code(golden):
    pretext, params, lasting = golden.pretext(), golden.params(), golden.lasting()
    optimizer = new_optimizer(pretext, params)
    expected = golden.values

    for update, example in enumerate(golden.examples()):
        # The recorded cases hold the learning rate still.
        knobs = knobs_at(update, lasting, params)._replace(learning_rate=golden.meta["lr"])
        center = pretext.center.value.numpy().copy()
        report = update_(pretext, optimizer, example, update, knobs, params)

        found = {
            "loss_pred": report.prediction_loss.item(),
            "loss_cls": report.classification_loss.item(),
            "loss_total": report.loss.item(),
            "grad_norm": report.grad_norm.item(),
            "t_temp": knobs.teacher_temperature,
            "ema_decay_encoder": knobs.encoder_decay,
            "ema_decay_head": knobs.head_decay,
        }
        if "mcl_temp" in expected:
            found["mcl_temp"] = knobs.choice_temperature
        for name, value in found.items():
            assert value == pytest.approx(expected[name][update], abs=5e-6), (name, update)
        health = report.health.values()
        assert health["teacher_perplexity"] == pytest.approx(expected["cls_perplexity"][update], rel=1e-4)
        assert health["teacher_used_classes"] == expected["n_diff_target"][update]
        np.testing.assert_allclose(center, expected["center_used"][update], atol=1e-6)
        np.testing.assert_allclose(pretext.center.value, expected["center_next"][update], atol=1e-6)

    if (golden.folder / f"train_{golden.name}_final.pt").exists():
        final, ours = our_names(golden.state(f"train_{golden.name}_final")), pretext.state_dict()
        for name in final.keys() - {"center.value"}:  # recorded one update late
            torch.testing.assert_close(ours[name], final[name], atol=5e-6, rtol=0, msg=name)


def test_activations_of_the_first_update_match(golden):
    recorded = golden.values
    if "step0_student_logits" not in recorded:
        pytest.skip("activations are recorded for other cases")
    pretext, [example, *_] = golden.pretext(), golden.examples()
    with torch.no_grad():
        views = pretext(*example)
    for name, found in {
        "z_m": views.target_latents,
        "z_hat_m": views.predicted_latents,
        "teacher_logits": views.target_logits,
        "student_logits": views.predicted_logits,
    }.items():
        expected = torch.from_numpy(recorded.get(f"step0_{name}", found.numpy()))
        expected = expected[:, -found.shape[1] :]  # some are recorded with the CLS token
        if expected.ndim == found.ndim:  # all hypotheses of `mcl`: their logits are compared
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0, msg=name)


def test_gradients_of_the_first_update_have_the_recorded_size(golden):
    pretext, params = golden.pretext(), golden.params()
    knobs = knobs_at(0, golden.lasting(), params)._replace(learning_rate=0.0)
    loose = params.model_copy(update={"max_grad_norm": 1e9})
    update_(pretext, new_optimizer(pretext, loose), golden.examples()[0], 0, knobs, loose)
    gradients = {name: weight.grad for name, weight in pretext.named_parameters()}
    for released, expected in golden.case["grad0_l2"].items():
        if released.startswith("mcl_heads"):
            continue  # several layers of theirs are one of ours
        [name] = our_names({released: torch.zeros(1, 1)})
        assert gradients[name].norm().item() == pytest.approx(expected, abs=5e-6), name


def test_schedules_match_the_released_ones(golden_folder, project):
    recorded = json.loads((golden_folder / "schedules.json").read_text())
    paper = load_params(project / "presets" / "paper.yaml").pretrain
    lasting = Durations(294_816, 19_654, 9_827)
    for position, update in enumerate(recorded["num_updates"]):
        if update >= lasting.total:
            continue  # past the end the released scheduler starts a second cycle
        knobs = knobs_at(update, lasting, paper)
        for name, value in {
            "lr": knobs.learning_rate,
            "t_temp": knobs.teacher_temperature,
            "ema_encoder": knobs.encoder_decay,
            "ema_head": knobs.head_decay,
            "mcl_temp_yaml": knobs.choice_temperature,
        }.items():
            assert value == pytest.approx(recorded[name][position], rel=1e-9, abs=1e-15), (name, update)
