"""the working tree -> which code this is."""

import subprocess


def git_revision() -> str:
    """The commit of the working tree, with `+` if it has changes; empty outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
