"""Mains as processes, run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_module(module, *arguments, code=0, cwd=ROOT):
    """Runs `python -m MODULE`, and asserts how it ends.

    Args:
        module: Its full name.
        *arguments: Strings or paths.
        code: Int, the exit code that is expected.
        cwd: Folder to run it in.

    Returns:
        `subprocess.CompletedProcess` with `stdout` and `stderr` as text.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:] + done.stdout[-1000:]
    return done
