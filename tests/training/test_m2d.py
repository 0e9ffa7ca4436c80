"""presets/m2d.yaml against M2D's update, written out after its paper and its authors' code."""

import pytest
import torch
import torch.nn.functional as F

from matpac.model.masking import random_split, take
from matpac.model.pretext import Pretext
from matpac.model.sizes import Size
from matpac.params import Ramp, load_params
from matpac.training.loop import Example, Learner, update_
from matpac.training.ranks import this_process
from matpac.training.schedules import Durations, knobs_at

NANO = Size(16, 1, 2, 16, 1, 2, 16, 8)
LASTING = Durations(total=12, warmup=2, teacher_temperature=4)
FAST = {"batch_size": 4, "precision": "float32", "encoder_decay": Ramp(first=0.5, last=0.9)}
"""Changes to the preset so that five updates on four clips show every difference."""


@pytest.fixture
def examples(generator):
    return [
        Example(torch.randn(4, 32, 64, generator=generator), random_split(4, 8, 0.5, generator))
        for _ in range(5)
    ]


def networks(*, standardize: bool) -> Pretext:
    pretext = Pretext(
        NANO,
        num_mels=32,
        crop_frames=64,
        num_clusters=8,
        num_hypotheses=1,
        center_momentum=0.9,
        standardize_targets=standardize,
    )
    generator = torch.Generator().manual_seed(1)
    pretext.initialize_(generator)
    with torch.no_grad():
        # A bias, so that targets have a mean, and a small last layer, whose gradients are large.
        pretext.teacher_encoder.norm.bias.normal_(generator=generator)
        pretext.predictor.hypotheses.weight.mul_(0.01)
    return pretext


def written_out(examples, params) -> dict[str, torch.Tensor]:
    pretext = networks(standardize=False)
    trained = [*pretext.patches.parameters(), *pretext.student_encoder.parameters()]
    trained += pretext.predictor.parameters()
    optimizer = torch.optim.AdamW(
        [
            {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": 0.05},
            {"params": [weight for weight in trained if weight.ndim == 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    for update, (log_mel, split) in enumerate(examples):
        patches = pretext.patches(log_mel)
        visible = pretext.student_encoder(pretext.patches.with_cls(take(patches, split.visible)))
        predicted = pretext.predictor(visible, split)[:, :, 0]
        with torch.no_grad():
            target = pretext.teacher_encoder(pretext.patches.with_cls(take(patches, split.masked)))[:, 1:]
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        knobs = knobs_at(update, LASTING, params)
        for group in optimizer.param_groups:
            group["lr"] = knobs.learning_rate
        optimizer.zero_grad()
        (2 - 2 * F.cosine_similarity(predicted, target, dim=-1)).mean().backward()
        optimizer.step()
        with torch.no_grad():
            followers = zip(
                pretext.teacher_encoder.parameters(), pretext.student_encoder.parameters(), strict=True
            )
            for slow, fast in followers:
                slow.copy_(knobs.encoder_decay * slow + (1 - knobs.encoder_decay) * fast)
    return pretext.state_dict()


def trained(examples, params, compute) -> dict[str, torch.Tensor]:
    pretext = networks(standardize=params.standardize_targets)
    learner = Learner(pretext, params, compute, this_process())
    for update, example in enumerate(examples):
        update_(learner, example, update, knobs_at(update, LASTING, params), watch=False)
    return pretext.state_dict()


def largest_difference(found, expected) -> float:
    """Largest difference of any weight except biases of keys. The softmax cancels these biases, so their
    gradient is only rounding, which Adam scales up like any other."""
    found, expected = without_biases_of_keys(found), without_biases_of_keys(expected)
    return max((found[name] - value).abs().max().item() for name, value in expected.items())


def without_biases_of_keys(weights):
    def queries_and_values(bias):
        queries, _, values = bias.chunk(3)
        return torch.cat([queries, values])

    return {
        name: queries_and_values(value) if name.endswith("qkv.bias") else value
        for name, value in weights.items()
    }


@pytest.fixture
def m2d(project):
    params = load_params(project / "presets/m2d.yaml")
    return params.pretrain.model_copy(update=FAST), params.compute.model_copy(update={"compile": False})


def test_five_updates_are_m2ds(examples, m2d):
    pretrain, compute = m2d
    assert largest_difference(trained(examples, pretrain, compute), written_out(examples, pretrain)) < 1e-6


@pytest.mark.parametrize(
    "key", ["weight_decay_on", "max_grad_norm", "alpha", "teacher_follows", "standardize_targets", "adam_eps"]
)
def test_with_one_of_matpacs_settings_they_are_not(examples, m2d, project, key):
    pretrain, compute = m2d
    matpacs = getattr(load_params(project / "presets/paper.yaml").pretrain, key)
    other = pretrain.model_copy(update={key: matpacs})
    assert largest_difference(trained(examples, other, compute), written_out(examples, pretrain)) > 1e-5
