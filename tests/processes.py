"""Modules run as `python -m` runs them, without each loading TensorFlow anew.

A process that has loaded TensorFlow and Keras, but has run nothing, forks one
for each module: 0.2 seconds, where a start takes 4. So do these processes for
the modules that they start themselves. What is tested of the start itself, such
as what TensorFlow prints there, needs `subprocess`.
"""

import contextlib
import inspect
import json
import multiprocessing
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Other people's libraries alone: ours is loaded as a user's is.
LOADED = ["tensorflow", "keras", "h5py", "tests.processes"]
# What a fork loads anew, since each main has flags of its own.
_WITH_FLAGS = ("absl", "experiments", "export", "demo")

_CONTEXT = multiprocessing.get_context("forkserver")
if sys.platform == "linux":  # elsewhere a fork of so much may not run
    _CONTEXT.set_forkserver_preload(LOADED)


class Started:
    """A module, or `-c` and a script, that runs in a process of its own.

    It has the arguments, strings or paths, as its command line, and the
    variables of this process with others besides.
    """

    def __init__(self, module, *arguments, cwd=ROOT, **environment):
        self.args = [module, *map(str, arguments)]
        self._folder, self._done = Path(tempfile.mkdtemp()), None
        self._files = [self._folder / "stdout", self._folder / "stderr"]
        for path in self._files:
            path.touch()
        self._process = _CONTEXT.Process(
            target=_run_alone,
            args=(
                self.args,
                str(cwd),
                {**os.environ, **environment},
                list(map(str, self._files)),
            ),
        )
        self._process.start()
        self.pid = self._process.pid
        self.kill = self._process.kill

    @property
    def returncode(self):
        """As of `subprocess.Popen`: `None` while it runs."""
        return self._process.exitcode

    @property
    def printed(self):
        """List of two texts, of stdout and of stderr, up to now."""
        if self._done is not None:
            return [self._done.stdout, self._done.stderr]
        return [
            path.read_text(encoding="utf-8", errors="replace")
            for path in self._files
        ]

    def first_line(self, timeout=60):
        """Waits for a line on stdout, and returns it without its end."""
        end = time.monotonic() + timeout
        while "\n" not in self.printed[0]:
            if self.returncode is not None or time.monotonic() > end:
                raise ChildProcessError(f"{self.args}: {self.printed}")
            time.sleep(0.01)
        return self.printed[0].partition("\n")[0]

    def finish(self, timeout=600):
        """Waits for its end, after the timeout by force.

        Returns:
            `subprocess.CompletedProcess`.

        Raises:
            TimeoutError: If it was killed; says what it had printed.
        """
        if self._done is None:
            self._process.join(timeout)
            code = self.returncode
            self.kill()
            self._process.join()
            self._done = subprocess.CompletedProcess(
                self.args, code, *self.printed
            )
            shutil.rmtree(self._folder)
        if self._done.returncode is None:
            raise TimeoutError(f"{self.args} did not end: {self.printed}")
        return self._done

    def end(self, code=0):
        """As `finish`; with another code than this, unless `None`, it fails."""
        done = self.finish()
        if code is not None:
            end = done.stderr[-3000:] + done.stdout[-1000:]
            assert done.returncode == code, end
        return done


def run_module(module, *arguments, code=0, cwd=ROOT, **environment):
    """See `Started`: runs it to its end."""
    return Started(module, *arguments, cwd=cwd, **environment).end(code)


def start_script(script, *arguments, cwd=ROOT):
    """Starts a few lines of Python in a process that has loaded nothing.

    Returns a `subprocess.Popen`, whose streams are pipes of text.
    """
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=cwd,
        **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
        text=True,
    )


def run_script(script, *arguments, cwd=ROOT):
    """As `start_script`, to its end; returns what it printed."""
    process = start_script(script, *arguments, cwd=cwd)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr[-3000:]
    # No more is said when objects go, or the process ends.
    for word in ("Traceback", "Exception ignored"):
        assert word not in stderr, stderr[-3000:]
    return stdout


def start_workers(module, *arguments):
    """Starts a module as the workers of one training.

    Each has arguments of its own, a list. Returns a list of `Started`.
    """
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in arguments
        ]
        ports = [one.getsockname()[1] for one in sockets]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return [
        Started(
            module,
            *own,
            TF_CONFIG=json.dumps(
                {"cluster": cluster, "task": {"type": "worker", "index": index}}
            ),
        )
        for index, own in enumerate(arguments)
    ]


_CHILD = inspect.signature(subprocess.Popen._execute_child)


class _Forked(subprocess.Popen):
    """`python -m MODULE` as a fork of this process; others are as ever."""

    def _execute_child(self, args, *rest):
        given = _CHILD.bind(self, args, *rest).arguments
        if args[:2] != [sys.executable, "-m"]:
            super()._execute_child(args, *rest)
            return
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                if given["start_new_session"]:
                    os.setsid()
                files = {1: given["c2pwrite"], 2: given["errwrite"]}
                environment = given["env"] or os.environ
                cwd = given["cwd"] or os.getcwd()
                for name in list(sys.modules):
                    if name.split(".")[0] in _WITH_FLAGS:
                        del sys.modules[name]
                _run(args[2:], cwd, environment, files)
                code = 0
            except SystemExit as error:
                code = error.code
                if not isinstance(code, int):
                    print(code or "", file=sys.stderr)  # noqa: T201
                    code = int(code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(BrokenPipeError):
                    sys.stdout.flush()
                os._exit(code)
        self._child_created = True
        self._close_pipe_fds(
            *(given[name] for name in ("p2cread", "p2cwrite")),
            *(given[name] for name in ("c2pread", "c2pwrite")),
            *(given[name] for name in ("errread", "errwrite")),
        )


def _run_alone(arguments, cwd, environment, paths):
    files = {n: os.open(p, os.O_WRONLY) for n, p in enumerate(paths, start=1)}
    subprocess.Popen = _Forked
    _run(arguments, cwd, environment, files)


def _run(arguments, cwd, environment, files):
    for number, file in files.items():
        if file != -1:
            os.dup2(file, number)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path.insert(0, cwd)  # as `python -m` does
    sys.argv[:] = arguments
    if arguments[0] == "-c":
        del sys.argv[1]
        exec(arguments[1], {"__name__": "__main__"})
    else:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
