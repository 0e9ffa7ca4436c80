import numpy as np
import pytest

from matpac.files import read_json, write_json
from matpac.report.curves import thinned, training_section
from matpac.training.history import METRICS, ONLINE, write_rows
from matpac.training.references import ABOUT, SHIPPED, read_references


def test_long_curves_are_thinned_to_means_of_neighbors():
    assert thinned(np.array([1.0, 3.0])).tolist() == [1.0, 3.0]
    assert thinned(np.arange(800.0))[:3].tolist() == [0.5, 2.5, 4.5]


@pytest.fixture
def checkpoint(tmp_path):
    """The demo's seed 0, as the reference has it."""
    [demo] = [one for one in read_references() if one.name == "demo"]
    rows, online = (
        [row | {"epoch": row["step"] / 46.9, "seconds": 1.0} for row in table if row["seed"] == 0]
        for table in demo.history
    )
    write_rows(tmp_path / METRICS, rows)
    write_rows(tmp_path / ONLINE, online)
    about = read_json(SHIPPED / "demo" / ABOUT)
    standard = {"standard": {"mean": about["mean"], "std": about["std"]}}
    write_json(tmp_path / "meta.json", about | standard)
    return tmp_path


def test_a_run_lies_over_the_reference_of_its_preset(checkpoint):
    meta = read_json(checkpoint / "meta.json")
    body = training_section(checkpoint, meta, 64).body
    assert "The run stayed near them." in body
    meta["pretrain"]["num_epochs"] = 29
    alone = training_section(checkpoint, meta, 64).body
    assert "Nearest is presets/demo.yaml, but pretrain.num_epochs is 29.0, reference 30.0." in alone
    assert len(alone) < len(body), "without bands"


def test_the_report_says_where_a_run_left_its_reference(checkpoint):
    meta = read_json(checkpoint / "meta.json")
    meta["pretrain"]["alpha"] = 0.9
    rows = [{"step": step, "epoch": step / 46.9, "grad_norm": 99.0} for step in range(0, 100, 10)]
    write_rows(checkpoint / METRICS, rows)
    body = training_section(checkpoint, meta, 64).body
    assert "The run left its reference: gradient norm 99 at update 20, reference " in body
    assert "pretrain.alpha is 0.9, reference 0.5" in body
