"""What a damaged store's message tells users to type, followed to its end in a project of DVC."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from matpac.files import remedy
from matpac.probing.store import read_clips
from tests.files import flip_a_bit
from tests.probing.test_store import digests

pytestmark = pytest.mark.slow

EMBED = """
from pathlib import Path
from matpac.probing.store import write_embeddings
from tests.probing.test_store import features, three_clips

Path("runs.txt").open("a").write("embed ")
write_embeddings(Path("data/embeddings/birds"), three_clips(), features())
"""
STAGES = """
stages:
  train:
    cmd: echo "train " >> runs.txt && echo weights > weights
    outs: [weights]
  embed:
    foreach: [birds]
    do:
      cmd: python embed.py
      deps: [weights, embed.py]
      outs:
        - data/embeddings/${item}
"""


@pytest.fixture
def run(in_tmp, project):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project),
    }

    def run(command):
        subprocess.run(command, shell=True, check=True, env=environment, capture_output=True)

    Path("embed.py").write_text(EMBED)
    Path("dvc.yaml").write_text(STAGES)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n no_scm = true\n[cache]\n type = hardlink,symlink\n")
    run("dvc repro")
    return run


def test_a_damaged_checkpoint_comes_back_from_a_remote(run):
    """`docs/operations.md` says so; `remedy` would train again."""
    weights = Path("weights")
    run(f"dvc remote add --default away {Path('away').absolute()} && dvc push")
    flip_a_bit(weights)
    look_again = re.search("`(find .+?)`", remedy(weights, "train"))
    assert look_again is not None
    run(look_again[1])
    run("dvc pull --force train")
    assert weights.read_text() == "weights\n"
    run("dvc repro")
    assert Path("runs.txt").read_text().split() == ["train", "embed"]


def test_the_printed_remedy_mends_the_store_and_its_copy_in_the_cache_without_training(run):
    store = Path("data/embeddings/birds")
    whole = digests(store)
    flip_a_bit(store / "pretrained/c/0/0")
    (store / "random_init/c/0/0").unlink()
    with pytest.raises(ValueError, match="found no random_init/c/0/0") as refused:
        read_clips(store)
    for command in re.findall(r"`(.+?)`", str(refused.value)):
        run(command)
    assert digests(store) == whole
    read_clips(store)
    # From the cache alone, too.
    run("rm -r data/embeddings/birds && dvc checkout")
    assert digests(store) == whole
    assert Path("runs.txt").read_text().split() == ["train", "embed", "embed"]
