"""tests/model/test_flops.py compares the counts themselves with PyTorch's."""

import pytest

from benchmarks.training import on_data_sheet
from matpac.model.sizes import SIZES
from matpac.params import load_params
from matpac.training.cost import GPUS, cost_table, crops_of, estimate, flops_of, roofline_table
from tests.recordings import LOGMEL, build, plan_of, write_recordings


@pytest.fixture(scope="module")
def paper(project):
    return load_params(project / "presets/paper.yaml")


def columns(table):
    return [line.split() for line in table.splitlines()[1:]]


def test_the_papers_run_costs_what_its_updates_and_crops_come_to(paper, tmp_path):
    [[_, *parts, share, crops, pflop, hours]] = columns(
        cost_table({"paper": paper}, tmp_path, num_clips=2_012_615, tflop_per_s=300)
    )
    *parts, whole = map(float, parts)
    assert sum(parts) == pytest.approx(whole, abs=0.1)
    assert crops == f"{294_816 * 2048:,}"
    assert float(pflop.replace(",", "")) == pytest.approx(294_816 * 2048 * whole / 1e6, rel=0.005)
    assert float(hours) == pytest.approx(294_816 * 2048 * whole / 1000 / 300 / 3600, rel=0.005)
    assert share == "100%"


def test_without_shards_and_clips_only_a_crop_has_a_price(paper, tmp_path):
    [row] = columns(cost_table({"paper": paper}, tmp_path))
    assert row[-3:] == ["-", "-", "-"]


def test_clips_are_those_of_the_shards_that_are_long_enough(paper, tmp_path):
    write_recordings(tmp_path / "audio", [0.3, 1.0, 1.0])
    build(plan_of(tmp_path / "audio", tmp_path / "work"), tmp_path / "shards/audioset")
    changes = {"crop_frames": 64, "batch_size": 1, "num_epochs": 5, "warmup_epochs": 0}
    short = paper.model_copy(update={"logmel": LOGMEL, "pretrain": paper.pretrain.model_copy(update=changes)})
    padded = short.model_copy(update={"pretrain": short.pretrain.model_copy(update={"short_clips": "pad"})})
    rows = columns(cost_table({"drop": short, "pad": padded}, tmp_path / "shards"))
    assert [row[-3] for row in rows] == ["10", "15"]


def test_weights_that_are_exported_untrained_cost_nothing(project, tmp_path):
    [row] = columns(cost_table({"released": load_params(project / "presets/released.yaml")}, tmp_path))
    assert row[-3:-1] == ["0", "0"]


def test_too_few_clips_for_an_update_are_refused(paper, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size: need at most the 3 clips of an epoch, got 2048"):
        cost_table({"paper": paper}, tmp_path, num_clips=3)


def changed(params, section, **values):
    return params.model_copy(update={section: getattr(params, section).model_copy(update=values)})


def test_the_estimate_is_products_then_transfers(paper):
    """By hand, for one micro-batch of 256 clips on an H100."""
    once = changed(changed(paper, "pretrain", batch_size=256), "compute", micro_batch_size=256)
    found = estimate(once, GPUS["h100"])
    products_s = 256 * found.flops / (0.6 * 989e12)
    moved = 256 * found.per_clip * 4 + 4 * found.trained * 16
    assert found.seconds == pytest.approx(products_s + moved / (0.8 * 3.35e12))
    assert found.crops_per_s == pytest.approx(256 / found.seconds)
    assert found.share_of_peak == pytest.approx(256 * found.flops / found.seconds / 989e12)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("compute", {"compile": False}),
        ("compute", {"recompute_activations": True}),
        ("compute", {"micro_batch_size": 64}),
        ("pretrain", {"precision": "float32"}),
        ("model", {"size": "large"}),
        ("model", {"num_predictor_heads": 5}),
    ],
)
def test_what_makes_an_update_slower(paper, section, values):
    slower = estimate(changed(paper, section, **values), GPUS["a100"])
    assert slower.seconds > estimate(paper, GPUS["a100"]).seconds


def test_small_networks_wait_for_the_host(paper):
    """Ten blocks: four of the student, four of the teacher, two of the predictor."""
    tiny = changed(changed(paper, "model", size="tiny"), "compute", micro_batch_size=32, compile=False)
    assert estimate(tiny, GPUS["h100"]).seconds == pytest.approx(2048 / 32 * 10 * 120 * 5e-6)


def test_micro_batches_are_what_fits_unless_fewer_are_asked_for(paper):
    assert estimate(paper, GPUS["h100"]).micro_batch == 1024
    assert estimate(paper, GPUS["h100"], num_gpus=8).micro_batch == 256
    assert estimate(paper, GPUS["4090"]).micro_batch == 256
    assert estimate(changed(paper, "compute", micro_batch_size=2048), GPUS["4090"]).micro_batch == 256


def test_gpus_share_the_work_and_each_has_its_price(paper, tmp_path):
    [[*_, alone, gpu_hours]] = roofline_rows(paper, tmp_path)
    assert alone == gpu_hours
    [[*_, hours, gpu_hours, price]] = roofline_rows(paper, tmp_path, num_gpus=8, price=2.5)
    alone, hours, gpu_hours = float(alone), float(hours), float(gpu_hours)
    # Smaller micro-batches: each moves the weights.
    assert alone < gpu_hours < 1.1 * alone
    assert hours == pytest.approx(gpu_hours / 8, abs=0.05)
    assert float(price) == pytest.approx(2.5 * gpu_hours, rel=0.01)


def test_without_clips_there_is_a_speed_but_no_sum(paper, tmp_path):
    [[*_, hours, gpu_hours, price]] = roofline_rows(paper, tmp_path, price=2.5, num_clips=None)
    assert (hours, gpu_hours, price) == ("-", "-", "-")


def test_the_assumptions_are_said(paper, tmp_path):
    said = roofline_table({"paper": paper}, tmp_path, GPUS["h100"], num_gpus=8, price=2.5)
    for words in ("nothing of it is measured", "989 TFLOP/s", "60% of the peak", "costs 2.5", "exchange"):
        assert words in said
    assert "price" not in roofline_table({"paper": paper}, tmp_path, GPUS["h100"])


def test_what_does_not_fit_or_cannot_be_shared_is_one_line(paper):
    card = GPUS["4090"]._replace(gibibytes=2)
    with pytest.raises(ValueError, match=r"^model.size: need networks that fit into the 2 GiB .*, got base"):
        estimate(paper, card)
    with pytest.raises(ValueError, match=r"^--gpus: need pretrain.batch_size \(2048\) at most, got 4096$"):
        estimate(paper, card, num_gpus=4096)


def roofline_rows(params, folder, **arguments):
    arguments = {"num_clips": 2_012_615} | arguments
    table, _, _ = roofline_table({"run": params}, folder, GPUS["h100"], **arguments).partition("\n\n")
    return columns(table)


def table_below(page, heading):
    """Cells of the first table below a heading, without its head."""
    parts = page.partition(f"\n{heading}\n")[2].split("\n\n")
    rows = next(part for part in parts if part.lstrip().startswith("|")).strip().splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_table_of_sizes_is_what_the_code_says(paper, project):
    page = (project / "docs/training.md").read_text()
    expected = []
    for name in SIZES:
        found, small = (estimate(changed(paper, "model", size=name), GPUS[gpu]) for gpu in ("h100", "4090"))
        expected.append(
            [
                f"`{name}`",
                f"{found.trained / 1e6:.1f} M",
                f"{found.flops / 1e9:.3g}",
                f"{found.fixed / 2**30:.2f} GiB",
                f"{found.per_clip / 2**20:.0f} MiB",
                f"{small.micro_batch:,}",
                f"{found.micro_batch:,}",
            ]
        )
    assert table_below(page, "### What sizes cost") == expected


def test_the_table_of_presets_is_what_the_code_says(project):
    page = (project / "docs/paper.md").read_text()
    expected = []
    for name in ("paper", "matpac_plus", "m2d", "cheaper"):
        params = load_params(project / f"presets/{name}.yaml")
        crops = crops_of(params, 2_012_615)
        alone, eight = (
            crops / estimate(params, GPUS["h100"], number).crops_per_s / 3600 for number in (1, 8)
        )
        flops = flops_of(params).total
        at_300 = crops * flops / 300e12 / 3600
        expected.append(
            [f"`{name}`", f"{flops / 1e9:.1f}", f"{at_300:.1f} h", f"{alone:.1f} h", f"{eight:.1f} h"]
        )
    found = [[row[0].split(" (")[0], *row[1:]] for row in table_below(page, "### By preset")]
    assert found == expected


def test_the_goals_of_the_benchmark_on_a_gpu_are_one_goal(paper):
    flops = flops_of(paper).total
    on_goal = 0.45 * 989e12 / flops
    assert on_goal == pytest.approx(4_846, abs=1)
    for rate, met in ((1.001 * on_goal, True), (0.999 * on_goal, False)):
        utilisation, speed, expected = on_data_sheet("NVIDIA H100 80GB HBM3", paper, rate, flops)
        assert (utilisation.met, speed.met, expected.met) == (met, met, None)
    assert on_data_sheet("NVIDIA T4", paper, 1.0, flops) == []
