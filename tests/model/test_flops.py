import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from matpac.model.flops import training_flops
from matpac.model.masking import random_split
from matpac.model.pretext import Pretext
from matpac.model.sizes import SIZES


@pytest.mark.parametrize("classify", [True, False])
@pytest.mark.parametrize("num_hypotheses", [1, 5])
def test_the_count_is_that_of_pytorch(generator, num_hypotheses, classify):
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
    # Plain attention, because fused kernels compute some products twice.
    with sdpa_kernel(SDPBackend.MATH), counter:
        views = pretext(torch.randn(3, 80, 208, generator=generator), split, classify=classify)
        loss = views.distances.mean()
        (loss + views.predicted_logits.mean() if classify else loss).backward()
    assert counter.get_total_flops() == 3 * training_flops(pretext, 0.7, classify=classify).total


@pytest.mark.parametrize(
    ("mask_ratio", "crop_frames", "classify", "gflop"),
    [
        (0.7, 608, True, [30.0, 23.4, 31.1, 7.3]),
        (0.7, 608, False, [30.0, 23.4, 31.1, 0.0]),
        # The teacher sees the patches hidden from the student; the predictor sees all positions.
        (0.9, 608, True, [9.9, 30.5, 31.1, 9.4]),
        (0.7, 304, True, [14.9, 11.7, 15.2, 3.7]),
    ],
)
def test_what_the_parts_of_a_crop_cost_at_the_papers_size(mask_ratio, crop_frames, classify, gflop):
    with torch.device("meta"):
        pretext = Pretext(
            SIZES["base"],
            num_mels=80,
            crop_frames=crop_frames,
            num_clusters=2048,
            num_hypotheses=1,
            center_momentum=0.9,
        )
    found = training_flops(pretext, mask_ratio, classify=classify)
    assert [part / 1e9 for part in found] == pytest.approx(gflop, abs=0.1)
