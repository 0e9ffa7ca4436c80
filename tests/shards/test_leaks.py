"""A group or a recording in several splits or folds, from the plan on."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from flows.summary import describe
from matpac.clip import Clip, Task
from matpac.datasets.inventory import take_inventory
from matpac.datasets.inventory import write_recordings as write_inventory
from matpac.datasets.registry import READERS
from matpac.params import Folder, Public
from matpac.prepare.build import build_shard
from matpac.prepare.plan import deal, plan_dataset
from matpac.prepare.publish import finish
from matpac.prepare.workspace import Store
from matpac.shards.leaks import refuse_leaks
from tests.recordings import LOGMEL, recording_of, shards_params, write_recordings

SPLITS = ("train", "train", "validation", "test", "test", None)
TASK = Task(("cat", "dog"), multi_label=False, metric="accuracy", num_folds=None)


def clips(groups, *, folds=None):
    return pa.table(
        {
            "path": [f"{number}.wav" for number in range(len(groups))],
            "split": pa.array([None if folds else "train"] * len(groups), pa.string()),
            "fold": pa.array(folds or [None] * len(groups), pa.int32()),
            "group": pa.array(groups, pa.string()),
        }
    )


def test_groups_that_stay_in_their_fold_pass():
    refuse_leaks("birds", clips(["rex", None, "rex", None, "ada"], folds=[1, 1, 1, 2, 2]))


def test_a_group_in_two_folds_is_named_with_its_clips():
    table = clips(["rex", "rex", "ada", "ada", "rex", "eve", "eve"], folds=[1, 1, 2, 2, 3, 1, 2])
    expected = r"^birds: need each group in one .* found 'eve' in fold 1, fold 2 \(2 clips\) and 1 more\."
    with pytest.raises(ValueError, match=expected):
        refuse_leaks("birds", table)


@pytest.fixture
def root(tmp_path):
    write_recordings(tmp_path / "raw", [0.2] * len(SPLITS))
    return tmp_path / "raw"


NO_GROUPS = (None,) * len(SPLITS)


def planned(root, *, groups=NO_GROUPS, task=TASK, reject=()):
    items = [
        Clip(f"a{number}", f"{number:03d}.wav", labels=("cat",), split=split, group=group)
        for number, (split, group) in enumerate(zip(SPLITS, groups, strict=True))
    ]
    recordings = [recording_of(root, item.path) for item in items]
    params = shards_params(reject=reject, clips_per_shard=2)
    return deal(items, recordings, root, Store(root.parent / "work"), lambda _: task, LOGMEL, params)


def test_nothing_is_planned_with_a_group_in_two_splits(root):
    with pytest.raises(ValueError, match=r"raw: need each group .* 'rex' in train, test \(3 clips\)\. Put"):
        planned(root, groups=(None, "rex", None, "rex", "rex", None))


def test_a_group_may_be_outside_every_split_too(root):
    assert planned(root, groups=("rex", "rex", None, None, None, "rex")).num_clips == 6


def own(root, labels, num_folds=None):
    return Folder(
        kind="folder",
        source=str(root),
        labels=labels,
        multi_label=False,
        num_folds=num_folds,
        split_fractions=None,
    )


@pytest.mark.usefixtures("in_tmp")
def test_own_labels_with_a_leak_are_refused_when_shards_are_planned(root, tmp_path):
    rows = [f"{number:03d}.wav,{'cat' if number % 2 else 'dog'},{number % 3 + 1},rex" for number in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,fold,group", *rows]))
    source = own(root, str(tmp_path / "labels.csv"))
    write_inventory(tmp_path / "inventory", take_inventory(root, READERS[source.kind].stored_as))
    with pytest.raises(ValueError, match=r"found 'rex' in fold 1, fold 2, fold 3 \(6 clips\)\. Put"):
        plan_dataset("mine", source, tmp_path / "inventory", LOGMEL, shards_params())
    table = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(table.replace(",rex", ","))
    assert plan_dataset("mine", source, tmp_path / "inventory", LOGMEL, shards_params()).num_clips == 6


@pytest.mark.parametrize("kind", ["openmic", "nsynth", "gtzan", "esc50", "urbansound8k", "fsdd", "esc10"])
def test_public_datasets_have_official_splits(kind):
    params = Public(kind=kind, source=None)
    assert READERS[kind].task(params, Path("nowhere"), (), None).official_split


def test_official_splits_stay_as_they_are_and_say_so(root):
    (root / "004.wav").write_bytes((root / "000.wav").read_bytes())
    official = replace(TASK, official_split=True)
    plan = planned(root, groups=("rex", None, None, "rex", None, None), task=official)
    assert plan.num_clips == 6
    assert plan.official_leaks == (
        "group in several splits or folds: 'rex' in train, test (2 clips)",
        "recording in several splits or folds: 000.wav (train) = 004.wav (test)",
    )
    for number in range(len(plan.shards)):
        build_shard(plan.job(number))
    assert describe(finish(plan, root.parent / "out")).endswith(
        "; nothing left out; in the official split, which stays as it is: group in several splits or folds: "
        "'rex' in train, test (2 clips); in the official split, which stays as it is: recording in several "
        "splits or folds: 000.wav (train) = 004.wav (test)"
    )


@pytest.mark.parametrize("reject", [(), ("duplicate",)])
def test_copies_in_two_splits_are_refused_also_where_copies_are_left_out(root, reject):
    (root / "004.wav").write_bytes((root / "000.wav").read_bytes())
    expected = r"found copies in several: 000.wav \(train\) = 004.wav \(test\)\. Remove"
    with pytest.raises(ValueError, match=expected):
        planned(root, reject=reject)


def test_copies_within_a_split_and_outside_all_are_left_out(root):
    for copy in ("001.wav", "005.wav"):
        (root / copy).write_bytes((root / "000.wav").read_bytes())
    assert planned(root, reject=("duplicate",)).num_rejected == {"duplicate": 2}


@pytest.mark.usefixtures("in_tmp")
def test_copies_that_are_dealt_here_stay_in_one_fold(root):
    for number in range(6, 12):
        (root / f"{number:03d}.wav").write_bytes((root / f"{number - 6:03d}.wav").read_bytes())
    rows = [f"{number:03d}.wav,{'cat' if number % 2 else 'dog'}" for number in range(12)]
    (root / "labels.csv").write_text("\n".join(["path,label", *rows]))
    source = own(root, "labels.csv", num_folds=3)
    write_inventory(root.parent / "inventory", take_inventory(root, READERS[source.kind].stored_as))
    plan = plan_dataset("mine", source, root.parent / "inventory", LOGMEL, shards_params(reject=()))
    assert plan.num_clips == 12


def test_empty_recordings_are_no_copies_of_each_other(root):
    for name in ("000.wav", "004.wav"):
        (root / name).write_bytes(b"")
    assert planned(root).num_clips == 6


def test_copies_within_a_split_pass(root):
    (root / "001.wav").write_bytes((root / "000.wav").read_bytes())
    assert planned(root).num_clips == 6
