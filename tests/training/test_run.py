import csv
import hashlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import matpac
from matpac.digests import known, read_digests
from matpac.files import damage, seal
from matpac.params import load_params
from matpac.shards.folder import ShardFolder
from matpac.training.online import OnlineProbe
from matpac.weights.checkpoint import read_meta
from tests.checkpoints import networks_of
from tests.files import files_end_at, flip_a_bit

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(project_of_noise):
    yield project_of_noise
    project_of_noise.change()
    shutil.rmtree(project_of_noise.folder / "data/.work/pretrain", ignore_errors=True)


@pytest.fixture(scope="module")
def uninterrupted(project_of_noise):
    said = project_of_noise.pretrain()
    assert "60/60 updates (100%)" in said
    return project_of_noise.weights()


def test_killed_at_three_moments_the_weights_are_the_same_bit_for_bit(folder, uninterrupted):
    for updates in sorted(np.random.default_rng().integers(1, 55, size=3).tolist()):
        code, _ = folder.interrupt(signal.SIGKILL, updates)
        assert code in (-signal.SIGKILL, 0)
    folder.pretrain()
    assert folder.weights() == uninterrupted
    assert not list(folder.folder.glob("data/.work/pretrain/*/"))


def test_terminated_it_saves_says_so_and_goes_on(folder, uninterrupted):
    code, said = folder.interrupt(signal.SIGTERM, updates=10)
    assert code == 128 + signal.SIGTERM
    assert "the next run goes on from there" in said
    assert f"Going on from update {folder.saved_updates()} of 60." in folder.pretrain()
    assert folder.weights() == uninterrupted


def test_a_damaged_state_is_refused_and_the_remedy_it_names_is_one(folder, uninterrupted):
    folder.pretrain(stop_after=10)
    [path] = folder.folder.glob("data/.work/pretrain/*/update-*/optimizer.safetensors")
    flip_a_bit(path, place=-1)
    with pytest.raises(ValueError, match=r"found other bytes in optimizer\.safetensors") as refused:
        folder.pretrain()
    remedy = str(refused.value).partition("To begin the run again from its start: ")[2]
    subprocess.run(shlex.split(remedy), cwd=folder.folder, check=True)
    folder.pretrain()
    assert folder.weights() == uninterrupted


def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_state(folder):
    with files_end_at(50_000):
        process = folder.start()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot be written (File too large). Make room there" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not list(folder.folder.glob("data/.work/pretrain/*/*.partial"))


def test_a_changed_parameter_starts_a_new_run(folder, uninterrupted):
    folder.pretrain(stop_after=10)
    folder.change(alpha=0.75)
    assert "Going on" not in folder.pretrain()
    assert folder.weights() != uninterrupted


def test_a_second_process_is_turned_away(folder):
    folder.change(num_epochs=4000)  # longer than the second process takes to start
    first = folder.start()
    while folder.saved_updates() < 1:
        assert first.poll() is None
    with pytest.raises(RuntimeError, match="in use by another process"):
        folder.pretrain()
    first.kill()
    first.communicate()


def test_evaluating_on_labelled_clips_changes_no_weight(folder, uninterrupted):
    folder.change(online="noise")
    folder.pretrain(stop_after=25)
    assert "k-NN" in folder.pretrain()
    assert folder.weights() == uninterrupted
    checkpoint = folder.folder / "data/checkpoints/pretrained"
    with (checkpoint / "online.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [int(row["step"]) for row in rows] == [0, 20, 40, 59]
    assert all(0 <= float(row["knn_accuracy"]) <= 1 <= float(row["rankme"]) for row in rows)
    live = (checkpoint / "dvclive/plots/metrics/knn_accuracy.tsv").read_text().splitlines()
    assert [int(line.split("\t")[0]) for line in live[1:]] == [0, 20, 40, 59]


def test_the_checkpoint_explains_itself(folder, uninterrupted):
    checkpoint = folder.folder / "data/checkpoints/pretrained"
    meta = read_meta(checkpoint)
    assert (meta.update, meta.total_updates, meta.num_clips) == (60, 60, 12)
    statistics = json.loads((folder.folder / "data/shards/noise/statistics.json").read_text())
    assert (meta.standard.mean, meta.standard.std) == (statistics["mean"], statistics["std"])
    with (checkpoint / "metrics.csv").open() as table:
        steps = [int(row["step"]) for row in csv.DictReader(table)]
    assert steps == [*range(0, 60, 5), 59]
    live = (checkpoint / "dvclive/plots/metrics/loss.tsv").read_text().splitlines()
    assert [int(line.split("\t")[0]) for line in live[1:]] == steps
    assert meta.num_recordings == {"noise": 12}
    learned = read_digests(checkpoint).table
    assert (
        known(learned, ShardFolder(folder.folder / "data/shards/noise").recordings().table).tolist()
        == [2] * 12
    )
    assert damage(checkpoint) is None


def test_the_checkpoint_opens_in_two_lines(folder, uninterrupted):
    encoder = matpac.load(folder.folder / "data/checkpoints/pretrained")
    assert encoder.embed(np.zeros(16_000), 16_000).shape == (1, 16)


def test_shards_changed_behind_the_pipelines_back_are_named(folder):
    corpus = folder.folder / "data/corpus.json"
    corpus.write_text(corpus.read_text().replace("noise", "other"))
    with pytest.raises(ValueError, match=r"found another\. Run `matpac corpus`"):
        folder.pretrain()


def test_a_run_begins_with_the_weights_of_init_and_keeps_their_statistics(folder, uninterrupted):
    checkpoint = folder.folder / "data/checkpoints/pretrained"
    shutil.copytree(checkpoint, folder.folder / "first", dirs_exist_ok=True)
    meta = json.loads((folder.folder / "first/meta.json").read_text())
    meta["standard"]["mean"] += 0.5
    (folder.folder / "first/meta.json").write_text(json.dumps(meta))
    fresh = folder.losses()
    folder.change(init="first")
    folder.pretrain()
    assert folder.losses()[0] < fresh[0]
    begun = read_meta(checkpoint)
    assert begun.standard.mean == meta["standard"]["mean"]
    weights = (folder.folder / "first/networks.safetensors").read_bytes()
    assert begun.init_digest == hashlib.sha256(weights).hexdigest()


def test_labelled_clips_are_standardized_as_the_runs_own_clips(folder, uninterrupted):
    """A run that begins with weights uses the statistics that came with them, not the data's."""
    checkpoint = folder.folder / "data/checkpoints/pretrained"
    shutil.copytree(checkpoint, folder.folder / "scaled")
    meta = json.loads((folder.folder / "scaled/meta.json").read_text())
    meta["standard"]["std"] *= 3
    (folder.folder / "scaled/meta.json").write_text(json.dumps(meta))
    folder.change(init="scaled", online="noise")
    folder.pretrain()
    with (checkpoint / "online.csv").open() as table:
        *_, last = csv.DictReader(table)
    params = load_params(folder.folder / "params.yaml")
    shards, standard = folder.folder / "data/shards/noise", read_meta(checkpoint).standard
    probe = OnlineProbe(shards, params.online, standard, params.pretrain.crop_frames)
    expected = probe.evaluate(networks_of(checkpoint), 59)
    for name in ("step", "knn_accuracy", "rankme", "variance_least", "variance_median", "variance_most"):
        assert float(last[name]) == pytest.approx(expected[name], rel=1e-3), name


def test_other_weights_of_the_same_name_start_a_new_run(folder, uninterrupted):
    shutil.copytree(
        folder.folder / "data/checkpoints/pretrained", folder.folder / "first", dirs_exist_ok=True
    )
    folder.change(init="first")
    folder.pretrain(stop_after=10)
    path = folder.folder / "first/networks.safetensors"
    networks = load_file(path)
    save_file(networks | {"center.value": networks["center.value"] + 1}, path)
    with pytest.raises(ValueError, match="need the weights of SHA256SUMS beside it"):
        folder.pretrain()
    seal(path.parent)
    assert "Going on" not in folder.pretrain()


def test_a_run_whose_parameters_were_edited_meanwhile_counts_for_the_old_ones_only(folder, uninterrupted):
    file = folder.folder / "params.yaml"
    process = folder.start()
    while not folder.saved_updates():
        time.sleep(0.01)
    old = file.read_text()
    file.write_text(old.replace("alpha: 0.5", "alpha: 0.25"))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("matpac: params.yaml: pretrain.alpha changed while this ran.")
    file.write_text(old)
    assert "updates" not in folder.pretrain(), "it was finished"
    assert folder.weights() == uninterrupted


def test_rows_measured_with_other_settings_are_dropped(folder):
    folder.change(online="noise")
    folder.pretrain(stop_after=25)
    saved = folder.saved_updates()
    folder.change(online=None)
    assert "Going on" in folder.pretrain()
    online = folder.folder / "data/checkpoints/pretrained/online.csv"
    assert saved < 60
    assert online.read_text().strip() == ""


def test_classification_alone_raises_the_alarm_once_it_is_judged(folder):
    folder.change(size="tiny", alpha=0.0, num_epochs=200, save_every_s=1)
    said = folder.pretrain(stop_after=95)
    alarms = re.findall(r"seems to collapse at update (\d+): the student predicts", said)
    assert alarms
    assert int(alarms[0]) <= 90


def test_a_sound_run_raises_no_alarm(folder):
    folder.change(size="tiny", alpha=0.5, num_epochs=200, save_every_s=1)
    assert "seems to collapse" not in folder.pretrain(stop_after=150)
