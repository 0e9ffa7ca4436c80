"""The encoder as a torch module: the values of `embed`, gradients, and what people do with modules."""

import copy
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

import matpac
from matpac.encoder.encoder import AudioEncoder
from matpac.encoder.inputs import check_batch, clips_of, rates_of
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.signal.mel import mel_filters
from matpac.weights.released import AUDIOSET, PAPER_LOGMEL

RATE = 16_000
CHUNK_SAMPLES = 400 + 63 * 160
"""Samples of a chunk of 64 frames."""


def tiny_encoder() -> AudioEncoder:
    """With weights so large that attention tells tokens apart, as after training."""
    torch.manual_seed(0)
    patches, encoder = Patches(80, 64, 16), Encoder(16, 2, 2)
    with torch.no_grad():
        for block in encoder.blocks:
            block.attn.qkv.weight.mul_(5)
    return AudioEncoder(patches, encoder, PAPER_LOGMEL, mel_filters(PAPER_LOGMEL), AUDIOSET, 64).eval()


@pytest.fixture
def encoder():
    return tiny_encoder()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.fixture(scope="module")
def golden(golden_folder):
    """The authors' encoder, and their clips with the outputs of all layers over time."""
    heads = json.loads((golden_folder / "infer_meta.json").read_text())["num_heads"]
    encoder = matpac.load(golden_folder / "infer_state.pt", device="cpu", num_heads=heads)
    with np.load(golden_folder / "infer_inputs.npz") as given:
        wave = torch.from_numpy((given["wave_int16"] * given["wave_scale"]).astype(np.float32))
        parts = zip(given["clip_names"].tolist(), given["clip_start_len"].tolist(), strict=True)
        clips = {name: wave[start : start + length] for name, (start, length) in parts}
    with np.load(golden_folder / "infer_outputs.npz") as made:
        steps = {name: torch.from_numpy(made[f"precise_time_{name}"].squeeze()) for name in clips}
        means = {name: torch.from_numpy(made[f"precise_pooled_{name}"].squeeze()) for name in clips}
    return encoder, clips, steps, means


def test_steps_layers_and_means_match_the_authors_code(golden):
    encoder, clips, steps, means = golden
    for name, clip in clips.items():
        found = encoder(clip[None], layers=True)
        torch.testing.assert_close(found.layers[0], steps[name], atol=3e-5, rtol=0)
        torch.testing.assert_close(found.steps[0], steps[name][-1], atol=3e-5, rtol=0)
        torch.testing.assert_close(found.mean[0], means[name][-1], atol=1e-5, rtol=0)
        assert found.mask.all()


def test_a_padded_batch_with_lengths_matches_the_authors_code(golden):
    encoder, clips, steps, means = golden
    batch = pad_sequence(list(clips.values()), batch_first=True, padding_value=float("nan"))
    found = encoder(batch, torch.tensor([len(clip) for clip in clips.values()]))
    for row, name in enumerate(clips):
        num_steps = steps[name].shape[1]
        assert found.mask[row].sum() == num_steps
        torch.testing.assert_close(found.steps[row, :num_steps], steps[name][-1], atol=3e-5, rtol=0)
        torch.testing.assert_close(found.mean[row], means[name][-1], atol=1e-5, rtol=0)


def test_the_front_end_equals_that_of_shards_on_golden_inputs(golden):
    encoder, clips, _, _ = golden
    for clip in clips.values():
        expected = torch.from_numpy(encoder.log_mel(clip.numpy(), RATE)).T
        torch.testing.assert_close(encoder.front_end(clip[None])[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("frames", [1, 16, 17, 64, 65, 129])
def test_the_mean_is_what_embed_gives_at_all_edges_of_patches_and_chunks(encoder, frames):
    for num_samples in (400 + 160 * (frames - 1), 400 + 160 * frames - 1):
        clips = noise(3, num_samples)
        expected = torch.from_numpy(encoder.embed(clips.numpy(), RATE))
        torch.testing.assert_close(encoder(clips).mean, expected, atol=1e-5, rtol=0)
        lengths = torch.tensor([num_samples, num_samples, max(num_samples - 5000, 1)])
        clips[2, lengths[2] :] = 7.0
        short = torch.from_numpy(encoder.embed(clips[2, : lengths[2]].numpy(), RATE))
        torch.testing.assert_close(encoder(clips, lengths).mean[2:], short, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder(clips, lengths).mean[:2], expected[:2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 17, 64, 65, 129])
def test_deviations_are_what_embed_gives_and_have_finite_gradients(encoder, frames):
    clips = noise(2, 400 + 160 * (frames - 1))
    expected = torch.from_numpy(encoder.embed(clips.numpy(), RATE, pooling="mean_and_deviation"))
    found = encoder(clips.requires_grad_()).pooled("mean_and_deviation")
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=0)
    found.sum().backward()
    assert clips.grad.isfinite().all()


@pytest.mark.parametrize("num_samples", [1, 399])
def test_less_than_a_window_is_filled_with_silence(encoder, num_samples):
    clip = noise(1, num_samples)
    expected = torch.from_numpy(encoder.embed(clip.numpy(), RATE))
    torch.testing.assert_close(encoder(clip).mean, expected, atol=1e-5, rtol=0)


def test_log_mels_can_be_changed_between_front_end_and_encoder(encoder):
    clips = noise(2, 20_000)
    log_mel = encoder.front_end(clips)
    assert torch.equal(encoder.encode(log_mel).steps, encoder(clips).steps)
    masked = log_mel.clone()
    masked[:, :, 64:] = encoder.standard.mean
    assert torch.equal(encoder.encode(masked).steps[:, :4], encoder(clips).steps[:, :4])
    assert not torch.equal(encoder.encode(masked).steps[:, 4:], encoder(clips).steps[:, 4:])


def test_gradients_equal_finite_differences_in_the_waveform_and_in_every_weight(encoder):
    encoder.double()
    # Two chunks, the second one not whole, and a shorter clip: all parts of the graph.
    waveform = noise(2, CHUNK_SAMPLES + 3000).double().requires_grad_()
    lengths = torch.tensor([waveform.shape[1], 4000])
    target = torch.randn(2, encoder.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss():
        return (encoder(waveform, lengths).mean * target).sum()

    loss().backward()
    generator = torch.Generator().manual_seed(2)
    for values in [waveform, *encoder.parameters()]:
        assert values.grad.isfinite().all()
        direction = torch.randn(values.shape, dtype=torch.float64, generator=generator)
        step = 1e-6 * direction / direction.norm()
        with torch.no_grad():
            values += step
            above = loss()
            values -= 2 * step
            below = loss()
            values += step
        expected = (values.grad * step).sum()
        torch.testing.assert_close((above - below) / 2, expected, rtol=1e-4, atol=1e-12)
    assert waveform.grad[0].abs().min() >= 0
    assert (waveform.grad[0] != 0).float().mean() > 0.99
    assert (waveform.grad[1, 4000:] == 0).all()


def test_silence_has_finite_gradients(encoder):
    waveform = torch.zeros(1, 3000, requires_grad=True)
    encoder(waveform).mean.square().sum().backward()
    assert waveform.grad.isfinite().all()


def test_it_trains(encoder):
    """A few updates by hand tell noise from a tone."""
    time = torch.arange(4000) / RATE
    clips = torch.cat([noise(4, 4000), 0.3 * torch.sin(2 * np.pi * 440 * time).expand(4, -1)])
    labels = torch.tensor([0] * 4 + [1] * 4)
    head = torch.nn.Linear(encoder.dim, 2)
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 1e-3)
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(head(encoder(clips).mean), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert all(not torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_embed_never_records_gradients_and_uses_the_weights_as_they_are(encoder):
    clip = noise(1, 4000)
    first = encoder.embed(clip.numpy(), RATE)
    with torch.no_grad():
        encoder.patches.projection.bias += 1
    assert not np.array_equal(encoder.embed(clip.numpy(), RATE), first)
    assert all(value.grad is None for value in encoder.parameters())


@pytest.mark.parametrize("kind", ["half", "bfloat16", "double"])
def test_other_types_of_weights_keep_the_front_end_exact(encoder, kind):
    clips, expected = noise(2, 12_000), encoder(noise(2, 12_000)).steps
    other = getattr(copy.deepcopy(encoder), kind)()
    assert other.front_end.filters.dtype == other.front_end.window.dtype == torch.float32
    dtype = other.patches.cls_token.dtype
    for given in (clips, clips.to(dtype)):
        found = other(given).steps
        assert found.dtype == dtype
        assert (found - expected).abs().max() < {"half": 0.02, "bfloat16": 0.2, "double": 1e-2}[kind]
    found = torch.from_numpy(other.embed(clips.numpy(), RATE))
    assert (found - encoder(clips).mean).abs().max() < 0.05
    back = other.float()
    assert back(clips).steps.dtype == torch.float32


def test_autocast_leaves_front_end_and_results_in_single_precision(encoder):
    clips = noise(2, 4000)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(clips)
        assert torch.equal(encoder.front_end(clips), tiny_encoder().front_end(clips))
    assert found.steps.dtype == torch.float32
    assert 0 < (found.steps - encoder(clips).steps).abs().max() < 0.2


def test_weights_are_saved_and_loaded_as_those_of_any_module(encoder):
    clips, expected = noise(2, 4000), encoder(noise(2, 4000)).steps
    assert {name.partition(".")[0] for name in encoder.state_dict()} == {"patches", "encoder"}
    stream = io.BytesIO()
    torch.save(encoder.state_dict(), stream)
    stream.seek(0)
    other = tiny_encoder()
    with torch.no_grad():
        other.patches.projection.weight += 1
    assert not torch.equal(other(clips).steps, expected)
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(other(clips).steps, expected)


def saved_whole(encoder):
    stream = io.BytesIO()
    torch.save(encoder, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), saved_whole])
def test_a_copy_shares_nothing(encoder, copied):
    clips = noise(2, 4000)
    other = copied(encoder)
    assert torch.equal(other(clips).steps, encoder(clips).steps)
    assert other.digest() == encoder.digest()
    with torch.no_grad():
        other.patches.projection.weight += 1
    assert other.digest() != encoder.digest()


class Embedded(Dataset):
    def __init__(self, encoder):
        self.encoder = encoder

    def __len__(self):
        return 4

    def __getitem__(self, index):
        with torch.no_grad():
            return self.encoder(noise(4, 4000)[index, None]).mean[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_can_hold_it(encoder, method):
    loader = DataLoader(Embedded(encoder), 2, num_workers=1, multiprocessing_context=method)
    found = torch.cat(list(loader))
    torch.testing.assert_close(found, encoder(noise(4, 4000)).mean.detach(), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_compiled_it_is_one_graph_that_gives_the_same():
    """In a process of its own, where no checks of types break the graph.

    Traced forwards and backwards, but not turned into machine code, which takes minutes.
    """
    code = "from tests.encoder.test_module import compiled; compiled()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def compiled() -> None:
    encoder = tiny_encoder()
    faster = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    for num_samples in (4000, 12_000):
        clips = noise(2, num_samples)
        torch.testing.assert_close(faster(clips).steps, encoder(clips).steps, atol=1e-5, rtol=0)
        torch.testing.assert_close(faster(clips).mean, encoder(clips).mean, atol=1e-5, rtol=0)
    faster(clips).mean.sum().backward()
    assert encoder.patches.projection.weight.grad.isfinite().all()


GOOD = torch.zeros(2, 4000)


@pytest.mark.parametrize(
    ("waveform", "lengths", "said"),
    [
        (np.zeros((2, 4000)), None, r"need a tensor \[batch, time\] .* got a ndarray. torch.from_numpy"),
        (GOOD[0], None, r"got \[4000\]. One clip is waveform\[None\]"),
        (GOOD[:, None], None, r"got \[2, 1, 4000\]. Average channels: waveform.mean\(1\)"),
        (GOOD[:, :0], None, r"got \[2, 0\]. Clips need a sample"),
        (GOOD.int(), None, r"got torch.int32. Divide by the full scale"),
        (GOOD.T, None, r"need time on the last axis, got an array \[4000, 2\]"),
        (GOOD.to("meta"), None, r"waveform: need it where the encoder is, on cpu, got it on meta"),
        (GOOD, [4000, 4000], r"lengths: need a tensor of 2 integers, one for each clip, got a list"),
        (GOOD, torch.tensor([4000]), r"lengths: need a tensor of 2 integers, .* got \[1\]"),
        (GOOD, torch.tensor([1.0, 0.5]), r"lengths: need a tensor of 2 integers"),
    ],
)
def test_what_the_module_cannot_take_is_one_line(waveform, lengths, said):
    with pytest.raises(ValueError, match=said) as raised:
        check_batch(waveform, lengths, torch.device("cpu"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("waveform", "said"),
    [
        ((GOOD, RATE), r"need samples and their rate as two arguments, .* embed\(\*pair\)"),
        ((GOOD, None), r"need samples and their rate as two arguments, got a pair of samples and None"),
        ("a.wav", r"need samples, got the path 'a.wav'. Use embed_file\(path\)"),
        (Path("a.wav"), r"need samples, got the path .*'a.wav'.*. Use embed_file\(path\)"),
        ({"array": [0.0]}, r"embed: need an array of samples or a list of clips, got a dict"),
        (None, r"embed: need an array of samples or a list of clips, got a NoneType"),
        (object(), r"embed: need an array of samples or a list of clips, got a object"),
    ],
)
def test_what_is_no_clip_is_one_line(waveform, said):
    with pytest.raises(ValueError, match=said) as raised:
        clips_of(waveform)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("rate", [None, "16000", [RATE, "x"], [RATE, None], [[RATE]], {}, object()])
def test_what_is_no_rate_is_one_line(rate):
    with pytest.raises(ValueError, match=r"^sample_rate: need whole Hz above 0, as a number, got ") as raised:
        rates_of(rate, 1)
    assert "\n" not in str(raised.value)


def test_clips_may_be_lists_of_lists(encoder):
    assert encoder.embed([[0.0, 0.1], [0.1]], RATE).shape == (2, encoder.dim)


@pytest.mark.parametrize(
    "made",
    [
        lambda clip: clip.requires_grad_(),
        lambda clip: clip.bfloat16().float(),
        lambda clip: clip.double(),
        lambda clip: [clip.requires_grad_()],
    ],
)
def test_tensors_are_embedded_like_arrays(encoder, made):
    clip = noise(4000).bfloat16().float()
    expected = encoder.embed(clip.numpy(), RATE)
    np.testing.assert_allclose(encoder.embed(made(clip), RATE), expected, atol=1e-6)
    assert np.array_equal(encoder.embed(noise(4000).bfloat16(), RATE), expected)


@pytest.mark.parametrize("device", ["gpu", "cuda:7", "tpu"])
def test_a_device_that_is_not_there_is_one_line(golden_folder, device):
    said = rf"^device: need one that this machine has \(cpu.*\), got '{device}'$"
    with pytest.raises(ValueError, match=said):
        matpac.load(golden_folder / "infer_state.pt", device=device, num_heads=2)
