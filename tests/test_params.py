import copy

import pytest
import yaml

from matpac.params import digest, load_params, parse_params


@pytest.fixture(scope="module")
def raw(project):
    return yaml.safe_load((project / "presets/demo.yaml").read_text())


def changed(raw, key, value):
    raw = copy.deepcopy(raw)
    *parents, last = key.split(".")
    section = raw
    for name in parents:
        section = section[name]
    section[last] = value
    return raw


@pytest.mark.parametrize("name", ["demo", "paper", "esc10", "released", "matpac_plus", "m2d", "cheaper"])
def test_the_shipped_files_are_valid(project, name):
    assert load_params(project / f"presets/{name}.yaml")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("pretrain.alhpa", 0.5, "params: pretrain.alhpa: unknown key"),
        ("pretrain.alpha", 2, "params: pretrain.alpha: input should be less than or equal to 1, got 2"),
        ("pretrain.alpha", "much", "pretrain.alpha: input should be a valid number"),
        (
            "logmel.num_mels",
            81,
            "params: logmel: num_mels: need a multiple of 16 (patches are 16 x 16), got 81",
        ),
        (
            "logmel.fmax_hz",
            9000,
            "params: logmel: need fmin_hz < fmax_hz <= 8000 Hz (half the sample rate), got 50 and 9000",
        ),
        ("pretrain.crop_frames", 600, "params: pretrain: crop_frames: need a multiple of 16"),
        ("compute.micro_batch_size", 0, "micro_batch_size: input should be greater than 0, got 0"),
        ("pretrain.warmup_epochs", 1000, "warmup_epochs: need less than num_epochs"),
        (
            "pretrain.num_epochs",
            0,
            "pretrain: num_epochs: need more than 0, or weights in `init` to be taken as they are, got 0",
        ),
        ("pretrain.datasets", [], "pretrain: datasets: need one at least, or num_epochs: 0, got none"),
        (
            "embed.others",
            {"labels": {"module": "hear_ast", "model": None}},
            "params: embed: others: need names other than pretrained, random_init, logmel_statistics, ids, ",
        ),
        (
            "embed.others",
            {"ast": {"module": "hear_ast.py", "model": None}},
            "embed.others.ast: module: need a name as after `import`, no path of a file, got hear_ast.py",
        ),
        ("embed.others", {"ast": {"module": "./hear-ast", "model": None}}, "need a name as after `import`"),
        ("embed.others", {"ast": {"module": "hear_ast"}}, "embed.others.ast.model: this key is missing"),
        ("pretrain.init", 5, "pretrain.init: input should be a valid string, got 5"),
        ("pretrain.encoder_decay.last", 1.5, "encoder_decay: need values from 0 to 1"),
        ("pretrain.teacher_temperature.first", 0, "teacher_temperature: need values above 0"),
        (
            "pretrain.datasets",
            ["musik"],
            "params: pretrain.datasets: need names listed under `datasets` "
            "(demo_corpus, demo_melodies, demo_rhythms, demo_scenes), got musik",
        ),
        ("probe.attentive", 8, "params: probe.attentive: need embed.over_time: true, got false"),
        ("online.dataset", "musik", "params: online.dataset: need names listed under `datasets` "),
        ("logmel.window_ms", 0.025, "logmel: window_ms: need milliseconds that hold a sample at 16000 Hz"),
        ("probe.datasets", ["demo_corpus"], "probe.datasets: need datasets with labels, got demo_corpus"),
        ("model.mask_ratio", 0.99, "need visible and masked patches among the 65 of a crop, got 0.99"),
        ("datasets.demo_corpus.kind", "mp3", "params: datasets.demo_corpus.kind: need one of demo, folder, "),
        ("model.size", "huge", "params: model.size: input should be 'tiny' or 'base', got 'huge'"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_key(raw, key, value, complaint):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        parse_params(changed(raw, key, value))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(raw):
    without = copy.deepcopy(raw)
    del without["probe"]["num_repeats"]
    with pytest.raises(ValueError, match=r"^params: probe.num_repeats: this key is missing$"):
        parse_params(without)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"no such file. Run from the project's folder"):
        load_params(tmp_path / "params.yaml")


def test_a_digest_depends_on_values_and_nothing_else(raw):
    first, again = parse_params(raw), parse_params(copy.deepcopy(raw))
    other = parse_params(changed(raw, "logmel.num_mels", 64))
    assert digest(first.logmel, {"b": 1, "a": 2}) == digest(again.logmel, {"a": 2, "b": 1})
    assert digest(first.logmel) != digest(other.logmel)
