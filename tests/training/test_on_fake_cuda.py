"""Training on a GPU, looked at without one. What a stand-in cannot show: speed, and what NCCL does."""

import pytest

from matpac.model.flops import SHARE_OF_MEMORY
from tests.fake_cuda.building import built_in, seen

pytestmark = pytest.mark.slow
TINY = {"preset": "paper", "clips": 128, "model": {"size": "tiny"}}
MEMORIES = {
    "tiny, float32": TINY | {"pretrain": {"precision": "float32"}},
    "tiny, recomputed": TINY | {"compute": {"recompute_activations": True}},
    "base": {"preset": "paper", "clips": 64},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    library = built_in(tmp_path_factory.mktemp("cuda"))
    return seen(library, "tests.training.on_fake_cuda", "everything", memories=list(MEMORIES.values()))


def test_what_would_make_the_host_wait_is_seen(found):
    assert [hazard.partition(":")[2].strip() for hazard in found["known"]] == [
        "the host reads a result",
        "a copy to the GPU that blocks",
        "a copy from the GPU that blocks",
        "a copy between the GPU and memory that is not pinned",
        "a mask, whose number of elements the host reads",
        "tensors on both devices",
    ]


@pytest.mark.parametrize("num_hypotheses", ["one", "several"])
def test_nothing_in_an_update_makes_the_host_wait(found, num_hypotheses):
    """A watched update and one that is not: nothing reads a result, or copies in a way that blocks."""
    assert found[num_hypotheses]["num_operations"] > 500
    assert found[num_hypotheses]["hazards"] == []


def test_the_host_waits_for_an_update_once_the_next_one_is_queued(found):
    assert found["run"]["waits"] == [[0, 2], [1, 3], [2, 4], [3, 4]]


def test_batches_and_masks_come_from_pinned_memory(found):
    assert found["run"]["hazards"] == []


@pytest.mark.parametrize(("number", "name"), list(enumerate(MEMORIES)), ids=list(MEMORIES))
def test_the_memory_of_an_update_is_as_modelled(found, number, name):
    memory = found["memories"][number]
    modelled = memory["fixed"] + MEMORIES[name]["clips"] * memory["per_clip"]
    assert memory["peak_bytes"] == pytest.approx(modelled, rel=0.12)


@pytest.mark.parametrize("number", range(len(MEMORIES)), ids=list(MEMORIES))
def test_auto_is_the_largest_power_of_two_that_fits(found, number):
    memory = found["memories"][number]
    clips, most = memory["auto"], SHARE_OF_MEMORY * 80 * 2**30
    assert clips.bit_count() == 1
    assert (
        memory["fixed"] + clips * memory["per_clip"]
        <= most
        < memory["fixed"] + 2 * clips * memory["per_clip"]
    )
