"""Modules run as `python -m` runs them, without each loading TensorFlow anew.

A process that has loaded TensorFlow and Keras, but has run nothing, forks a new
one for each module, in 0.2 seconds and not in 4. What is tested of the start of
a process itself, such as what TensorFlow prints there, needs `subprocess`.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of other people's libraries alone: ours is loaded as a user's is.
LOADED = ["tensorflow", "keras", "h5py", "tests.processes"]

_CONTEXT = multiprocessing.get_context("forkserver")
if sys.platform == "linux":  # elsewhere a fork of so much may not run
    _CONTEXT.set_forkserver_preload(LOADED)


class Started:
    """A module that runs in a process of its own.

    Args:
        module: Name of a module of this project.
        *arguments: What follows it on the command line.
        **environment: Variables to set, besides those of this process.
    """

    def __init__(self, module, *arguments, **environment):
        self._folder = tempfile.TemporaryDirectory()
        self._printed = [
            Path(self._folder.name, name) for name in ("stdout", "stderr")
        ]
        self.args = [module, *map(str, arguments)]
        self._process = _CONTEXT.Process(
            target=_run,
            args=(
                self.args,
                {**os.environ, **environment},
                list(map(str, self._printed)),
            ),
        )
        self._process.start()
        self.pid = self._process.pid
        self.kill = self._process.kill

    def finish(self, timeout=300):
        """Waits for its end.

        Args:
            timeout: Float, seconds after which it is killed.

        Returns:
            `subprocess.CompletedProcess`.

        Raises:
            TimeoutError: If it was; says what it had printed.
        """
        self._process.join(timeout)
        code = self._process.exitcode
        self._process.kill()
        self._process.join()
        texts = [
            path.read_text(encoding="utf-8", errors="replace")
            if path.exists()
            else ""
            for path in self._printed
        ]
        self._folder.cleanup()
        if code is None:
            raise TimeoutError(f"{self.args} did not end: {texts}")
        return subprocess.CompletedProcess(self.args, code, *texts)


def run(module, *arguments, **environment):
    """`Started`, to its end."""
    return Started(module, *arguments, **environment).finish()


def _run(arguments, environment, printed):
    for number, path in enumerate(printed, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    # One by one: what is set already stays known to the C library.
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv[:] = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
