import math
import tomllib
from pathlib import Path

import pytest

from matpac.files import read_json, write_json
from matpac.params import load_params
from matpac.training.history import History, read_rows, write_history
from matpac.training.references import (
    ABOUT,
    NAMES,
    SHIPPED,
    Comparison,
    Facts,
    Reference,
    add_to_reference,
    compare,
    facts_of,
    folder_of,
    read_reference,
    read_references,
)

CURVES = Path(__file__).with_name("curves")
SHIPPED_REFERENCES = {one.name: one for one in read_references()}
SEEDS = [(name, origin.seed) for name, one in SHIPPED_REFERENCES.items() for origin in one.about.origins]
TOTAL = 1_000


def meta(seed=0, update=TOTAL, **changes):
    """meta.json of a run of 1,000 updates with the parameters of the demo."""
    params = load_params(Path("presets/demo.yaml"))
    pretrain = params.pretrain.model_dump(mode="json") | {"num_epochs": 20, "seed": seed} | changes
    return {
        "logmel": params.logmel.model_dump(mode="json"),
        "model": params.model.model_dump(mode="json"),
        "pretrain": pretrain,
        "online": params.online.model_dump(mode="json"),
        "num_clips": 1_600,
        "standard": {"mean": -9.0, "std": 3.0},
        "update": update,
        "git_revision": "abc",
        "hardware": "2 CPU cores",
        "versions": {"torch": "2.15.0"},
        "duration_s": 10.0,
    }


def curve(factor=1.0, until=TOTAL):
    """A loss that falls from 2 to 0.2 and gets `factor`, a number or a function of the update."""
    scale = factor if callable(factor) else lambda _: factor
    return [
        {"step": step, "prediction_loss": (0.2 + 1.8 * math.exp(-step / 100)) * scale(step)}
        for step in range(0, until, 5)
    ]


def write_run(folder, rows, **about):
    folder.mkdir()
    write_json(folder / "meta.json", meta(**about))
    online = [{"step": step, "knn_accuracy": 0.5} for step in range(0, TOTAL, 100)]
    write_history(folder, History(rows, online))
    return folder


@pytest.fixture
def reference(tmp_path):
    for seed, factor in enumerate((0.97, 1.0, 1.03)):
        add_to_reference(write_run(tmp_path / f"{seed}", curve(factor), seed=seed), tmp_path / "demo")
    return read_reference(tmp_path / "demo")


def leaves(reference, rows, online=(), **changes):
    found = compare(facts_of(meta(**changes)), [reference])
    assert isinstance(found, Comparison)
    return found.departures(History(rows, list(online)))


@pytest.mark.parametrize(("factor", "num_left"), [(0.9, 0), (1.0, 0), (1.1, 0), (0.7, 1), (1.4, 1)])
def test_a_curve_may_be_a_seventh_beyond_the_seeds(reference, factor, num_left):
    assert len(leaves(reference, curve(factor))) == num_left


def test_later_losses_may_be_further_from_the_seeds(reference):
    """Sound seeds part for good, in prediction losses by 40 %."""
    assert not leaves(reference, curve(lambda step: 1.0 if step < 200 else 1.4))
    assert leaves(reference, curve(lambda step: 1.4 if step < 200 else 1.0))


def test_a_departure_says_where_it_began_and_what_the_seeds_have_there(reference):
    [left] = leaves(reference, curve(lambda step: 1.0 if step < 500 else 1.8))
    # Stretches after the first tenth are of 18 updates. 496 to 514 has more rows of 500 and later.
    assert left.update == 545
    assert (left.least, left.value, left.most) == pytest.approx(
        [factor * (0.2 + 1.8 * math.exp(-5.4)) for factor in (0.97, 1.8, 1.03)], rel=0.01
    )


def test_two_stretches_outside_or_three_on_both_sides_are_none(reference):
    assert not leaves(reference, curve(lambda step: 3.0 if 496 <= step < 532 else 1.0))
    assert not leaves(
        reference, curve(lambda step: 1.0 if step < 500 else 3.0 if (step - 100) // 36 % 2 else 0.3)
    )


def test_a_run_is_judged_while_it_goes_on(reference):
    rows = curve(3.0)
    # Rows every 5 updates, so stretches of the first tenth have one or none. The last one counts later.
    assert [bool(leaves(reference, rows[:number])) for number in (3, 4)] == [False, True]


def test_accuracies_count_only_if_they_are_of_the_same_clips(reference):
    bad = [{"step": step, "knn_accuracy": 0.1} for step in range(0, TOTAL, 100)]
    assert [one.column for one in leaves(reference, curve(), bad)] == ["knn_accuracy"]
    other = meta()
    other["online"] |= {"num_clips": 50}
    found = compare(facts_of(other), [reference])
    assert found.departures(History(curve(), bad)) == []
    assert "knn_accuracy" not in found.bands()


def test_a_seed_that_was_stopped_counts_as_far_as_it_went(reference, tmp_path):
    stopped = write_run(tmp_path / "stopped", curve(1.9, until=300), seed=3, update=300)
    assert add_to_reference(stopped, tmp_path / "demo") == 4
    more = read_reference(tmp_path / "demo")
    assert not leaves(more, curve(lambda step: 1.8 if step < 300 else 1.0))
    [left] = leaves(more, curve(1.8))
    assert left.update > 300


def test_a_key_that_may_differ_is_named_as_the_suspect(reference):
    found = compare(facts_of(meta(peak_learning_rate=0.01, seed=7, datasets=["mine"])), [reference])
    said = found.describe(found.departures(History(curve(2.0), [])))
    assert said.startswith("prediction loss ")
    assert said.endswith(
        "(3 seeds of presets/demo.yaml): pretrain.peak_learning_rate is 0.01, reference 0.001"
    )


def test_without_a_suspect_the_line_says_where_to_look(reference):
    found = compare(facts_of(meta(seed=7)), [reference])
    assert "no parameter differs" in found.describe(found.departures(History(curve(2.0), [])))
    assert found.introduce() == "Compared with 3 seeds of presets/demo.yaml."


def test_another_length_is_not_compared_and_named(reference):
    assert compare(facts_of(meta(num_epochs=10)), [reference]) == (
        "No reference curves for this run. Nearest is presets/demo.yaml, "
        "but pretrain.num_epochs is 10.0, reference 20.0."
    )


@pytest.mark.parametrize("other", [{"num_clips": 1_500}, {"standard": {"mean": -9.1, "std": 3.0}}])
def test_other_data_is_not_compared(reference, other):
    said = compare(facts_of(meta() | other), [reference])
    assert said.startswith("No reference curves for this data")


def test_a_key_that_is_newer_than_the_reference_has_its_default(reference, tmp_path):
    raw = read_json(tmp_path / "demo" / ABOUT)
    del raw["pretrain"]["init"], raw["pretrain"]["teacher_follows"]
    write_json(tmp_path / "demo" / ABOUT, raw)
    assert compare(facts_of(meta()), [read_reference(tmp_path / "demo")]).suspects == {}


def test_a_reference_replaces_a_seed_and_refuses_other_runs(reference, tmp_path):
    again = write_run(tmp_path / "again", curve(1.02), seed=1)
    assert add_to_reference(again, tmp_path / "demo") == 3
    assert {row["seed"] for row in read_reference(tmp_path / "demo").history.updates} == {0, 1, 2}
    other = write_run(tmp_path / "other", curve(), seed=4, alpha=1.0)
    with pytest.raises(ValueError, match=r"found that pretrain\.alpha is 1\.0, reference 0\.5"):
        add_to_reference(other, tmp_path / "demo")
    with pytest.raises(ValueError, match="need a finished run first, found one at update 300 of 1,000"):
        add_to_reference(write_run(tmp_path / "half", curve(until=300), update=300), tmp_path / "new")


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"num_clips": 1_500}, r"num_clips is 1500, reference 1600"),
        ({"standard": {"mean": -8.0, "std": 3.0}}, r"mean is -8\.0, reference -9\.0"),
        ({"online": None}, r"online is null, reference dataset="),
    ],
)
def test_a_reference_refuses_runs_on_other_clips(reference, tmp_path, other, found):
    again = write_run(tmp_path / "again", curve(), seed=1)
    write_json(again / "meta.json", meta(seed=1) | other)
    with pytest.raises(ValueError, match=found):
        add_to_reference(again, tmp_path / "demo")


@pytest.mark.parametrize("preset", ["presets/demo.yaml", "../demo", "", "demo.yaml"])
def test_a_path_is_no_name_of_a_preset(preset):
    with pytest.raises(ValueError, match=f"need the name of a preset, .*found {preset}$"):
        folder_of(preset)
    assert folder_of("demo") == SHIPPED / "demo"


def test_a_folder_of_another_program_is_no_run(tmp_path):
    write_json(tmp_path / "meta.json", {"name": "something else"})
    with pytest.raises(ValueError, match=r"meta\.json: need that of a run, found one without 'logmel'"):
        add_to_reference(tmp_path, tmp_path / "demo")


@pytest.mark.parametrize("name", SHIPPED_REFERENCES)
def test_a_shipped_reference_is_that_of_its_preset(project, name):
    params, about = load_params(project / f"presets/{name}.yaml"), SHIPPED_REFERENCES[name].about
    shared = {key: getattr(params, key) for key in ("logmel", "model", "pretrain", "online")}
    data = {key: getattr(about, key) for key in ("num_clips", "mean", "std")}
    found = compare(Facts(**shared, **data), SHIPPED_REFERENCES.values())
    assert (found.reference.name, found.suspects, found.same_online) == (name, {}, True)


def without(reference: Reference, seed: int) -> Reference:
    origins = tuple(origin for origin in reference.about.origins if origin.seed != seed)
    return reference._replace(about=reference.about.model_copy(update={"origins": origins}))


@pytest.mark.parametrize(("name", "seed"), SEEDS)
def test_a_healthy_seed_stays_near_the_others(name, seed):
    reference = SHIPPED_REFERENCES[name]
    rows = History(*([row for row in table if row["seed"] == seed] for table in reference.history))
    assert rows.updates[-1]["step"] > reference.about.total_updates / 10
    assert compare(reference.about, [without(reference, seed)]).departures(rows) == []


def recorded(pattern):
    return sorted(CURVES.glob(pattern))


@pytest.mark.parametrize("path", recorded("*healthy*.csv"), ids=lambda path: path.stem)
def test_a_healthy_run_that_is_not_in_the_reference_stays_near_it(path):
    reference = SHIPPED_REFERENCES[path.stem.partition("-")[0]]
    rows = read_rows(path)
    assert rows[0].keys() >= NAMES.keys() - {"knn_accuracy"}
    assert compare(reference.about, [reference]).departures(History(rows, [])) == []


@pytest.mark.parametrize("path", recorded("*wrong*.csv"), ids=lambda path: path.stem)
def test_a_mistake_is_found_in_the_first_tenth(path):
    reference = SHIPPED_REFERENCES[path.stem.partition("-")[0]]
    found = compare(reference.about, [reference])
    rows = [row for row in read_rows(path) if row["step"] <= found.total_updates / 10]
    assert found.departures(History(rows, []))


def test_runs_are_recorded():
    assert {path.stem.partition("-")[0] for path in recorded("*wrong*.csv")} == {"demo", "instruments"}


def test_a_wheel_has_the_references(project):
    globs = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for glob in globs["matpac.training"] for path in SHIPPED.parent.glob(glob)}
    assert packed == {path for path in SHIPPED.rglob("*") if path.is_file()}
