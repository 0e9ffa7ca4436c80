"""Probing on a GPU, looked at without one."""

import pytest

from tests.fake_cuda.building import built_in, seen


@pytest.mark.slow
def test_an_epoch_waits_for_a_gpu_as_often_however_many_batches_it_has(tmp_path):
    """It waits at its end, for the losses that decide whether to go on, and for copies of orders."""
    library = built_in(tmp_path)
    for few, many in seen(library, "tests.probing.on_fake_cuda", "epochs", num_batches=[3, 30]):
        assert any("the host reads" in wait for wait in few), "the losses of an epoch"
        assert few == many
