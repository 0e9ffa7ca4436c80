import math

import pytest
import torch

from matpac.model.pretext import Views
from matpac.training.health import Health, products, rankme
from matpac.training.history import describe_collapse
from matpac.training.log import first_judged
from matpac.training.schedules import Durations


def watched(latents, probs):
    health = Health.start(torch.zeros(probs.shape[-1]))
    nothing = torch.zeros(1)
    health.watch_(Views(latents, latents, nothing, nothing, nothing), probs)
    return health.values() | {"prediction_loss": 0.0}


def test_latents_in_all_directions_have_variance_one(generator):
    latents = torch.randn(10, 100, 16, generator=generator)
    values = watched(latents, torch.full((10, 100, 8), 1 / 8))
    assert values["teacher_variance"] == pytest.approx(1, abs=0.01)
    assert values["teacher_perplexity"] == pytest.approx(8, abs=1e-3)
    assert describe_collapse(values, 8) is None


def test_equal_latents_are_a_collapse(generator):
    latents = torch.randn(16, generator=generator).expand(2, 5, 16)
    values = watched(latents, torch.full((2, 5, 8), 1 / 8))
    assert values["teacher_variance"] == pytest.approx(0, abs=1e-5)
    assert "hardly differ" in describe_collapse(values, 8)


def test_one_class_for_everything_is_a_collapse(generator):
    probs = torch.zeros(2, 5, 8)
    probs[..., 3] = 1
    values = watched(torch.randn(2, 5, 16, generator=generator), probs)
    assert values["teacher_used_classes"] == 1
    assert values["teacher_perplexity"] == pytest.approx(1, abs=1e-4)
    assert "one class" in describe_collapse(values, 8)


def test_used_classes_are_those_that_come_first_for_some_patch():
    probs = torch.tensor([[[0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0.5, 0.3, 0.2]]])
    assert watched(torch.ones(1, 3, 4), probs)["teacher_used_classes"] == 2


@pytest.mark.parametrize("rank", [1, 2, 7, 16])
def test_rankme_of_equal_singular_values_is_their_number(generator, rank):
    left, right = (torch.linalg.qr(torch.randn(size, 16, generator=generator))[0] for size in (50, 16))
    matrix = left[:, :rank] @ right[:, :rank].T
    assert rankme(torch.linalg.svdvals(matrix)).item() == pytest.approx(rank, rel=1e-3)


def test_rankme_of_known_singular_values():
    shares = (0.5, 0.25, 0.25)
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert rankme(torch.tensor([8.0, 4.0, 4.0, 0.0])).item() == pytest.approx(expected, rel=1e-4)


def test_the_rank_over_micro_batches_is_that_of_all_latents(generator):
    latents = torch.randn(6, 5, 16, generator=generator) * torch.logspace(0, -3, 16)
    probs = torch.full((6, 5, 8), 1 / 8)
    health = Health.start(torch.zeros(8))
    nothing = torch.zeros(1)
    for part in (slice(0, 4), slice(4, 6)):
        health.watch_(Views(latents[part], latents[part], nothing, nothing, nothing), probs[part])
    unit = torch.nn.functional.normalize(latents.flatten(0, 1), dim=1)
    expected = rankme(torch.linalg.svdvals(unit.double())).item()
    assert health.values()["teacher_rankme"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("scales", "shared", "error"),
    [
        (torch.ones(128), 0.0, 1e-6),
        (torch.logspace(0, -3, 128), 0.0, 1e-6),
        (torch.logspace(0, -3, 128), 5.0, 1e-6),
        (torch.full((128,), 1e-3), 1.0, 1e-6),
        (torch.arange(128).lt(10).float(), 0.0, 0.02),
    ],
    ids=["isotropic", "three decades", "much in common", "nearly equal", "ten dimensions alone"],
)
def test_rankme_needs_no_product_in_float64(generator, scales, shared, error):
    """Only exact zeros among the singular values show: rounding puts them at 1e-4 of the largest."""
    rotation = torch.linalg.qr(torch.randn(128, 128, generator=generator))[0]
    latents = (torch.randn(4096, 128, generator=generator) * scales + shared) @ rotation
    unit = torch.nn.functional.normalize(latents, dim=1)
    found = sum(products(part) for part in unit.split(1000))
    expected = rankme(torch.linalg.svdvals(unit.double()))
    assert rankme(torch.linalg.eigvalsh(found).clamp(min=0).sqrt()).item() == pytest.approx(
        expected.item(), rel=error
    )


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_products_leave_the_precision_of_others_as_it_was(generator, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        products(torch.randn(3, 4, generator=generator))
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_equal_latents_have_rank_one(generator):
    latents = torch.randn(16, generator=generator).expand(2, 5, 16)
    assert watched(latents, torch.full((2, 5, 8), 1 / 8))["teacher_rankme"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("loss", "collapsed"),
    [(1.68, True), (1.26, True), (1.24, False), (0.32, False)],
)
def test_a_prediction_worse_than_a_constant_is_a_collapse(loss, collapsed):
    """At variance 0.75 the mean has length 0.5, so guessing it costs 2 - 2 * 0.5."""
    row = {"teacher_variance": 0.75, "teacher_perplexity": 30.0, "prediction_loss": loss}
    found = describe_collapse(row, 64)
    assert (found is not None) == collapsed
    if collapsed:
        assert f"prediction loss {loss:.2f}, constant 1.00" in found


@pytest.mark.parametrize(
    ("durations", "update"),
    [
        (Durations(1406, 93, 234), 93),
        (Durations(294_816, 19_654, 9_827), 19_654),
        (Durations(3000, 0, 10), 150),
        (Durations(60, 3, 10), 80),
    ],
)
def test_signs_of_collapse_count_from_the_first_tenth_on_but_not_at_once(durations, update):
    assert first_judged(durations) == update
    assert update < durations.total / 10 or durations.total < 800
