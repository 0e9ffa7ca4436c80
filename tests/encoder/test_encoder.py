import copy
import json
import pickle
import shutil

import numpy as np
import pytest
import soundfile
import torch

import matpac
from matpac.clip import UnusableAudio
from matpac.encoder.encoder import AudioEncoder, load_encoder, untrained_encoder
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.signal.mel import mel_filters
from matpac.weights.released import AUDIOSET, PAPER_LOGMEL
from tests.checkpoints import untrained_checkpoint

RATE = 16_000


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    patches, encoder = Patches(80, 64, 16).eval(), Encoder(16, 2, 2).eval()
    return AudioEncoder(patches, encoder, PAPER_LOGMEL, mel_filters(PAPER_LOGMEL), AUDIOSET, 64)


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(scale=0.1, size=RATE).astype(np.float32)


def arrays(path) -> dict:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


class Golden:
    def __init__(self, folder):
        heads = json.loads((folder / "infer_meta.json").read_text())["num_heads"]
        self.encoder = matpac.load(folder / "infer_state.pt", device="cpu", num_heads=heads)
        self.outputs = arrays(folder / "infer_outputs.npz")
        inputs = arrays(folder / "infer_inputs.npz")
        wave = inputs["wave_int16"] * inputs["wave_scale"]
        self.clips = {
            str(name): wave[start : start + length]
            for name, (start, length) in zip(inputs["clip_names"], inputs["clip_start_len"], strict=True)
        }


@pytest.fixture(scope="module")
def golden(golden_folder):
    return Golden(golden_folder)


def test_pooled_embeddings_of_all_layers_match_the_authors_code(golden):
    for name, clip in golden.clips.items():
        expected = golden.outputs[f"precise_pooled_{name}"].squeeze()
        [found] = golden.encoder.embed(clip, RATE, layers=True)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_array_equal(golden.encoder.embed(clip, RATE)[0], found[-1])


def test_embeddings_in_time_of_all_layers_match_the_authors_code(golden):
    for name, clip in golden.clips.items():
        expected = golden.outputs[f"precise_time_{name}"].squeeze()
        [(found, _)] = golden.encoder.embed_in_time(clip, RATE, layers=True)
        # Single steps feel the 1e-4 between two front ends more than their mean does.
        np.testing.assert_allclose(found, expected, atol=3e-5)


def test_a_batch_matches_the_authors_code(golden):
    clip = golden.clips["10.0s"]
    found = golden.encoder.embed(np.stack([clip, clip[::-1]]), RATE, layers=True)
    np.testing.assert_allclose(found, golden.outputs["precise_pooled_batch2"], atol=1e-5)


def test_a_released_name_opens_the_file_in_the_cache(golden, golden_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATPAC_HOME", str(tmp_path))
    shutil.copy(golden_folder / "infer_state.pt", tmp_path / "matpac_10_2048.pt")
    encoder = matpac.load("matpac_10_2048", device="cpu", num_heads=2)
    clip = golden.clips["6.1s"]
    assert np.array_equal(encoder.embed(clip, RATE), golden.encoder.embed(clip, RATE))


def test_where_nobody_says_how_many_heads_there_are_nothing_is_guessed(golden, golden_folder, tmp_path):
    """Another number opens as well, and embeds otherwise."""
    path = golden_folder / "infer_state.pt"
    with pytest.raises(ValueError, match=r"infer_state\.pt: need num_heads: .* 32 dimensions") as said:
        matpac.load(path, device="cpu")
    assert "\n" not in str(said.value)
    with pytest.raises(ValueError, match=r"need num_heads that divides 32 dimensions, got 3$"):
        matpac.load(path, device="cpu", num_heads=3)
    clip = golden.clips["6.1s"]
    expected = golden.encoder.embed(clip, RATE)
    assert np.abs(matpac.load(path, device="cpu", num_heads=1).embed(clip, RATE) - expected).max() > 0.01
    matpac.load(path, device="cpu", num_heads=2).save_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(matpac.load(tmp_path / "saved", device="cpu").embed(clip, RATE), expected)
    with pytest.raises(ValueError, match=r"saved: need no num_heads, the folder says how many"):
        matpac.load(tmp_path / "saved", device="cpu", num_heads=2)


def test_a_batch_of_different_lengths_equals_single_clips(encoder, noise):
    clips = [noise, noise[: RATE // 3], noise[:2000], noise[: RATE // 2]]
    together = encoder.embed(clips, RATE)
    alone = np.concatenate([encoder.embed(clip, RATE) for clip in clips])
    np.testing.assert_allclose(together, alone, atol=1e-5)


OUTPUTS = [
    {"in_time": False, "layers": False},
    {"in_time": False, "layers": True},
    {"in_time": True, "layers": False},
    {"in_time": True, "layers": True},
    {"in_time": True, "patches": True},
    {"in_time": True, "layers": True, "patches": True},
]


def outputs(encoder, clips, rates, in_time, **kinds):
    if not in_time:
        return list(encoder.embed(clips, rates, **kinds))
    return [embeddings for embeddings, _ in encoder.embed_in_time(clips, rates, **kinds)]


@pytest.mark.parametrize("kinds", OUTPUTS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_what_a_clip_gives_does_not_depend_on_the_others(encoder, seed, kinds):
    """Of lengths from less than a window to several chunks, at several rates, quiet and loud."""
    random = np.random.default_rng(seed)
    rates = random.choice([8_000, 16_000, 22_050, 44_100], size=9).tolist()
    seconds = [0.01, *random.uniform(0.02, 3, size=8)]
    random.shuffle(seconds)
    clips = [
        random.normal(scale=10 ** random.uniform(-4, 0), size=int(rate * length_s)).astype(np.float32)
        for rate, length_s in zip(rates, seconds, strict=True)
    ]
    together = outputs(encoder, clips, rates, **kinds)
    for clip, rate, found in zip(clips, rates, together, strict=True):
        [alone] = outputs(encoder, clip, rate, **kinds)
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5)


def test_the_kinds_of_output_are_views_of_one_another(encoder, noise):
    clips = [noise, noise[: RATE // 3]]
    [[means], [steps], [patches]] = (
        outputs(encoder, clips[1:], RATE, layers=True, **kinds)
        for kinds in ({"in_time": False}, {"in_time": True}, {"in_time": True, "patches": True})
    )
    # A third of a second is 31 frames, the last patch half full; two layers, five frequencies, 16 dimensions.
    assert (means.shape, steps.shape, patches.shape) == ((2, 80), (2, 2, 80), (2, 5, 2, 16))
    np.testing.assert_allclose(steps.mean(axis=1), means, atol=1e-6)
    for freq in range(5):
        np.testing.assert_array_equal(patches[:, freq], steps[..., 16 * freq : 16 * freq + 16])


def test_patches_of_low_frequencies_come_first(encoder):
    """A tone of 200 Hz changes the lowest patches most, as positions and projection are the same for all."""
    time_s = np.arange(RATE) / RATE
    quiet = np.random.default_rng(0).normal(scale=0.01, size=RATE)
    for tone_hz, expected in [(200, 0), (6_000, 4)]:
        tone = quiet + 0.5 * np.sin(2 * np.pi * tone_hz * time_s)
        [[with_tone], [without]] = (
            outputs(encoder, clip, RATE, in_time=True, patches=True) for clip in (tone, quiet)
        )
        assert np.abs(with_tone - without).mean(axis=(1, 2)).argmax() == expected


def test_steps_are_at_the_middle_of_what_they_hear(encoder, noise):
    [long, short] = encoder.embed_in_time([noise, noise[:2000]], RATE)
    assert len(long.embeddings) == 7  # 98 frames
    assert long.centers_ms.tolist() == [87.5 + 160 * step for step in range(7)]
    assert short.centers_ms.tolist() == [87.5]


def test_channels_of_clips_in_a_list_are_averaged(encoder, noise):
    stereo = np.stack([noise, np.zeros_like(noise)])
    found = encoder.embed([stereo, noise[:5000]], RATE)
    np.testing.assert_allclose(found[0], encoder.embed(noise / 2, RATE)[0], atol=1e-5)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "bool", "complex64"])
def test_samples_that_are_not_floats_are_refused_with_what_to_do(encoder, dtype):
    for waveform in (np.ones(1000, dtype), [np.ones(1000, dtype)], np.ones((2, 3, 1000), dtype)):
        with pytest.raises(
            ValueError, match=rf"got {dtype}. Divide by the full scale .* int16 / 32768"
        ) as said:
            encoder.embed(waveform, RATE)
        assert "\n" not in str(said.value)


@pytest.mark.parametrize("scale", [128, 32_768, -32_768, 2**31])
def test_integers_that_became_floats_are_refused_with_what_to_do(encoder, noise, scale):
    loud = scale * noise / np.abs(noise).max()
    for waveform in (loud, [noise, loud], np.stack([noise, loud])):
        with pytest.raises(
            ValueError, match=r"^embed: need samples in -1 to 1, got one of .* 32768 if"
        ) as said:
            encoder.embed(waveform, RATE)
        assert "\n" not in str(said.value)


def test_what_mixing_and_resampling_leave_beyond_full_scale_is_embedded(encoder, noise, tmp_path):
    np.testing.assert_allclose(
        encoder.embed(90 * noise / np.abs(noise).max(), RATE).shape, encoder.embed(noise, RATE).shape
    )
    # Some files hold floats up to 2 ** 31.
    soundfile.write(tmp_path / "loud.wav", 2.0**31 * noise, RATE, subtype="FLOAT")
    assert np.isfinite(encoder.embed_file(tmp_path / "loud.wav")).all()


def test_the_embedding_of_a_file_is_that_of_its_samples(encoder, noise, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(encoder.embed_file(tmp_path / "a.wav"), encoder.embed(noise, RATE)[0])


@pytest.mark.parametrize("num_channels", [1, 2, 20])
def test_channels_on_the_last_axis_are_refused_with_what_to_do(encoder, noise, num_channels):
    recording = np.tile(noise[:, None], num_channels)
    for waveform in (recording, [recording], recording[None]):
        with pytest.raises(ValueError, match=rf"got an array .*16000, {num_channels}\], .*mean\(axis=-1\)$"):
            encoder.embed(waveform, RATE)
    np.testing.assert_allclose(
        encoder.embed(recording.mean(axis=-1), RATE), encoder.embed(noise, RATE), atol=1e-5
    )


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([RATE], r"one for each of 2 clips, got 1"),
        ([RATE] * 3, r"one for each of 2 clips, got 3"),
        ([RATE, 0], r"whole Hz above 0, got 0"),
        ([RATE, -1], r"whole Hz above 0, got -1"),
        (np.int64(0), r"whole Hz above 0, got 0"),
    ],
)
def test_rates_that_do_not_fit_are_refused(encoder, noise, rates, said):
    with pytest.raises(ValueError, match=f"^sample_rate: need .*{said}$"):
        encoder.embed([noise, noise], rates)


@pytest.mark.parametrize("rates", [np.int64(8_000), np.uint16(8_000), [np.int64(8_000), 8_000]], ids=repr)
def test_rates_may_be_integers_of_numpy(encoder, noise, rates):
    np.testing.assert_array_equal(encoder.embed([noise, noise], rates), encoder.embed([noise, noise], 8_000))


@pytest.mark.parametrize("shape", [(), (0, 100), (2, 2, 2, 100)])
def test_other_shapes_are_refused(encoder, shape):
    with pytest.raises(ValueError, match=r"^embed: need \[time\], \[clip, time\],"):
        encoder.embed(np.zeros(shape), RATE)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
@pytest.mark.parametrize("opened", [load_encoder, untrained_encoder])
def test_a_copy_embeds_the_same_and_is_another_encoder(noise, tmp_path, opened, copied):
    encoder = opened(untrained_checkpoint(tmp_path), "cpu")
    again = copied(encoder)
    np.testing.assert_array_equal(again.embed(noise, RATE), encoder.embed(noise, RATE))
    assert again.facts() == encoder.facts()
    assert {encoder: 1, again: 2} == {again: 2, encoder: 1}
    assert len({encoder, again}) == 2


def test_long_clips_are_embedded_in_chunks_as_long_as_the_crops_of_training(encoder):
    log_mel = np.random.default_rng(0).normal(size=(64 + 64 + 40, 80)).astype(np.float32)
    clips = [log_mel, log_mel[:64], log_mel[64:128], log_mel[128:]]
    whole, *chunks = (clip.steps for clip in encoder.embed_log_mels_in_time(clips))
    np.testing.assert_allclose(whole, np.concatenate(chunks), atol=1e-5)


def test_channels_are_averaged(encoder, noise):
    stereo = np.stack([noise, np.zeros_like(noise)])[None]
    np.testing.assert_allclose(encoder.embed(stereo, RATE), encoder.embed(noise / 2, RATE), atol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 399, 1600])
def test_the_shortest_clips_embed(encoder, num_samples):
    assert encoder.embed(np.full(num_samples, 0.1), RATE).shape == (1, 80)


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_any_rate_embeds(encoder, rate):
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    reference = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    found, expected = encoder.embed(tone, rate), encoder.embed(reference, RATE)
    assert np.corrcoef(found, expected)[0, 1] > 0.95


def test_an_empty_waveform_is_refused(encoder):
    with pytest.raises(ValueError, match="at least one sample"):
        encoder.embed(np.zeros(0), RATE)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_samples_are_refused(encoder, bad):
    with pytest.raises(ValueError, match="finite samples"):
        encoder.embed(np.array([0.0, bad, 0.0]), RATE)


def test_files_of_any_kind_embed(encoder, tmp_path, noise):
    for rate, channels in [(8_000, 1), (192_000, 1), (44_100, 2), (16_000, 20)]:
        samples = np.tile(np.resize(noise, rate)[:, None], channels)
        soundfile.write(tmp_path / "a.wav", samples, rate)
        assert encoder.embed_file(tmp_path / "a.wav").shape == (80,)


def test_an_unusable_file_is_named(encoder, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    with pytest.raises(UnusableAudio, match=r"broken\.wav"):
        encoder.embed_file(tmp_path / "broken.wav")
    with pytest.raises(UnusableAudio, match=r": cannot be read \(a folder, not a file\)$"):
        encoder.embed_file(tmp_path)


def test_neither_folder_nor_released_file_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="need a checkpoint, a saved folder or a released"):
        matpac.load(tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match=r"meta\.json is missing"):
        matpac.load(tmp_path)


def test_ten_minutes_embed_in_bounded_memory(encoder):
    long = np.random.default_rng(0).normal(scale=0.1, size=600 * RATE).astype(np.float32)
    assert np.isfinite(encoder.embed(long, RATE)).all()


def test_a_precision_that_we_do_not_have_is_refused(tmp_path):
    untrained_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="precision: need float32 or bfloat16, got 'float16'"):
        load_encoder(tmp_path, "cpu", precision="float16")


@pytest.mark.parametrize("slow", [True, False])
def test_bfloat16_where_it_is_emulated_is_warned_of(tmp_path, monkeypatch, recwarn, slow):
    untrained_checkpoint(tmp_path)
    monkeypatch.setattr("matpac.encoder.encoder.is_bfloat16_slow", lambda _: slow)
    assert matpac.load(tmp_path, device="cpu", precision="bfloat16").precision == "bfloat16"
    assert matpac.load(tmp_path, device="cpu").precision == "float32"
    assert [str(one.message).split(":")[0] for one in recwarn] == ["precision"] * slow
