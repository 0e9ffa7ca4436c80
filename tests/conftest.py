"""Fixtures for all tests. Tests of real recordings and golden values are skipped without them."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

PROJECT = Path(__file__).resolve().parent.parent


BEGIN_FIRST = (
    *("test_pipeline.py", "training/test_several_ranks.py", "flows/test_serve.py", "training/test_run.py"),
    *("training/test_fast_paths.py", "flows/test_stages.py", "flows/test_server.py"),
    *("encoder/test_files.py", "flows/test_reproduce.py", "prepare/test_build.py"),
)
"""Files that take longest. `make slow` gives whole files to its workers: none shall begin such a one last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {PROJECT / "tests" / name: rank for rank, name in enumerate(BEGIN_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def project() -> Path:
    return PROJECT


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def generator():
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny models train several times faster on one thread."""
    import torch

    torch.set_num_threads(1)


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, PROJECT.parent / default))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder} (set {variable})")
    return folder


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Values recorded from the authors' code."""
    return _folder("MATPAC_GOLDEN", "shared/golden")


@pytest.fixture(scope="session")
def audio_folder() -> Path:
    """Real recordings: esc10, fsdd, nsynth-test-mini, odd."""
    return _folder("MATPAC_AUDIO", "shared/audio")


@pytest.fixture(scope="session")
def splits_folder() -> Path:
    """Official split and label lists of public datasets."""
    return _folder("MATPAC_SPLITS", "shared/splits")
