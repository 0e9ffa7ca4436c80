"""Classifiers by themselves, with heads that were not trained."""

import json
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from scipy.special import expit, softmax

import matpac
from matpac.classifier.distances import distances, references_of, usual_distance
from matpac.classifier.heads import LinearHead
from tests.classifiers import CLASSES, tiny_classifier, tiny_encoder

RATE = 16_000


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("checkpoint"))


def noise(*lengths, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(scale=0.1, size=length).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_are_those_of_the_head_on_embeddings_of_what_shards_hold(encoder, multi_label):
    classifier = tiny_classifier(encoder, multi_label=multi_label)
    clips = noise(20_000, 52_000)
    log_mels = [encoder.log_mel(clip, RATE).astype(np.float16) for clip in clips]
    means = torch.from_numpy(np.stack(list(encoder.embed_log_mels(log_mels))))
    head = classifier.head
    with torch.no_grad():
        logits = ((means - head.mean) * head.factor) @ head.weight.T + head.bias
        logits = logits.numpy()
    found = classifier.predict(clips, RATE)
    expected = expit(logits / 1.5) if multi_label else softmax(logits / 1.5, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert multi_label or found.sum(1) == pytest.approx(1)


def test_attention_reads_all_steps_and_changes_the_answer(encoder):
    attentive, linear = tiny_classifier(encoder, "attentive"), tiny_classifier(encoder)
    for classifier in (attentive, linear):
        classifier.head.weight.data /= 10
    attentive.head.queries.data *= 200
    clips = noise(20_000, 52_000)
    with_queries = attentive.predict(clips, RATE)
    attentive.head.queries.data.zero_()
    even = attentive.predict(clips, RATE)
    # Attention is even without queries, and steps are rounded to float16.
    np.testing.assert_allclose(even, linear.predict(clips, RATE), atol=5e-4)
    assert np.abs(with_queries - even).max() > 2e-3


@pytest.mark.parametrize("kind", ["linear", "attentive"])
def test_logits_of_a_batch_are_those_that_predict_turns_into_probabilities(encoder, kind):
    classifier = tiny_classifier(encoder, kind)
    clips = noise(20_000, 52_000)
    batch = torch.zeros(2, 52_000)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    batch.requires_grad_()
    logits = classifier(batch, torch.tensor([20_000, 52_000]))
    # Their log-mels are not rounded.
    found = softmax(logits.detach().numpy() / 1.5, axis=1)
    np.testing.assert_allclose(found, classifier.predict(clips, RATE), atol=2e-3)
    logits[0].square().sum().backward()
    assert batch.grad[0, :20_000].abs().min(0).values.max() >= 0
    assert batch.grad[0, :20_000].abs().sum() > 0
    assert batch.grad[0, 20_000:].abs().sum() == batch.grad[1].abs().sum() == 0
    assert all(parameter.grad is not None for parameter in classifier.head.parameters())
    assert encoder.encoder.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    classifier.zero_grad()


def test_clips_are_refused_as_by_embed(encoder):
    classifier = tiny_classifier(encoder)
    for wrong in (np.zeros(100, dtype=np.int16), np.full(4000, np.nan), np.zeros(0)):
        with pytest.raises(ValueError, match=r"^embed: need ") as by_embed:
            encoder.embed(wrong, RATE)
        for call in (classifier.predict, classifier.predict_in_time, classifier.unlike):
            with pytest.raises(ValueError, match=r"^embed: need ") as found:
                call(wrong, RATE)
            assert str(found.value) == str(by_embed.value)


def test_steps_are_the_head_on_each_step_averaged_over_the_window(encoder):
    classifier = tiny_classifier(encoder, multi_label=True)
    [clip] = noise(40_000)
    [alone] = classifier.predict_in_time(clip, RATE, window_ms=0)
    [timed] = encoder.embed_in_time(clip, RATE)
    with torch.no_grad():
        scaled = (torch.from_numpy(timed.embeddings) - classifier.head.mean) * classifier.head.factor
        logits = (scaled @ classifier.head.weight.T + classifier.head.bias).numpy()
    np.testing.assert_allclose(alone.probabilities, expit(logits / 1.5), atol=5e-3)
    np.testing.assert_array_equal(alone.centers_ms, timed.centers_ms)
    [wide] = classifier.predict_in_time(clip, RATE)
    np.testing.assert_allclose(wide.probabilities[4], expit(logits[2:7].mean(0) / 1.5), atol=5e-3)
    np.testing.assert_allclose(wide.probabilities[0], expit(logits[:3].mean(0) / 1.5), atol=5e-3)


def test_events_end_with_the_clip(encoder):
    classifier = tiny_classifier(encoder, multi_label=True, thresholds=np.zeros(3))
    for event in classifier.predict_in_time(noise(40_000)[0], RATE)[0].events:
        assert event.onset_s == 0
        assert 2.48 < event.offset_s <= 2.5


def test_a_training_clip_is_like_the_training_data_and_another_sound_is_not(encoder):
    clips = noise(*[30_000] * 6)
    means = torch.from_numpy(encoder.embed(clips, RATE))
    head = LinearHead(torch.zeros(3, encoder.dim), torch.zeros(3), means.mean(0), 1 / means.std(0))
    references = references_of(means, head, np.random.default_rng(0))
    usual = usual_distance(distances(means, head, references).numpy())
    classifier = tiny_classifier(encoder, references=references, usual_distance=usual)
    classifier.head = head
    tone = np.sin(np.arange(30_000) * 0.2).astype(np.float32)
    ratios = classifier.unlike([*clips, tone], RATE)
    assert ratios[:-1].max() == pytest.approx(1, abs=0.02)
    assert ratios[-1] > 3
    with pytest.raises(ValueError, match=r"^unlike: need reference embeddings"):
        tiny_classifier(encoder, references=None, usual_distance=None).unlike(tone, RATE)


@pytest.mark.parametrize("kind", ["linear", "attentive"])
def test_a_saved_classifier_says_the_same(encoder, tmp_path, kind):
    classifier = tiny_classifier(encoder, kind)
    classifier.save_pretrained(tmp_path / "saved")
    again = matpac.load_classifier(tmp_path / "saved", device="cpu")
    clips = noise(20_000, 52_000)
    np.testing.assert_array_equal(again.predict(clips, RATE), classifier.predict(clips, RATE))
    np.testing.assert_array_equal(again.unlike(clips, RATE), classifier.unlike(clips, RATE))
    for one, other in zip(
        again.predict_in_time(clips, RATE), classifier.predict_in_time(clips, RATE), strict=True
    ):
        assert one.events == other.events
    assert (again.classes, again.scores, again.origin) == (CLASSES, classifier.scores, classifier.origin)
    assert matpac.load(tmp_path / "saved", device="cpu").digest() == encoder.digest()
    again.save_pretrained(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()
    }


def test_the_card_says_what_was_measured_and_its_code_runs(encoder, tmp_path):
    measured = {"metric": "accuracy", "mean": 0.786, "interval": 0.005, "protocol": "5-fold"}
    classifier = tiny_classifier(encoder, scores=measured)
    classifier.save_pretrained(tmp_path / "saved", model_card_kwargs={"license": "cc-by-4.0"})
    card = (tmp_path / "saved/README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["pipeline_tag"], head["license"]) == ("audio-classification", "cc-by-4.0")
    assert "78.6 ± 0.5 % accuracy (5-fold) on clips that were held out," in card
    assert "| high, loud | 0.400 |" in card
    assert "| dataset | birds |" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    found = {"waveform": noise(RATE)[0], "sample_rate": RATE}
    exec(code.replace("a folder, or user/repository", str(tmp_path / "saved")), found)
    assert found["probabilities"].shape == (1, 3)
    assert found["unlike"].shape == (1,)
    with pytest.raises(TypeError, match="'licence'"):
        classifier.save_pretrained(tmp_path / "other", model_card_kwargs={"licence": "cc-by-4.0"})
    assert not (tmp_path / "other").exists()


def test_a_classifier_is_copied_and_cast_as_any_module(encoder):
    classifier = tiny_classifier(encoder)
    copy = deepcopy(classifier).double().float()
    [clip] = noise(20_000)
    np.testing.assert_array_equal(copy.predict(clip, RATE), classifier.predict(clip, RATE))
    np.testing.assert_allclose(copy.half().predict(clip, RATE), classifier.predict(clip, RATE), atol=0.02)
    names = {name.partition(".")[0] for name in classifier.state_dict()}
    assert names == {"encoder", "head", "references"}


WRONG = {
    "temperature": (0.0, "temperature: input should be greater than 0, got 0.0"),
    "thresholds": ([0.5, 0.5], "thresholds: need one for each of 3 classes, got 2"),
    "classes": (["a", "b", "a"], "classes: need names that occur once, got 'a' twice"),
    "multi_label": ("no", "multi_label: input should be a valid boolean, got 'no'"),
    "head": ("quadratic", "head: input should be 'linear' or 'attentive', got 'quadratic'"),
    "encoder": ("0" * 64, r"encoder: need the encoder that the head was trained with \(00000000...\), found"),
    "format": (2, "format: need 1, found 2"),
    "volume": (1, "volume: unknown key"),
}


@pytest.mark.parametrize("key", WRONG)
def test_an_edited_description_is_refused_in_one_line(encoder, tmp_path, key):
    tiny_classifier(encoder).save_pretrained(tmp_path)
    path, (value, said) = tmp_path / "classifier.json", WRONG[key]
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=f"^{path}: {said}") as error:
        matpac.load_classifier(tmp_path, device="cpu")
    assert "\n" not in str(error.value)


TENSORS = {
    "weight": (torch.zeros(3, 4), r"weight: need \[3, 16\], which fits .* found \[3, 4\]"),
    "bias": (torch.full((3,), torch.nan), "bias: need finite numbers, found NaN or infinity in 3 of 3"),
    "mean": (None, r"mean: need \[16\], .* found not there"),
    "references": (torch.zeros(5, 3), r"references: need \[5, 16\], .* found \[5, 3\]"),
    "queries": (torch.zeros(2, 16), r"queries: need not there, .* found \[2, 16\]"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_damaged_tensors_are_refused_in_one_line(encoder, tmp_path, name):
    tiny_classifier(encoder).save_pretrained(tmp_path)
    path, (value, said) = tmp_path / "classifier.safetensors", TENSORS[name]
    tensors = load_file(path) | {name: value}
    save_file({name: value for name, value in tensors.items() if value is not None}, path)
    with pytest.raises(ValueError, match=f"^{path}: {said}") as error:
        matpac.load_classifier(tmp_path, device="cpu")
    assert "\n" not in str(error.value)


def test_a_folder_without_a_classifier_is_named(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^{tmp_path}: need a classifier that .* found no classifier.json$"):
        matpac.load_classifier(tmp_path)


def test_a_head_that_reads_deviations_says_the_same_whole_saved_and_with_gradients(encoder, tmp_path):
    classifier, clips = tiny_classifier(encoder, pooling="mean_and_deviation"), noise(20_000, 52_000)
    log_mels = [encoder.log_mel(clip, RATE).astype(np.float16) for clip in clips]
    pooled = torch.from_numpy(np.stack(list(encoder.embed_log_mels(log_mels, pooling="mean_and_deviation"))))
    head = classifier.head
    with torch.no_grad():
        logits = (((pooled - head.mean) * head.factor) @ head.weight.T + head.bias).numpy()
        [alone, _] = (classifier(torch.from_numpy(clip)[None])[0].numpy() for clip in clips)
    found = classifier.predict(clips, RATE)
    np.testing.assert_allclose(found, softmax(logits / 1.5, axis=1), rtol=1e-4)
    np.testing.assert_allclose(softmax(alone / 1.5), found[0], atol=5e-3)
    classifier.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "classifier.json").read_text())["pooling"] == "mean_and_deviation"
    saved = matpac.load_classifier(tmp_path, device="cpu")
    np.testing.assert_array_equal(saved.predict(clips, RATE), found)
    np.testing.assert_allclose(saved.unlike(clips, RATE), classifier.unlike(clips, RATE), rtol=1e-4)
    assert "| pooling | mean and deviation |" in (tmp_path / "README.md").read_text()


def test_in_time_such_a_head_reads_a_step_with_three_neighbors_on_either_side(encoder):
    classifier, [clip] = tiny_classifier(encoder, pooling="mean_and_deviation"), noise(52_000)
    log_mel = encoder.log_mel(clip, RATE).astype(np.float16)
    [over_time] = encoder.embed_log_mels_in_time([log_mel])
    windows = [over_time.steps[max(n - 3, 0) : n + 4] for n in range(len(over_time.steps))]
    pooled = torch.from_numpy(np.stack([np.concatenate([one.mean(0), one.std(0)]) for one in windows]))
    with torch.no_grad():
        expected = softmax(classifier.head.of_pooled(pooled).numpy() / 1.5, axis=1)
    [found] = classifier.predict_in_time(clip, RATE, window_ms=0)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)


def test_an_older_description_means_the_mean(encoder, tmp_path):
    classifier, [clip] = tiny_classifier(encoder), noise(20_000)
    classifier.save_pretrained(tmp_path)
    about = json.loads((tmp_path / "classifier.json").read_text())
    del about["pooling"]
    (tmp_path / "classifier.json").write_text(json.dumps(about))
    found = matpac.load_classifier(tmp_path, device="cpu").predict(clip, RATE)
    np.testing.assert_array_equal(found, classifier.predict(clip, RATE))
