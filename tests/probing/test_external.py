"""A small module with the HEAR API, recordings of noise, and our own encoder under that API."""

import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch
import zarr

from matpac.datasets.demo import recipes as demo
from matpac.datasets.fingerprints import content_of
from matpac.datasets.inventory import read_recordings, take_inventory, write_recordings
from matpac.datasets.registry import recordings_root
from matpac.digests import SCHEMA, Digests, write_digests
from matpac.files import read_json
from matpac.params import TAKEN, Demo, Embed, Other, Probe
from matpac.prepare.plan import plan_dataset
from matpac.probing.embed import embed_stage
from matpac.probing.external import Located, load_other, read_sounds, recordings_of
from matpac.probing.probe import probe
from matpac.probing.scores import DETAILS, percent, score_table
from matpac.probing.store import FEATURES, read_clips, read_feature
from tests.checkpoints import untrained_checkpoint
from tests.recordings import LOGMEL, build, plan_of, shards_params, write_noise

PROBE = Probe(
    datasets=(),
    num_repeats=3,
    batch_size=32,
    learning_rate=0.01,
    max_epochs=60,
    patience_epochs=20,
    score_on="test",
    pooling="mean",
    standardize=True,
    knn=3,
    attentive=None,
    seed=0,
)

BANDS = """
from pathlib import Path

import torch


class Model(torch.nn.Module):
    sample_rate = 22050
    scene_embedding_size = timestamp_embedding_size = 48

    def __init__(self, floor):
        super().__init__()
        self.floor = torch.nn.Parameter(torch.tensor(floor))


def load_model(model_file_path=""):
    return Model(float(Path(model_file_path).read_text()) if model_file_path else 1e-6)


def get_scene_embeddings(audio, model):
    assert audio.dtype == torch.float32 and not model.training
    window = torch.hann_window(1024, device=audio.device)
    power = torch.stft(audio, 1024, 512, window=window, return_complex=True).abs().square()
    bands = (torch.nn.functional.adaptive_avg_pool1d(power.mT, 24) + model.floor).log()
    return torch.cat([bands.mean(1), bands.std(1)], dim=1)
"""
"""A module: means and deviations of spectral bands, at another sample rate than ours."""


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """A function that puts a module on the path until the test ends."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write(code, name="hear_bands"):
        (folder / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    yield write
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


def listed(root, holds=("files",)):
    """Folder `root` with an inventory, as the download stage writes it."""
    raw = root.with_name(f"raw-{root.name}")
    write_recordings(raw, take_inventory(root, holds))
    return Located(raw, root)


def sounds_of(located, rate_hz=22050):
    """Sounds of all recordings, in the order of the inventory."""
    recordings = list(read_recordings(located.inventory))
    return list(read_sounds(recordings, located.root, rate_hz, "soxr_hq", "mean"))


@pytest.fixture
def noises(tmp_path):
    """Nine recordings of three lengths, in stereo, at 44.1 kHz."""
    for number in range(9):
        noise = np.random.default_rng(number).normal(scale=0.1, size=(20_000 + 9_000 * (number // 4), 2))
        path = tmp_path / "noises" / f"{number:03d}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, noise, 44_100, subtype="PCM_16")
    return tmp_path / "noises"


def test_the_module_hears_the_recordings_at_its_own_rate(noises, write_module):
    encoder = load_other("bands", Other(module=write_module(BANDS), model=None))
    sounds = sounds_of(listed(noises), encoder.sample_rate_hz)
    rows = list(encoder.embed(list("abcdefghi"), sounds, batch_size=3))
    for path, sound, row in zip(sorted(noises.iterdir()), sounds, rows, strict=True):
        samples, _ = soundfile.read(path, dtype="float32")
        expected = soxr.resample(samples.mean(axis=1), 44_100, 22_050, quality="HQ")
        assert sound == pytest.approx(expected, abs=1e-6)
        alone = encoder.module.get_scene_embeddings(torch.from_numpy(sound[None]), encoder.model)
        assert row == pytest.approx(alone[0].detach().numpy(), abs=1e-4)


def test_neighbours_of_one_length_share_a_batch(noises, write_module):
    noted = BANDS.replace("    assert", "    model.seen.append(tuple(audio.shape))\n    assert")
    code = noted.replace("    sample_rate", "    seen = []\n    sample_rate")
    encoder = load_other("bands", Other(module=write_module(code), model=None))
    list(encoder.embed(list("abcdefghi"), sounds_of(listed(noises)), batch_size=3))
    lengths = [(3, 10_000), (1, 10_000), (3, 14_500), (1, 14_500), (1, 19_000)]
    assert encoder.model.seen == lengths


def test_recordings_are_read_wherever_they_lie(noises, tmp_path):
    files = sorted(noises.iterdir())
    for name in ("tars", "parquet"):
        (tmp_path / name).mkdir()
    with tarfile.open(tmp_path / "tars" / "all.tar", "w") as archive:
        for path in files:
            archive.add(path, path.name)
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    pq.write_table(pa.table({"audio": cells}), tmp_path / "parquet" / "all.parquet")
    plain = sounds_of(listed(noises))
    for holds in ("tars", "parquet"):
        packed = sounds_of(listed(tmp_path / holds, (holds,)))
        assert len(packed) == 9
        assert all(np.array_equal(*pair) for pair in zip(plain, packed, strict=True))


def test_samples_beyond_full_scale_are_clipped(tmp_path):
    (tmp_path / "loud").mkdir()
    soundfile.write(tmp_path / "loud/a.wav", np.array([0.5, 1.5, -3.0]), 16_000, subtype="FLOAT")
    [sound] = sounds_of(listed(tmp_path / "loud"), 16_000)
    assert sound.tolist() == [0.5, 1.0, -1.0]
    assert sound.dtype == np.float32


def test_a_recording_that_has_changed_since_it_was_prepared_is_named(noises):
    located = listed(noises)
    write_noise(noises / "003.wav", 0.5, seed=99)
    with pytest.raises(ValueError, match=r"noises as they were; 003.wav: changed \(run the download stage"):
        sounds_of(located)
    with pytest.raises(ValueError, match=r"raw-noises: need the recordings .* found no 009.wav. Run `dvc"):
        recordings_of(["000.wav", "009.wav"], located)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nowhere_else", "hear_bands cannot be imported: ModuleNotFoundError: No module named 'nowh"),
        ("1 / 0", "hear_bands cannot be imported: ZeroDivisionError: division by zero"),
        ("load_model = 1", "need the HEAR API, found no function load_model in hear_bands"),
        ("load_model = print", "need the HEAR API, found no function get_scene_embeddings in hear_bands"),
        (BANDS.replace("sample_rate", "rate"), "attribute sample_rate, got None"),
        (BANDS.replace("22050", "44.1"), "attribute sample_rate, got 44.1"),
        (BANDS.replace("scene_embedding_size", "size"), "attribute scene_embedding_size, got None"),
        (BANDS.replace("1e-6", "1 / 0"), r"hear_bands.load_model\(\) failed: ZeroDivisionError"),
    ],
)
def test_a_module_that_is_no_encoder_is_refused_in_one_line(code, words, write_module):
    with pytest.raises(ValueError, match=f"^embed.others.bands: .*{words}") as caught:
        load_other("bands", Other(module=write_module(code), model=None))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", ["no_such_module", "matpac.no_such_module", "no_such_package.encoder"])
def test_a_module_that_is_not_found_is_named_with_the_way_out(module):
    with pytest.raises(ValueError, match=rf"got {module}\. Install the package .* on PYTHONPATH\.$"):
        load_other("bands", Other(module=module, model=None))


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("return bands", r"need a tensor \(1, 48\) .* \(1, 10000\) samples \(clip a\), got \(1, 20, 24\)"),
        ("return [1.0]", r"need a tensor \(1, 48\) .* got list"),
        ("return bands @ bands", r"failed on \(1, 10000\) samples \(clip a\): RuntimeError: Expected size"),
    ],
)
def test_a_failure_while_embedding_names_encoder_and_clip(end, words, noises, write_module):
    code = BANDS.replace("return torch.cat([bands.mean(1), bands.std(1)], dim=1)", end)
    encoder = load_other("bands", Other(module=write_module(code), model=None))
    with pytest.raises(ValueError, match=f"embed.others.bands: hear_bands.get_scene_embeddings.*{words}"):
        list(encoder.embed(list("abcdefghi"), sounds_of(listed(noises)), batch_size=1))


def test_an_encoder_is_known_by_its_code_and_its_weights_whatever_it_is_called(tmp_path, write_module):
    def origin(name, model, code=BANDS):
        return load_other(name, Other(module=write_module(code), model=model)).origin

    (tmp_path / "floor.txt").write_text("1e-6")
    floor = str(tmp_path / "floor.txt")
    first = origin("one", floor)
    assert origin("two", floor) == first
    assert origin("one", None) != first
    assert origin("one", floor, f"{BANDS}\n").digest != first.digest
    (tmp_path / "floor.txt").write_text("1e-5")
    assert origin("one", floor) == first._replace(digest=origin("one", floor).digest) != first
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/weights").write_text("1")
    whole = content_of(tmp_path / "folder")
    (tmp_path / "folder/weights").write_text("2")
    assert content_of(tmp_path / "folder") != whole
    checkpoint = untrained_checkpoint(tmp_path / "checkpoint")
    ours = content_of(checkpoint)
    (checkpoint / "meta.json").write_text("trained on another day")
    assert content_of(checkpoint) == ours
    (checkpoint / "networks.safetensors").write_text("of another run")
    assert content_of(checkpoint) != ours


def test_an_encoder_in_a_package_is_known_by_the_code_of_all_of_it(tmp_path, monkeypatch):
    package = tmp_path / "hear_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "bands.py").write_text(BANDS)
    (package / "floor.py").write_text("FLOOR = 1e-6")
    monkeypatch.syspath_prepend(str(tmp_path))

    def origin():
        try:
            return load_other("bands", Other(module="hear_package.bands", model=None)).origin
        finally:
            for name in ("hear_package.bands", "hear_package"):
                sys.modules.pop(name, None)

    first = origin()
    assert origin() == first
    (package / "floor.py").write_text("FLOOR = 1e-5")
    assert origin() == first._replace(digest=origin().digest) != first


@pytest.fixture
def shards(noises, tmp_path):
    """Shards of the nine recordings, in two classes and three folds."""
    build(plan_of(noises, tmp_path / "work"), tmp_path / "shards/noises")
    return tmp_path / "shards/noises"


def test_a_value_that_is_not_finite_names_encoder_and_clip(shards, noises, tmp_path, write_module):
    bands = Other(module=write_module(BANDS.replace("1e-6", "float('nan')")), model=None)
    checkpoint = untrained_checkpoint(tmp_path / "checkpoint")
    params = Embed(precision="float32", batch_size=4, over_time=False, others={"bands": bands})
    with pytest.raises(ValueError, match=r"^noises: bands: need finite values, got others for clip a000$"):
        embed_stage(shards, listed(noises), checkpoint, tmp_path / "embeddings/noises", params)


def test_an_encoder_that_fails_does_so_before_anything_is_embedded(shards, noises, tmp_path, write_module):
    code = BANDS.replace("return torch.cat([bands.mean(1), bands.std(1)], dim=1)", "return bands")
    bands = Other(module=write_module(code), model=None)
    checkpoint = untrained_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=r"^embed.others.bands: .* \(clip a000\)"):
        embed_stage(
            *(shards, listed(noises), checkpoint, tmp_path / "embeddings/noises"),
            Embed(precision="float32", batch_size=4, over_time=False, others={"bands": bands}),
        )
    assert not (tmp_path / "embeddings").exists()


def test_the_store_holds_every_encoder_and_the_probes_score_it(shards, noises, tmp_path, write_module):
    bands = Other(module=write_module(BANDS), model=None)
    checkpoint = untrained_checkpoint(tmp_path / "checkpoint")
    write_digests(checkpoint, Digests(SCHEMA.empty_table()))
    store = tmp_path / "embeddings/noises"
    params = Embed(precision="float32", batch_size=4, over_time=True, others={"bands": bands, "again": bands})
    embed_stage(shards, listed(noises), checkpoint, store, params)
    clips = read_clips(store)
    assert clips.features == (*FEATURES, "bands", "again")
    assert clips.others["bands"] == load_other("bands", bands).origin
    assert np.array_equal(read_feature(store, "bands"), read_feature(store, "again"))
    assert read_feature(store, "bands").shape == (9, 48)
    # TAKEN lists all names of arrays, so no other encoder can have one of them.
    assert set(zarr.open_group(store, mode="r")) == {*TAKEN, "bands", "again"}

    out = tmp_path / "scores/noises.json"
    probe("noises", store, out, PROBE)
    details, summary = (read_json(out.with_suffix(DETAILS))[name] for name in ("features", "summary"))
    assert (
        set(details)
        == set(clips.features)
        == set(read_json(out.with_suffix(DETAILS))["second_reading"]["knn"]) - {"num_neighbours"}
    )
    gaps = np.mean(details["bands"]["scores"], axis=1) - np.mean(details["pretrained"]["scores"], axis=1)
    score = summary["others"]["bands"]
    assert score["mean"] == pytest.approx(np.mean(details["bands"]["scores"]))
    assert score["minus_encoder"]["mean"] == pytest.approx(gaps.mean())
    # Student's t for 2 degrees of freedom is 4.302653.
    assert score["minus_encoder"]["interval"] == pytest.approx(4.302653 * gaps.std(ddof=1) / np.sqrt(3))
    assert read_json(out)["others.bands"] == score["mean"]
    [line] = [line for line in score_table(out.parent).splitlines() if line.startswith("noises  bands")]
    assert percent(score) in line
    assert percent(score["minus_encoder"], signed=True) in line


def test_our_encoder_under_the_hear_api_has_the_scores_that_it_has_anyway(tmp_path, monkeypatch):
    """Equal up to rounding: shards hold float16, and the API computes its log-mels anew."""
    monkeypatch.chdir(tmp_path)
    source = Demo(kind="demo", recipe="scenes", num_clips=120, seed=1)
    root = recordings_root("scenes", source)
    demo.fetch(source, root, None)
    located = listed(root)
    build(
        plan_dataset("scenes", source, located.inventory, LOGMEL, shards_params(clips_per_shard=64)),
        tmp_path / "shards/scenes",
    )
    checkpoint = untrained_checkpoint(tmp_path / "checkpoint")
    ours = Other(module="matpac.hear", model=str(checkpoint))
    store, out = tmp_path / "embeddings/scenes", tmp_path / "scenes.json"
    embed_stage(
        tmp_path / "shards/scenes",
        located,
        checkpoint,
        store,
        Embed(precision="float32", batch_size=32, over_time=False, others={"again": ours}),
    )
    first, again = (read_feature(store, name) for name in ("pretrained", "again"))
    assert np.abs(first - again).max() < 0.005 * first.std()
    probe("scenes", store, out, PROBE)
    details = read_json(out.with_suffix(DETAILS))
    scores = details["features"]
    assert scores["again"]["scores"] == pytest.approx(np.array(scores["pretrained"]["scores"]), abs=0.01)
    assert np.mean(scores["pretrained"]["scores"]) > details["summary"]["chance"] + 0.2
