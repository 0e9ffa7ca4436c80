"""The paper's eight datasets from archives to scores: miniatures in the official layouts and formats."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from matpac.datasets import registry
from matpac.datasets.inventory import take_inventory, write_recordings
from matpac.files import read_json
from matpac.params import Embed, Params, load_params, parse_params
from matpac.prepare.build import build_shard
from matpac.prepare.plan import plan_dataset
from matpac.prepare.publish import Summary, publish
from matpac.probing.embed import embed_stage
from matpac.probing.external import Located
from matpac.probing.probe import probe
from matpac.shards.folder import ShardFolder
from matpac.walk import audio_files
from tests.checkpoints import untrained_checkpoint
from tests.datasets.public.miniatures import (
    audioset,
    esc50,
    fsd50k,
    gtzan,
    magnatagatune,
    nsynth,
    openmic,
    urbansound8k,
)
from tests.fetch.hostile import Fault, serve
from tests.recordings import LOGMEL, shards_params

MINIATURES = {
    "openmic": openmic,
    "nsynth": nsynth,
    "gtzan": gtzan,
    "magnatagatune": magnatagatune,
    "fsd50k": fsd50k,
    "esc50": esc50,
    "urbansound8k": urbansound8k,
}


def params_of(kind: str) -> Params:
    raw = load_params(Path("presets/demo.yaml")).model_dump(mode="json")
    section = {"kind": kind, "source": None}
    if kind == "magnatagatune":
        section["untagged"] = "keep"
    if kind == "audioset":
        section["source"] = "audio"
    raw["datasets"][kind] = section
    raw["probe"] |= {"datasets": [kind], "num_repeats": 2}
    raw["probe"] |= {"max_epochs": 60, "learning_rate": 0.05}
    return parse_params(raw)


def offer(kind: str, url: str, monkeypatch: pytest.MonkeyPatch, num_recordings: int | None) -> None:
    """Let the page name the miniature's files instead of the real ones."""
    reader = registry.READERS[kind]
    assert reader.page is not None
    archives = tuple(
        replace(
            archive,
            parts=tuple(
                # The first mirror is gone, as some of the real ones are.
                replace(
                    part,
                    urls=(f"{url}/gone/{part.name}", f"{url}/{part.name}"),
                    checksum=None,
                    num_bytes=None,
                )
                for part in archive.parts
            ),
        )
        for archive in reader.page.archives
    )
    page = replace(reader.page, archives=archives, num_recordings=num_recordings, content_digest=None)
    monkeypatch.setattr(reader.module, "PAGE", page)


def prepared(kind: str, params: Params) -> Summary:
    """The stages download and shards."""
    source = params.datasets[kind]
    reader, root = registry.READERS[kind], registry.recordings_root(kind, source)
    reader.fetch(source, root, None)
    write_recordings(Path("data/raw", kind), take_inventory(root, reader.stored_as))
    plan = plan_dataset(
        kind, source, Path("data/raw", kind), LOGMEL, shards_params(max_rejected_fraction=0.2)
    )
    for number in range(len(plan.shards)):
        assert build_shard(plan.job(number)) is not None
    return publish(plan, Path("data/shards", kind))


def scores_of(kind: str, params: Params) -> dict:
    """The stages embed and probe."""
    checkpoint = Path("checkpoint")
    checkpoint.mkdir(exist_ok=True)
    untrained_checkpoint(checkpoint)
    located = Located(Path("data/raw", kind), registry.recordings_root(kind, params.datasets[kind]))
    embeddings, out = Path("data/embeddings", kind), Path("data/scores", f"{kind}.json")
    embed_stage(
        Path("data/shards", kind),
        located,
        checkpoint,
        embeddings,
        Embed(precision="float32", batch_size=16, over_time=False, others={}),
    )
    probe(kind, embeddings, out, params.probe)
    return read_json(out)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MINIATURES)
def test_from_the_official_archives_to_scores(kind, tmp_path, monkeypatch):
    params = params_of(kind)
    (tmp_path / "site").mkdir()
    files = MINIATURES[kind].make(tmp_path / "site")
    page = registry.READERS[kind].page
    assert set(files) == {part.name for archive in page.archives for part in archive.parts}
    monkeypatch.chdir(tmp_path)
    with serve(tmp_path / "site") as site:
        offer(kind, site.url, monkeypatch, num_recordings=None)
        largest = max(files, key=lambda name: files[name].stat().st_size)
        site.misbehave(largest, Fault(cut_after=10_000), Fault(status=503, retry_after="0"))
        summary = prepared(kind, params)
        asked = len(site.requests)
        assert prepared(kind, params) == summary
        assert len(site.requests) == asked, "nothing is downloaded twice"

    root = registry.recordings_root(kind, params.datasets[kind])
    with Path("data/shards", kind, "rejected.csv").open(newline="") as table:
        rejected = [row["path"] for row in csv.DictReader(table)]
    used = ShardFolder(Path("data/shards", kind)).index.column("path")
    assert sorted([*used, *rejected]) == sorted(audio_files(root))

    task = read_json(Path("data/shards", kind, "task.json"))
    assert len(task["classes"]) == page.num_classes
    assert task["metric"] == page.metric
    assert page.protocol == (f"{task['num_folds']} folds" if task["num_folds"] else "train/validation/test")
    scores = scores_of(kind, params)
    # The clips of a class sound alike: even without training, what is embedded tells them apart.
    assert scores["logmel_statistics"] > 1.5 * scores["chance"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["files", "tars", "parquet"])
def test_audioset_in_every_form_that_people_have(form, tmp_path, monkeypatch):
    params = params_of("audioset")
    (tmp_path / "site").mkdir()
    audioset.make(tmp_path / "site")
    audioset.make_audio(tmp_path)[form].rename(tmp_path / "audio")
    monkeypatch.chdir(tmp_path)
    with serve(tmp_path / "site") as site:
        offer("audioset", site.url, monkeypatch, num_recordings=None)
        summary = prepared("audioset", params)
    assert summary.num_rejected == {"cannot be decoded": 1, "silent": 1}
    assert scores_of("audioset", params)["logmel_statistics"] > 0.5
    splits = Counter(ShardFolder(Path("data/shards/audioset")).index.column("split"))
    assert set(splits) == {"train", "validation", "test", None}
