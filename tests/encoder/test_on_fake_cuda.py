"""Embedding on a GPU, looked at without one."""

import pytest

from tests.fake_cuda.building import built_in, seen


@pytest.mark.slow
def test_no_batch_makes_the_host_wait_for_a_gpu(tmp_path):
    """Chunks come from pinned memory, and outputs go there behind an event."""
    found = seen(built_in(tmp_path), "tests.encoder.on_fake_cuda", "embedding", frames=[208, 208, 300, 100])
    assert found["steps"] == [13, 13, 19, 7]
    assert found["module"] == ["cuda:0", 2, 78]
    assert found["gradient"] == "cuda:0"
    assert found["num_operations"] > 100
    assert found["hazards"] == []
