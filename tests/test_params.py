import copy
import typing
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import parse_yaml

from matpac.datasets.registry import READERS, pages
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
    read_yaml,
    refuse_changes,
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


@pytest.mark.parametrize(
    "name",
    [
        *("demo", "paper", "instruments", "released", "matpac_plus", "m2d", "cheaper"),
        *("finetune_esc50", "finetune_as20k"),
    ],
)
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
        (
            "finetune.datasets",
            ["demo_corpus"],
            "finetune.datasets: need datasets with labels, got demo_corpus",
        ),
        ("finetune.datasets", ["musik"], "params: finetune.datasets: need names listed under `datasets` "),
        ("finetune.warmup_epochs", 60, "finetune: warmup_epochs: need less than num_epochs (60), got 60"),
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


def test_a_section_of_a_newer_version_is_found_in_the_preset(raw):
    without = {key: section for key, section in raw.items() if key != "finetune"}
    said = r"^params: finetune: this key is missing. Copy it from presets/demo.yaml.$"
    with pytest.raises(ValueError, match=said):
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


@pytest.fixture
def complaint(project, tmp_path):
    """What loading says of the default parameters with another line 71; 71 and 72 are its places."""
    lines = (project / "presets/demo.yaml").read_bytes().split(b"\n")
    assert lines[70] == b"  alpha: 0.5"

    def complain(line: str | bytes) -> str:
        lines[70] = line if isinstance(line, bytes) else line.encode()
        path = tmp_path / "params.yaml"
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared by the caller
            load_params(path)
        return str(caught.value).replace(str(path), "FILE").replace("FILE, line 71: ", "HERE ")

    return complain


NUMBER = "need a decimal number without leading zeros, below 2^63, or text in quotes, found"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "  alpha: 0.5\n  alpha: 1.0",
            "FILE, line 72: pretrain.alpha: need each key once, found it in line 71",
        ),
        ("  alpha: 010", f"HERE pretrain.alpha: {NUMBER} 010"),
        ("  alpha: 0o10", f"HERE pretrain.alpha: {NUMBER} 0o10"),
        ("  alpha: 0x1F", f"HERE pretrain.alpha: {NUMBER} 0x1F"),
        ("  alpha: 1_000", f"HERE pretrain.alpha: {NUMBER} 1_000"),
        ("  alpha: [0, 08]", f"HERE pretrain.alpha.1: {NUMBER} 08"),
        ("  alpha: 1180591620717411303424", f"HERE pretrain.alpha: {NUMBER} 1180591620717411303424"),
        ("  alpha: 9223372036854775808", f"HERE pretrain.alpha: {NUMBER} 9223372036854775808"),
        ("  alpha: .nan", f"HERE pretrain.alpha: {NUMBER} .nan"),
        ("  alpha: 2026-11-27", f"HERE pretrain.alpha: {NUMBER} 2026-11-27"),
        ("  <<: {alpha: 0.5}", f"HERE pretrain: {NUMBER} <<"),
        ("  alpha: *a", "HERE pretrain.alpha: need a value named &a above, found none"),
        ("  alpha: &a [*a]", "HERE pretrain.alpha.0: need a value named &a above, found none"),
        (
            "  alpha: !!float 1",
            "HERE pretrain.alpha: need a value without a tag, found tag:yaml.org,2002:float",
        ),
        ("  5: 0.5", "HERE pretrain.5: need a name, in quotes if it is no word"),
        ("  alpha:\t0.5", r"HERE need spaces, not tabs, found 'alpha:\t0.5'"),
        ("%YAML 1.1", "HERE need no directives, found '%YAML 1.1'"),
        (b"  alpha: 0.5 # \xe9", r"HERE need printable UTF-8, found 'alpha: 0.5 # \xe9'"),
        (b"  alpha: 0.5 # \0", r"HERE need printable UTF-8, found 'alpha: 0.5 # \x00'"),
        (
            "  alpha: 0.5 # \u2028  seed: 5",
            r"HERE need printable UTF-8, found 'alpha: 0.5 # \u2028  seed: 5'",
        ),
        ("  alpha: [0.5", "FILE, line 72: not YAML: expected ',' or ']', but got ':'"),
        (f"  alpha: {'[' * 1000}", "FILE: need a few levels, found hundreds"),
        ("---", "FILE, line 72: need one document, found another after ---"),
        ("  alpha: '0.5'", "FILE: pretrain.alpha: input should be a valid number, got '0.5'"),
        ("  alpha: true", "FILE: pretrain.alpha: input should be a valid number, got True"),
        ("  alpha: 1e400", "FILE: pretrain.alpha: input should be a finite number, got inf"),
    ],
)
def test_what_readers_of_yaml_take_differently_is_one_line_with_file_line_and_key(complaint, line, said):
    assert complaint(line) == said


def test_utf_16_is_refused(project, tmp_path):
    text = (project / "presets/demo.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text, encoding="utf-16")
    with pytest.raises(ValueError, match=r"params.yaml, line 1: need printable UTF-8, found "):
        load_params(tmp_path / "params.yaml")


def test_whatever_is_read_is_what_dvc_reads(tmp_path):
    """Texts that numbers are made of, and words that versions of YAML take differently."""
    texts = ["".join(parts) for length in (1, 2, 3) for parts in product("01.-_e", repeat=length)]
    texts += [
        "yes",
        "No",
        "on",
        "y",
        "True",
        "FALSE",
        "tRUE",
        "~",
        "NULL",
        "nULL",
        "",
        "1:30",
        "0b1",
        "0xf",
        "0o1",
        "-0o1",
    ]
    texts += [".inf", "-.INF", ".NaN", "2026-1-2", "2026-01-02 03:04:05", "=", "12.5e-3", "./a", "16khz"]
    texts += [
        "0 5 * * *",
        "1e-3",
        "1.5E5",
        f"{2**63 - 1}",
        f"-{2**63}",
        "01.5",
        "'010'",
        '"\\t"',
        "a b",
        "1,5",
    ]
    path, ours = tmp_path / "file.yaml", {}
    for text in texts:
        path.write_text(f"a: {text}")
        with suppress(ValueError):
            ours[text] = read_yaml(path)["a"]
    theirs = {text: parse_yaml(f"a: {text}", path)["a"] for text in ours}
    assert {text: repr(value) for text, value in ours.items()} == {
        text: repr(value) for text, value in theirs.items()
    }
    read = {"0", "-1", "1.0", "1e1", "-.1", "yes", "on", "16khz", "1:30", "./a", "'010'", "1e-3", "0 5 * * *"}
    assert read < ours.keys()
    assert not ours.keys() & {"00", "0_1", "01", "0xf", "0b1", "0o1", ".inf", "2026-1-2", "=", f"-{2**63}"}


def test_a_value_may_be_named_and_used_again(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("a: &x [1, 2]\nb: *x\nc: {d: &y 1e-3, e: *y}")
    assert (
        read_yaml(path)
        == parse_yaml(path.read_text(), path)
        == {
            "a": [1, 2],
            "b": [1, 2],
            "c": {"d": 0.001, "e": 0.001},
        }
    )


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_lacks_everything(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"params.yaml: \(top level\): input should be an object, got None$"):
        load_params(tmp_path / "params.yaml")


def test_line_ends_and_marks_of_windows_are_read(project, tmp_path):
    text = (project / "presets/demo.yaml").read_text()
    (tmp_path / "params.yaml").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert load_params(tmp_path / "params.yaml") == load_params(project / "presets/demo.yaml")


OWN = {"kind": "folder", "source": "mine", "num_folds": None, "split_fractions": None}


@pytest.mark.parametrize(
    ("section", "found"),
    [
        (OWN | {"labels": "folders", "multi_label": True}, "several"),
        (OWN | {"labels": "none", "multi_label": False}, "none"),
        (OWN | {"kind": "tar", "labels": "none", "multi_label": True}, "none"),
        ({"kind": "demo", "recipe": "scenes", "num_clips": 60, "seed": 0}, "several"),
        ({"kind": "demo", "recipe": "corpus", "num_clips": 60, "seed": 0}, "none"),
        ({"kind": "magnatagatune", "source": None, "untagged": "keep"}, "several"),
        ({"kind": "fsd50k", "source": None}, "several"),
    ],
)
def test_an_online_dataset_without_one_label_a_clip_is_refused(raw, section, found):
    wrong = changed(changed(raw, "datasets.new", section), "online.dataset", "new")
    line = rf"^params: online.dataset: need a dataset whose clips have one label each, got new with {found}$"
    with pytest.raises(ValueError, match=line):
        parse_params(wrong)


def test_the_labels_of_a_dataset_are_known_as_its_module_knows_them(raw):
    for kind, page in pages().items():
        section = {"kind": kind, "source": "here"} | ({"untagged": "keep"} if kind == "magnatagatune" else {})
        several = parse_params(changed(raw, "datasets.new", section)).labels_of("new") == "several"
        assert several == (page.metric == "mAP"), kind
    params = parse_params(raw)
    for name in ("demo_melodies", "demo_rhythms", "demo_scenes"):
        task = READERS["demo"].task(params.source_of(name), Path(), (), None)
        assert (params.labels_of(name) == "several") == task.multi_label


def test_recordings_seen_twice_an_epoch_are_refused(raw):
    for key in ("pretrain.datasets", "probe.datasets"):
        with pytest.raises(
            ValueError, match=rf"^params: {key}: need each dataset once, got demo_rhythms, demo_"
        ):
            parse_params(changed(raw, key, ["demo_rhythms", "demo_rhythms"]))
    twice = changed(raw, "datasets.again", raw["datasets"]["demo_corpus"])
    with pytest.raises(
        ValueError, match=r"need each dataset once, got demo_corpus and again, which are the same"
    ):
        parse_params(changed(twice, "pretrain.datasets", ["demo_corpus", "again"]))


def test_a_batch_larger_than_the_set_is_refused_if_the_set_is_known(raw):
    line = r"^params: pretrain.batch_size: need at most the 1500 clips of pretrain.datasets, got 1501$"
    with pytest.raises(ValueError, match=line):
        parse_params(changed(raw, "pretrain.batch_size", 1501))
    parse_params(changed(raw, "pretrain.batch_size", 1500))
    unknown = changed(raw, "datasets.new", OWN | {"labels": "none", "multi_label": False})
    unknown = changed(unknown, "pretrain.datasets", ["demo_corpus", "new"])
    assert parse_params(changed(unknown, "pretrain.batch_size", 1501))


@pytest.mark.parametrize(
    ("key", "value", "keys", "named"),
    [
        ("pretrain.alpha", 0.25, ["model", "pretrain"], "pretrain.alpha"),
        ("datasets.demo_scenes.seed", 9, ["datasets.demo_scenes"], "datasets.demo_scenes.seed"),
        ("datasets.demo_scenes.seed", 9, ["datasets.demo_melodies"], None),
        ("probe.learning_rate", 0.002, ["logmel", "pretrain"], None),
        ("shards.num_workers", 1, ["shards.format"], None),
    ],
)
def test_a_result_does_not_count_if_what_it_depends_on_was_edited_meanwhile(
    raw, tmp_path, key, value, keys, named
):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed(raw, key, value)))
    if named is None:
        refuse_changes(path, parse_params(raw), *keys)
    else:
        with pytest.raises(ValueError, match=rf"^{path}: {named} changed while this ran\. .*Run again"):
            refuse_changes(path, parse_params(raw), *keys)


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_own_data_needs_a_kind_and_a_source_only(raw, kind):
    section = {"kind": kind, "source": "mine"}
    found = parse_params(changed(raw, "datasets.new", section)).datasets["new"]
    assert found.model_dump(exclude={"label_column"}) == section | {
        "labels": "none",
        "multi_label": False,
        "splits": "auto",
        "num_folds": 5,
        "split_fractions": None,
        "join_copies": False,
    }
    fractions = {"validation": 0.1, "test": 0.2}
    found = parse_params(changed(raw, "datasets.new", section | {"split_fractions": fractions})).datasets[
        "new"
    ]
    assert (found.num_folds, found.split_fractions.test) == (None, 0.2)
    with pytest.raises(ValueError, match=r"datasets.new: need num_folds or split_fractions, got both"):
        parse_params(changed(raw, "datasets.new", section | {"num_folds": 5, "split_fractions": fractions}))
    with pytest.raises(
        ValueError, match=r"got new, which has none. Set datasets.new.labels; `matpac inspect new` says what"
    ):
        parse_params(changed(changed(raw, "datasets.new", section), "probe.datasets", ["new"]))


def test_settings_are_not_chosen_on_validation_clips_beside_fine_tuning_on_test_clips():
    raw = yaml.safe_load(Path("presets/demo.yaml").read_text())
    raw["probe"]["score_on"] = "validation"
    parse_params(raw)
    raw["finetune"]["datasets"] = ["demo_melodies"]
    with pytest.raises(ValueError, match=r"finetune.datasets: need \[\] with probe.score_on: validation"):
        parse_params(raw)
