import pytest
import torch

from matpac.model.pretext import Views
from matpac.training.health import Health, complaint


def watched(latents, probs):
    health = Health.start(torch.zeros(probs.shape[-1]))
    nothing = torch.zeros(1)
    health.watch_(Views(latents, latents, nothing, nothing, nothing), probs)
    return health.values()


def test_latents_in_all_directions_have_variance_one(generator):
    latents = torch.randn(10, 100, 16, generator=generator)
    values = watched(latents, torch.full((10, 100, 8), 1 / 8))
    assert values["teacher_variance"] == pytest.approx(1, abs=0.01)
    assert values["teacher_perplexity"] == pytest.approx(8, abs=1e-3)
    assert complaint(values, 8) is None


def test_equal_latents_are_complained_about(generator):
    latents = torch.randn(16, generator=generator).expand(2, 5, 16)
    values = watched(latents, torch.full((2, 5, 8), 1 / 8))
    assert values["teacher_variance"] == pytest.approx(0, abs=1e-5)
    assert "hardly differ" in complaint(values, 8)


def test_one_class_for_everything_is_complained_about(generator):
    probs = torch.zeros(2, 5, 8)
    probs[..., 3] = 1
    values = watched(torch.randn(2, 5, 16, generator=generator), probs)
    assert values["teacher_used_classes"] == 1
    assert values["teacher_perplexity"] == pytest.approx(1, abs=1e-4)
    assert "one class" in complaint(values, 8)


def test_used_classes_are_those_that_come_first_for_some_patch():
    probs = torch.tensor([[[0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0.5, 0.3, 0.2]]])
    assert watched(torch.ones(1, 3, 4), probs)["teacher_used_classes"] == 2
