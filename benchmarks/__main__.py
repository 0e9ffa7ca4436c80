"""All benchmarks, or those named: python -m benchmarks [feeding probing ...]

Each benchmark runs in a process of its own. The figures go to
benchmarks/results/<date>-<machine>.json and into the table of benchmarks/README.md. Figures of the
same day from benchmarks that are not named stay.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.claims import COLUMNS, Claim

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "benchmarks/results"
PAGE = PROJECT / "benchmarks/README.md"
NAMES = ("preparing", "feeding", "training", "sharing", "embedding", "probing", "startup", "machinery")
BEGIN, END = "<!-- benchmarks -->\n", "<!-- end of benchmarks -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; default: all")
    names = parser.parse_args().names or [
        name for name in NAMES if (PROJECT / f"benchmarks/{name}.py").exists()
    ]
    if unknown := set(names) - set(NAMES):
        parser.error(f"need names among {', '.join(NAMES)}; got {min(unknown)}")

    out = RESULTS / f"{date.today()}-{machine_name()}.json"
    results = json.loads(out.read_text()) if out.exists() else {"claims": {}}
    results |= {"machine": machine(), "git_revision": git_revision()}
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        started = time.monotonic()
        claims = measured(name)
        print(f"   {time.monotonic() - started:.0f} s\n", flush=True)
        if claims is None:
            failed.append(name)
            continue
        results["claims"][name] = claims
        RESULTS.mkdir(exist_ok=True)
        out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    show(results, out)
    print(f"{out.relative_to(PROJECT)} and the table of {PAGE.relative_to(PROJECT)} are written.")
    if failed:
        print(f"These failed: {', '.join(failed)}")
    return len(failed)


def measured(name: str) -> list[dict[str, Any]] | None:
    """The claims of a benchmark; None if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        claims = Path(folder, "claims.json")
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(claims)]
        if subprocess.run(command, cwd=PROJECT, check=False).returncode != 0:
            return None
        return json.loads(claims.read_text())


def show(results: dict[str, Any], out: Path) -> None:
    """Put a table of the claims that have a goal between the marks of the page.

    `out` is named by the date and the machine.
    """
    cpu = f"{results['machine']['cores']} cores of {results['machine']['processor']}"
    where = results["machine"]["gpu"] or cpu
    lines = [
        f"Measured on {out.name[:10]} on {where} ([all figures]({out.relative_to(PAGE.parent)})); "
        "`make bench` measures yours.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for name in NAMES:
        for claim in results["claims"].get(name, []):
            if claim["goal"] is not None:
                lines.append(f"| {' | '.join(Claim.from_json(claim).cells())} |")
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def machine() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "numpy")},
    }


def machine_name() -> str:
    found = machine()
    words = found["gpu"] or f"{found['cores']} cores {platform.machine()}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def processor() -> str:
    about = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", about.read_text()) if about.exists() else []
    return names[0] if names else platform.machine()


def git_revision() -> str:
    """The commit of the project; empty without git, or outside a repository."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    raise SystemExit(main())
