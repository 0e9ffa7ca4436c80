import math

import torch

from matpac.model.losses import classification_loss, teacher_probabilities
from matpac.model.masking import random_split
from matpac.model.pretext import Pretext
from matpac.model.sizes import SIZES


def pretext(size: str = "tiny", **kwargs) -> Pretext:
    settings = {"num_mels": 80, "crop_frames": 96, "num_clusters": 64, "num_hypotheses": 1}
    return Pretext(SIZES[size], center_momentum=0.9, **(settings | kwargs))


def test_the_papers_model_has_118_084_608_trained_weights():
    with torch.device("meta"):
        base = pretext("base", crop_frames=608, num_clusters=2048)
    assert base.num_patches == 190
    assert sum(weight.numel() for weight in base.parameters() if weight.requires_grad) == 118_084_608


def test_views_have_one_row_for_each_masked_patch(generator):
    model = pretext(num_hypotheses=5)
    model.initialize_(generator)
    split = random_split(2, model.num_patches, 0.7, generator)
    views = model(torch.randn(2, 80, 96, generator=generator), split)
    assert views.target_latents.shape == views.predicted_latents.shape == (2, 21, 128)
    assert views.distances.shape == (2, 21, 5)
    assert views.target_logits.shape == views.predicted_logits.shape == (2, 21, 64)


def test_the_teacher_sees_the_masked_patches_and_the_student_the_visible_ones(generator):
    model = pretext()
    model.initialize_(generator)
    split = random_split(1, model.num_patches, 0.7, generator)
    log_mel = torch.randn(1, 80, 96, generator=generator)
    before = model(log_mel, split)

    freq, time = divmod(split.masked[0, 0].item(), 6)
    changed = log_mel.clone()
    changed[:, freq * 16 : freq * 16 + 16, time * 16 : time * 16 + 16] += 1
    after = model(changed, split)

    assert torch.equal(before.predicted_latents, after.predicted_latents)
    assert not torch.equal(before.target_latents, after.target_latents)


def test_no_gradient_reaches_the_teacher(generator):
    model = pretext()
    model.initialize_(generator)
    split = random_split(1, model.num_patches, 0.7, generator)
    views = model(torch.randn(1, 80, 96, generator=generator), split)
    (views.distances.mean() + views.predicted_logits.mean()).backward()
    assert all(weight.grad is None for weight in model.teacher_encoder.parameters())
    assert all(weight.grad is None for weight in model.teacher_head.parameters())
    assert all(weight.grad is not None for weight in model.student_encoder.parameters())


def test_initialization_follows_its_table(generator):
    model = pretext(num_hypotheses=2)
    model.initialize_(generator)
    qkv = model.student_encoder.blocks[0].attn.qkv.weight
    assert qkv.abs().max() <= math.sqrt(6 / (128 + 3 * 128))
    first, second = model.predictor.hypotheses.weight.chunk(2)
    assert first.abs().max() > 0.9 * math.sqrt(6 / (128 + 96)) >= 0.9 * second.abs().max()
    assert not torch.equal(qkv, model.teacher_encoder.blocks[0].attn.qkv.weight)
    assert torch.equal(model.student_head.direction, model.teacher_head.direction)
    assert not torch.equal(model.student_head.mlp[0].weight, model.teacher_head.mlp[0].weight)


def test_a_fresh_student_pays_about_the_logarithm_of_the_number_of_clusters(generator):
    model = pretext(num_clusters=64)
    model.initialize_(generator)
    split = random_split(4, model.num_patches, 0.7, generator)
    views = model(torch.randn(4, 80, 96, generator=generator), split)
    probs = teacher_probabilities(views.target_logits, model.center.value, 0.04)
    loss = classification_loss(views.predicted_logits, probs, 0.1).item()
    assert math.log(64) - 0.1 < loss < math.log(64) + 1.5
