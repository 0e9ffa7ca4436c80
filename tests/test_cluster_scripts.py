"""The scripts for clusters: Bash understands them, and so do the programs that they start."""

import os
import re
import subprocess

import pytest
import typer
from torch.distributed.run import get_args_parser

from matpac.cli import app

STAND_INS = {
    "scontrol": 'test "$*" = "show hostnames gpu[1-2]" && printf "gpu1\\ngpu2\\n"',
    "srun": 'test "$1 $2" = "--cpus-per-task 32" && shift 2 && exec "$@"',
    "torchrun": 'printf "%s\\n" "$@"',
}
SLURM = {
    "SLURM_JOB_NODELIST": "gpu[1-2]",
    "SLURM_NNODES": "2",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_CPUS_PER_TASK": "32",
    "SLURM_JOB_ID": "7",
}
SBATCH = re.compile(r"^#SBATCH --([a-z-]+)=(\S+)$", re.MULTILINE)
SBATCH_OPTIONS = {
    *("cpus-per-task", "dependency", "gpus-per-node", "job-name", "nodes", "ntasks-per-node"),
    *("signal", "time"),
}
"""As `man sbatch` names them."""
SCRIPTS = {"slurm.sh": [], "several_machines.sh": ["gpu1", "2", "8"]}


@pytest.fixture
def bash(project, tmp_path):
    """Run a script with stand-ins for the programs of a cluster."""
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | SLURM | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    def run(*words):
        return subprocess.run(
            ["bash", *words], cwd=project / "docs/examples", env=environment, capture_output=True, text=True
        )

    return run


def test_every_script_is_tried(project):
    assert {path.name for path in (project / "docs/examples").glob("*.sh")} == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_can_read_it(bash, script):
    done = bash("-n", script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("script", "arguments"), SCRIPTS.items())
def test_torchrun_and_matpac_understand_it(bash, script, arguments):
    done = bash(script, *arguments)
    assert done.returncode == 0, done.stderr
    found = get_args_parser().parse_args(done.stdout.splitlines())
    assert (found.nnodes, found.nproc_per_node, found.rdzv_endpoint) == ("2", "8", "gpu1:29500")
    assert (found.module, found.training_script) == (True, "matpac")
    command, *rest = found.training_script_args
    typer.main.get_command(app).get_command(None, command).make_context(command, rest)


def test_slurm_knows_the_options(project):
    options = dict(SBATCH.findall((project / "docs/examples/slurm.sh").read_text()))
    assert set(options) == SBATCH_OPTIONS
    assert options["ntasks-per-node"] == "1"  # torchrun starts a process for each GPU


def test_without_arguments_it_says_which(bash):
    done = bash("several_machines.sh")
    assert done.returncode == 2
    assert "FIRST_MACHINE NUM_MACHINES GPUS_OF_EACH" in done.stderr
