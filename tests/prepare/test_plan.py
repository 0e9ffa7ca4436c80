import csv
from dataclasses import replace
from pathlib import Path

import pytest

from flows.summary import describe
from matpac.clip import Clip, Rejection, Task
from matpac.datasets.inventory import Recording, take_inventory
from matpac.datasets.inventory import write_recordings as write_inventory
from matpac.datasets.registry import READERS
from matpac.params import AudioSet, Demo, Folder, Public
from matpac.prepare.build import build_shard
from matpac.prepare.plan import clips_in_parts, plan_dataset, plan_shards, rules_for, write_plan
from matpac.prepare.publish import publish
from matpac.prepare.workspace import Workspace
from tests.recordings import LOGMEL, recording_of, shards_params, write_recordings

SPLITS = ("train", "train", "validation", "test", "test", None)
TASK = Task(("cat", "dog"), multi_label=False, metric="accuracy", num_folds=None)


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
    return plan_shards(
        items, recordings, root, Workspace(root.parent / "work"), lambda _: task, LOGMEL, params
    )


def test_nothing_is_planned_with_a_group_in_two_splits(root):
    with pytest.raises(
        ValueError, match=r"raw: need each group .* 'rex' in train, test \(3 clips\) \(.* has all\)\. Put"
    ):
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
    with pytest.raises(ValueError, match=r"found 'rex' in fold 1, fold 2, fold 3 \(6 clips\) \(.*\)\. Put"):
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
    assert describe(publish(plan, root.parent / "out")).endswith(
        "; nothing left out; in the official split, which stays as it is: group in several splits or folds: "
        "'rex' in train, test (2 clips); in the official split, which stays as it is: recording in several "
        "splits or folds: 000.wav (train) = 004.wav (test); 2 classes: cat (6), dog (0)"
    )


@pytest.mark.parametrize("reject", [(), ("duplicate",)])
def test_copies_in_two_splits_are_refused_also_where_copies_are_left_out(root, reject):
    (root / "004.wav").write_bytes((root / "000.wav").read_bytes())
    expected = r"found copies in several: 000.wav \(train\) = 004.wav \(test\) \(.* has all\)\. Give"
    with pytest.raises(ValueError, match=expected):
        planned(root, reject=reject)


def test_copies_within_a_split_and_outside_all_are_left_out(root):
    for copy in ("001.wav", "005.wav"):
        (root / copy).write_bytes((root / "000.wav").read_bytes())
    assert planned(root, reject=("duplicate",)).num_rejected == {"duplicate": 2}


@pytest.mark.usefixtures("in_tmp")
@pytest.mark.parametrize("reject", [(), ("duplicate",)])
def test_copies_in_several_groups_are_listed_at_once_and_both_ways_out_work(root, reject):
    for number in range(6, 18):
        (root / f"{number:03d}.wav").write_bytes((root / f"{number % 6:03d}.wav").read_bytes())

    def plan(groups, **keys):
        rows = [f"{n:03d}.wav,{'cat' if n % 2 else 'dog'},{groups(n)}" for n in range(18)]
        (root / "labels.csv").write_text("\n".join(["path,label,group", *rows]))
        source = Folder(kind="folder", source=str(root), labels="labels.csv", num_folds=3, **keys)
        write_inventory(root.parent / "inventory", take_inventory(root, READERS[source.kind].stored_as))
        return plan_dataset("mine", source, root.parent / "inventory", LOGMEL, shards_params(reject=reject))

    with pytest.raises(
        ValueError, match=r"copies in several: .* and \d more \((?P<path>\S*leaks.csv) has all\)"
    ) as (caught):
        plan(lambda n: f"group {n}")
    listing = Path(str(caught.value).partition(" has all")[0].rpartition("(")[2])
    with listing.open(newline="") as file:
        rows = list(csv.DictReader(file))
    num_contents = len({row["value"] for row in rows})
    assert int(str(caught.value).partition(" more")[0].split()[-1]) + 1 == num_contents
    assert num_contents > 3

    assert plan(lambda n: f"group {n % 6}").num_clips == (6 if reject else 18)
    assert plan(lambda n: f"group {n}", join_copies=True).num_clips == (6 if reject else 18)


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


def written(folder, items, contents):
    """Census of a plan, and its clips in splits or folds."""
    recordings = [
        Recording(item.path, 1, f"{content:064x}"[::-1], item.path)
        for item, content in zip(items, contents, strict=True)
    ]
    rows = folder / "plan.arrow"
    census = write_plan(items, recordings, rows, folder / "rejected.csv", LOGMEL, shards_params())
    return census, clips_in_parts(rows, census)


def test_ids_that_come_twice_are_counted(tmp_path):
    clips = [Clip(id, f"{number}.wav") for number, id in enumerate("abcab")]
    census, _ = written(tmp_path, clips, range(1, 6))
    assert len(census.repeated_ids()) == 2


def test_only_clips_in_a_split_or_fold_can_leak(tmp_path):
    clips = [Clip("a", "a.wav", ("x",), "train"), Clip("b", "b.wav"), Clip("c", "c.wav", ("x",), fold=2)]
    census, in_parts = written(tmp_path, clips, [1, 1, 2])
    assert in_parts["path"].to_pylist() == ["a.wav", "c.wav"]
    assert census.num_rejected == {"duplicate": 1}


def test_rejections_of_the_reader_are_kept_apart_from_clips(tmp_path):
    stray = Rejection("a.wav", "not listed (in no list)")
    census, _ = written(tmp_path, [stray], [1])
    assert (census.num_recordings, census.num_clips, census.num_rejected) == (1, 0, {"not listed": 1})
    assert census.rejected_examples == {"not listed": [stray]}


def test_public_datasets_keep_their_duplicates():
    params = shards_params()
    for public in (Public(kind="fsdd", source=None), AudioSet(kind="audioset", source="audio")):
        assert set(rules_for(public, params).reject) == {"silent", "truncated"}
    demo = Demo(kind="demo", recipe="corpus", num_clips=1, seed=0)
    assert rules_for(demo, params).reject == params.reject


def test_two_clips_of_one_id_are_refused(root, tmp_path):
    clips = [Clip(id="same", path="000.wav"), Clip(id="same", path="001.wav")]
    with pytest.raises(ValueError, match=r"a different id for every clip.*: same$"):
        plan_shards(
            clips,
            [recording_of(root, clip.path) for clip in clips],
            root,
            Workspace(tmp_path / "work"),
            lambda _: TASK,
            LOGMEL,
            shards_params(),
        )
