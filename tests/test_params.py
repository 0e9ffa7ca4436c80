import copy
import typing

import pytest
import yaml

from matpac.model import sizes
from matpac.params import (
    PATCH,
    PUBLIC_KINDS,
    WITH_MORE_KEYS,
    Folder,
    LogMel,
    MagnaTagATune,
    Other,
    Params,
    Public,
    Ramp,
    Section,
    SplitFractions,
    digest,
    load_params,
    parse_params,
)


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
        (
            "compute.micro_batch_size",
            0,
            "params: compute.micro_batch_size: need a whole number above 0 or auto, got 0",
        ),
        (
            "compute.residual",
            "bfloat16",
            "params: compute.residual: need float32 with pretrain.precision: float32, got bfloat16",
        ),
        ("pretrain.warmup_epochs", 1000, "warmup_epochs: need less than num_epochs"),
        (
            "pretrain.teacher_temperature_epochs",
            500,
            "params: pretrain.teacher_temperature_epochs: need pretrain.num_epochs (30) at most, got 500",
        ),
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
            "embed.others.ast: module: need a name as after `import`, not a file, got hear_ast.py",
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
        ("model.size", "huge", "params: model.size: input should be 'tiny', 'small', "),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_key(raw, key, value, complaint):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        parse_params(changed(raw, key, value))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "misspelt"),
    [
        ("pretrain", "alpha", "alhpa"),
        ("pretrain", "batch_size", "batchsize"),
        ("", "logmel", "log_mel"),
        ("datasets.demo_corpus", "num_clips", "clips"),
    ],
)
def test_a_misspelt_key_is_one_line_with_a_guess(raw, section, key, misspelt):
    wrong = copy.deepcopy(raw)
    place = wrong
    for name in filter(None, section.split(".")):
        place = place[name]
    place[misspelt] = place.pop(key)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        parse_params(wrong)
    where = ".".join(filter(None, (section, misspelt)))
    assert str(caught.value) == f"params: {where}: unknown key; did you mean {key}?"


def test_of_two_misspelt_keys_each_gets_its_own_guess(raw):
    wrong = copy.deepcopy(raw)
    for key, misspelt in (("weight_decay", "weight_decays"), ("weight_decay_on", "weight_decay_of")):
        wrong["pretrain"][misspelt] = wrong["pretrain"].pop(key)
    wrong["pretrain"]["colour"] = "blue"
    with pytest.raises(ValueError, match="colour") as caught:
        parse_params(wrong)
    assert str(caught.value).splitlines() == [
        "params: pretrain.weight_decays: unknown key; did you mean weight_decay?",
        "params: pretrain.weight_decay_of: unknown key; did you mean weight_decay_on?",
        "params: pretrain.colour: unknown key",
    ]


def sections(model):
    """All sections of a parameter file, and the kinds of datasets."""
    found = {model}
    for field in model.model_fields.values():
        waiting = [field.annotation]
        while waiting:
            one = waiting.pop()
            waiting += typing.get_args(one)
            if isinstance(one, type) and issubclass(one, Section):
                found |= sections(one)
    return found


def test_every_key_has_a_meaning():
    found = sections(Params)
    assert {LogMel, Ramp, Folder, Public, MagnaTagATune, SplitFractions, Other} < found
    without = [
        f"{section.__name__}.{key}"
        for section in found - {Params}
        for key, field in section.model_fields.items()
        if not field.description and key != "kind"
    ]
    assert without == []
    assert [
        section.__name__ for section in found if "__doc__" not in vars(section) or not section.__doc__
    ] == []


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


def test_a_name_that_is_not_under_datasets_is_refused_with_those_that_are(raw):
    params = parse_params(raw)
    assert params.source_of("demo_corpus") == params.datasets["demo_corpus"]
    with pytest.raises(ValueError, match=r"^need a name under `datasets` \(demo_corpus, .*\), got musik$"):
        params.source_of("musik")


def test_the_side_of_a_patch_is_the_models():
    assert sizes.PATCH == PATCH


def test_every_file_of_datasets_public_is_a_kind(raw, project):
    names = {path.stem for path in (project / "matpac/datasets/public").glob("*.py")} - {"__init__"}
    assert names == set(PUBLIC_KINDS)
    for kind in names - WITH_MORE_KEYS:
        assert parse_params(changed(raw, "datasets.new", {"kind": kind, "source": None})).source_of("new")


def test_an_unknown_kind_is_told_all_kinds(raw):
    with pytest.raises(ValueError, match=r"datasets\.new\.kind: need one of demo, .*; got mp3$") as caught:
        parse_params(changed(raw, "datasets.new", {"kind": "mp3", "source": None}))
    assert all(kind in str(caught.value) for kind in ("folder", *PUBLIC_KINDS))


def test_a_dataset_without_a_kind_is_told_so(raw):
    with pytest.raises(ValueError, match=r"^params: datasets\.new\.kind: this key is missing$"):
        parse_params(changed(raw, "datasets.new", {"source": None}))


def test_a_key_of_another_kind_is_refused(raw):
    section = {"kind": "gtzan", "source": None, "untagged": "keep"}
    with pytest.raises(ValueError, match=r"^params: datasets\.new\.untagged: unknown key$"):
        parse_params(changed(raw, "datasets.new", section))
