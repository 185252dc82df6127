"""Commands in a mount namespace of their own, where file systems can be as a test wants them."""

from collections.abc import Sequence
import subprocess

import pytest


def apart(mount: str, check: Sequence[str] = ("true",)) -> tuple[str, ...]:
    """Returns what to put before a command, so that `mount` (of a shell) is in force for it.

    The test is skipped where that cannot be done, or `check` fails there.
    """
    before = ("unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    try:
        subprocess.run([*before, *check], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    return before
