import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from matpac.model.flops import training_flops
from matpac.model.masking import random_split
from matpac.model.pretext import Pretext
from matpac.model.sizes import SIZES


@pytest.mark.parametrize("num_hypotheses", [1, 5])
def test_the_count_is_that_of_pytorch(generator, num_hypotheses):
    pretext = Pretext(
        SIZES["tiny"],
        num_mels=80,
        crop_frames=208,
        num_clusters=64,
        num_hypotheses=num_hypotheses,
        center_momentum=0.9,
    )
    split = random_split(3, pretext.num_patches, 0.7, generator)
    counter = FlopCounterMode(display=False)
    # Attention in the open: fused kernels compute some products twice.
    with sdpa_kernel(SDPBackend.MATH), counter:
        views = pretext(torch.randn(3, 80, 208, generator=generator), split)
        (views.distances.mean() + views.predicted_logits.mean()).backward()
    assert counter.get_total_flops() == 3 * training_flops(pretext, 0.7)


def test_a_crop_of_the_paper_costs_about_91_gflop():
    with torch.device("meta"):
        pretext = Pretext(
            SIZES["base"],
            num_mels=80,
            crop_frames=608,
            num_clusters=2048,
            num_hypotheses=1,
            center_momentum=0.9,
        )
    assert training_flops(pretext, 0.7) / 1e9 == pytest.approx(91, abs=1)
