import math

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from matpac.model.masking import Split, random_split
from matpac.model.pretext import Pretext
from matpac.model.sizes import Size
from matpac.params import load_params
from matpac.training.loop import Example, Learner, NonFinite, micro_batches, pretrain, update_
from matpac.training.ranks import this_process
from matpac.training.schedules import Durations, knobs_at

NANO = Size(16, 1, 2, 16, 1, 2, 16, 8)
LASTING = Durations(total=12, warmup=2, teacher_temperature=4)


@pytest.fixture
def params(project):
    return load_params(project / "presets/demo.yaml").pretrain.model_copy(update={"batch_size": 4})


@pytest.fixture
def compute(project):
    return load_params(project / "presets/demo.yaml").compute.model_copy(update={"micro_batch_size": 4})


@pytest.fixture
def examples(generator):
    return [
        Example(torch.randn(4, 32, 64, generator=generator), random_split(4, 8, 0.5, generator))
        for _ in range(6)
    ]


@pytest.fixture
def fresh(params, compute):
    """Networks and optimizer of a new run, always with the same first weights."""

    def start(num_hypotheses=1, **changed):
        return Fresh(
            num_hypotheses,
            params.model_copy(update={key: changed[key] for key in changed.keys() & dict(params)}),
            compute.model_copy(update={key: changed[key] for key in changed.keys() & dict(compute)}),
        )

    return start


class Fresh:
    def __init__(self, num_hypotheses, params, compute):
        pretext = Pretext(
            NANO,
            num_mels=32,
            crop_frames=64,
            num_clusters=8,
            num_hypotheses=num_hypotheses,
            center_momentum=0.9,
        )
        pretext.initialize_(torch.Generator().manual_seed(1))
        self.learner = Learner(pretext, params, compute, this_process())

    def __call__(self, examples, first_update=0):
        reports = pretrain(self.learner, examples, LASTING, first_update=first_update)
        return [(report.losses[2].item(), report.grad_norm.item()) for report in reports]

    def weights(self):
        return {name: value.clone() for name, value in self.learner.pretext.state_dict().items()}


def test_a_run_in_two_halves_equals_the_whole(fresh, examples):
    whole = fresh()(examples)
    run = fresh()
    assert [*run(examples[:3]), *run(examples[3:], first_update=3)] == whole


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_accumulated_gradients_equal_those_of_the_whole_batch(fresh, examples, micro_batch_size):
    whole, parts = fresh(), fresh(micro_batch_size=micro_batch_size)
    assert parts(examples) == [pytest.approx(pair, abs=2e-5) for pair in whole(examples)]
    for name, value in whole.weights().items():
        torch.testing.assert_close(parts.weights()[name], value, atol=2e-5, rtol=0)


def test_micro_batches_are_few_and_even(examples):
    assert [len(part.log_mel) for part in micro_batches(examples[0], 3)] == [2, 2]
    assert [len(part.split.masked) for part in micro_batches(examples[0], 5)] == [4]


def test_on_a_cpu_auto_is_a_micro_batch_of_32(fresh, examples):
    run = fresh(micro_batch_size="auto")
    assert run(examples) == fresh()(examples)
    assert run.learner.micro_batch_size == 32


class ShortOfMemory:
    """Runs out of memory once, in the forward or backward pass of one micro-batch."""

    def __init__(self, learner, part, backward):
        self.left, self.backward, self.sizes = part, backward, []
        learner.objective.register_forward_hook(self)

    def __call__(self, _module, inputs, outcome):
        self.sizes.append(len(inputs[0]))
        self.left -= 1
        if self.left == 0:
            if not self.backward:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            outcome.loss.register_hook(self.fail)

    def fail(self, _gradient):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_an_update_that_runs_out_of_memory_is_done_again_in_halves(fresh, examples, part, backward):
    """Two micro-batches of two clips an update; memory runs out in one of the first two updates."""
    undisturbed, halved, run = (fresh(micro_batch_size=2, log_every_updates=1) for _ in range(3))
    short, update = ShortOfMemory(run.learner, part, backward), (part - 1) // 2
    found = run(examples)
    assert short.sizes == [2] * part + [1] * (4 * (6 - update))
    assert run.learner.micro_batch_size == 1
    assert found == [pytest.approx(pair, rel=1e-6) for pair in undisturbed(examples)]

    before = halved(examples[:update])
    halved.learner.micro_batch_size = 1
    assert before + halved(examples[update:], first_update=update) == found
    assert all(torch.equal(value, halved.weights()[name]) for name, value in run.weights().items())


def test_micro_batches_of_one_clip_that_do_not_fit_end_the_run(fresh, examples):
    run = fresh(micro_batch_size=1)
    ShortOfMemory(run.learner, 3, backward=False)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        run(examples)
    assert caught.value.__notes__ == [
        "An update in micro-batches of 1 needs more memory than this device has. "
        "Set compute.recompute_activations: true, or a smaller model.size."
    ]


@pytest.fixture
def group_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:Grad strides do not match")
def test_distributed_updates_that_run_out_of_memory_are_done_again(fresh, examples, group_of_one):
    undisturbed, run = fresh(micro_batch_size=2), fresh(micro_batch_size=2)
    run.learner.objective = DistributedDataParallel(run.learner.objective, gradient_as_bucket_view=True)
    for part in (1, 8):  # in a pass that keeps its gradients, and in the forward pass of one that does not
        ShortOfMemory(run.learner, part, backward=False)
        run.learner.micro_batch_size = 2
        assert run(examples) == [pytest.approx(pair, rel=1e-6) for pair in undisturbed(examples)]
    assert run.learner.micro_batch_size == 1


@pytest.mark.filterwarnings("ignore:Grad strides do not match")
def test_memory_that_runs_out_while_ranks_exchange_gradients_ends_the_run(fresh, examples, group_of_one):
    """The other ranks have already added some gradients of the failed pass to theirs."""
    run = fresh(micro_batch_size=2)
    run.learner.objective = DistributedDataParallel(run.learner.objective, gradient_as_bucket_view=True)
    ShortOfMemory(run.learner, 2, backward=True)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        run(examples)
    assert (
        "Set compute.micro_batch_size: 1, compute.recompute_activations: true, " in caught.value.__notes__[0]
    )


def test_recomputed_activations_are_the_same_bit_for_bit(fresh, examples):
    kept, recomputed = fresh(), fresh(recompute_activations=True)
    assert recomputed(examples) == kept(examples)
    assert all(torch.equal(value, kept.weights()[name]) for name, value in recomputed.weights().items())


def test_recomputing_keeps_less(fresh, examples):
    kept, recomputed = (bytes_kept(fresh(recompute_activations=value), examples) for value in (False, True))
    assert recomputed < 0.7 * kept


def bytes_kept(run, examples):
    """Bytes that a forward pass keeps for the backward pass, without weights."""
    sizes = {}
    weights = {weight.data_ptr() for weight in run.learner.pretext.parameters()}

    def note(values):
        sizes[values.untyped_storage().data_ptr()] = values.untyped_storage().nbytes()
        return values

    with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
        temperature = torch.tensor(0.04)
        outcome = run.learner.objective(*examples[0], temperature, None)
    assert outcome.loss.isfinite()
    return sum(size for pointer, size in sizes.items() if pointer not in weights)


def test_only_logged_updates_are_watched(fresh, examples):
    run = fresh(log_every_updates=4)
    reports = list(pretrain(run.learner, examples, LASTING, first_update=0))
    assert [report.health is not None for report in reports] == [True, *[False] * 3, True, False]


def test_watching_changes_nothing(fresh, examples):
    seldom, always = fresh(log_every_updates=100), fresh(log_every_updates=1)
    assert always(examples) == seldom(examples)


def test_without_classification_the_heads_work_for_watched_updates_only(fresh, examples):
    seldom, always = fresh(log_every_updates=100, alpha=1.0), fresh(log_every_updates=1, alpha=1.0)
    calls = []
    for head in (seldom.learner.pretext.student_head, seldom.learner.pretext.teacher_head):
        head.register_forward_hook(lambda *_: calls.append(1))
    assert always(examples) == seldom(examples)
    assert len(calls) == 2, "a call of each head, for update 0"
    unlike = {name for name, value in always.weights().items() if not value.equal(seldom.weights()[name])}
    assert unlike == {"center.value"}


class NoWaiting(TorchDispatchMode):
    """Refuses operations for which the host waits: reading values, and shapes that depend on values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket not in {
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.equal,
            torch.ops.aten.masked_select,
            torch.ops.aten.nonzero,
            torch.ops.aten.is_nonzero,
        }, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("watch", [False, True])
@pytest.mark.parametrize("num_hypotheses", [1, 3])
def test_the_host_waits_for_nothing_in_an_update(fresh, examples, watch, num_hypotheses):
    run = fresh(num_hypotheses=num_hypotheses)
    run(examples[:1])
    knobs = knobs_at(1, LASTING, run.learner.params)
    with NoWaiting():
        report = update_(run.learner, examples[1], 1, knobs, watch=watch)
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        report.wait()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_waits_for_nothing_but_events_on_a_gpu(fresh, examples):
    run = fresh(precision="bfloat16", log_every_updates=2)
    run.learner = Learner(
        run.learner.pretext.to("cuda"), run.learner.params, run.learner.compute, this_process()
    )
    knobs = knobs_at(0, LASTING, run.learner.params)
    log_mel, split = examples[0]
    example = Example(log_mel.cuda(), Split(*(index.cuda() for index in split)))
    update_(run.learner, example, 0, knobs, watch=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        # The whole loop: it waits for events, and reads nothing from the device.
        reports = list(pretrain(run.learner, [example] * 3, LASTING, first_update=1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(report.losses.isfinite().all() for report in reports)


def test_teachers_rest_at_the_first_update_and_move_at_the_second(fresh, examples):
    run = fresh()
    before = run.weights()
    run(examples[:1])
    teacher = "teacher_encoder.norm.weight"
    assert torch.equal(run.weights()[teacher], before[teacher])
    run(examples[1:3], first_update=1)
    assert not torch.equal(run.weights()[teacher], before[teacher])


def test_the_first_learning_rate_is_zero_so_the_first_update_moves_no_student(fresh, examples):
    run = fresh()
    before = run.weights()
    run(examples[:1])
    student = "student_encoder.norm.weight"
    assert torch.equal(run.weights()[student], before[student])
    assert not torch.equal(run.weights()["center.value"], before["center.value"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_update_moves_neither_student_nor_center_nor_optimizer(fresh, examples, bad):
    run = fresh()
    run(examples[:2])
    before, optimizer = run.weights(), optimizer_state(run)
    examples[2].log_mel[1, 2, 3] = bad
    knobs = knobs_at(2, LASTING, run.learner.params)
    report = update_(run.learner, examples[2], 2, knobs, watch=True)
    assert not report.finite
    after = run.weights()
    resting = [name for name in before if not name.startswith("teacher")]
    assert all(torch.equal(after[name], before[name]) for name in resting)
    assert all(value.isfinite().all() for value in after.values())
    assert all(torch.equal(*pair) for pair in zip(optimizer_state(run), optimizer, strict=True))


def optimizer_state(run):
    state = run.learner.optimizer.state_dict()["state"]
    return [value.clone() for values in state.values() for value in values.values()]


@pytest.mark.parametrize("bad_update", [2, 5])
def test_a_non_finite_update_is_raised_before_the_next_but_one(fresh, examples, bad_update):
    run = fresh()
    examples[bad_update].log_mel[1, 2, 3] = math.nan
    seen = []
    with pytest.raises(NonFinite, match=f"update {bad_update}: loss nan"):
        seen.extend(report.update for report in pretrain(run.learner, examples, LASTING, first_update=0))
    assert seen == list(range(min(bad_update + 1, 6)))


def test_training_lowers_the_prediction_loss(fresh, examples):
    run = fresh(peak_learning_rate=0.01, alpha=1.0)
    losses = [loss for first in range(0, 12, 6) for loss, _ in run(examples, first_update=first)]
    assert losses[-1] < losses[0] - 0.1
