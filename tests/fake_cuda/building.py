"""cudart.c -> a library that stands in for CUDA's runtime, and processes that run with it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[2]


def built_in(folder: Path) -> Path:
    """The library; skips the test where it cannot be built."""
    if torch.version.cuda is None:
        pytest.skip("needs a PyTorch that was built for CUDA")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc)")
    packages = Path(torch.__file__).parents[1]
    places = [packages / "triton/backends/nvidia/include", Path("/usr/local/cuda/include")]
    headers = next((place for place in places if (place / "cuda_runtime_api.h").exists()), None)
    if headers is None:
        pytest.skip(f"needs CUDA's headers, found none in {' or '.join(map(str, places))}")
    library = folder / "cudart.so"
    # PyTorch opens the driver's library by this name, and takes one that is already there.
    flags = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", f"-I{headers}"]
    source = Path(__file__).with_name("cudart.c")
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return library


def seen(library: Path, module: str, what: str, **arguments: object) -> dict:
    """What `what(**arguments)` of a module returns, in a process with fake CUDA tensors."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.fake_cuda.running", module, what, json.dumps(arguments)],
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
