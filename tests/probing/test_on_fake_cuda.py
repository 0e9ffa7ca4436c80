"""Probing on a GPU, looked at without one."""

import pytest

from tests.fake_cuda.building import built_in, seen

READ = "_local_scalar_dense: the host reads a result"


@pytest.mark.slow
def test_the_host_waits_for_a_gpu_at_the_end_of_an_epoch_however_many_batches_it_has(tmp_path):
    """For the losses of training and validation, which decide who goes on."""
    library = built_in(tmp_path)
    *linear, attentive = seen(library, "tests.probing.on_fake_cuda", "epochs", num_batches=[3, 30])
    for few, many in linear:
        assert few == many == [READ] * 4  # a value of each of two problems, read together
    assert attentive == [[READ] * 2] * 2
