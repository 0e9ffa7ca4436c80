"""Probing on a GPU, looked at without one."""

import pytest

from tests.fake_cuda.building import built_in, seen


@pytest.mark.slow
def test_the_host_waits_for_a_gpu_once_an_epoch_however_many_batches_it_has(tmp_path):
    """For the losses that decide who goes on; a value of each of two problems, in training and validation."""
    library = built_in(tmp_path)
    for few, many in seen(library, "tests.probing.on_fake_cuda", "epochs", num_batches=[3, 30]):
        assert few == ["_local_scalar_dense: the host reads a result"] * 4
        assert few == many
