"""Trainings as processes: gone on with, timed, and never done twice."""

import csv
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

from acnn_tf.files.atomic import write_text

RECORD = "run.json"
TRAIN_LOG = "train.log"


class RunError(Exception):
    """A process that failed; says which, with the end of its log."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training, in a folder of its own.

    `run.json` in that folder says with what flags it was begun, when it ran
    and whether it is done.
    """

    name: str  # for messages
    folder: str
    flags: tuple[str, ...]  # without `--workdir`

    def path(self, name):
        """The path of a file of this run."""
        return os.path.join(self.folder, name)

    @property
    def words(self):
        """The command after `python`, as a list."""
        flags = [*self.flags, f"--workdir={self.folder}"]
        return ["-m", "experiments.train", *flags]

    @property
    def command(self):
        """The command as one types it."""
        return shlex.join(["python", *self.words])

    def read(self):
        """What `run.json` says, checked against the flags of now."""
        try:
            with open(self.path(RECORD), encoding="utf-8") as file:
                record = json.load(file)
        except FileNotFoundError:
            if os.path.isdir(self.folder) and os.listdir(self.folder):
                raise ValueError(
                    f"{self.folder} holds files of something else: it has no "
                    f"{RECORD}. Choose another --workdir."
                ) from None
            return {"flags": list(self.flags), "times": [], "trained": False}
        if record["flags"] != list(self.flags):
            raise ValueError(
                f"{self.folder} was begun with other flags. Expected: "
                f"{shlex.join(self.flags)}. Found: "
                f"{shlex.join(record['flags'])}. Remove the folder to train "
                "again, or rename the row, or choose another --workdir."
            )
        return record

    def write(self, record):
        """Replaces `run.json`."""
        write_text(self.path(RECORD), json.dumps(record, indent=1))

    def train(self, processes):
        """Trains, or goes on, unless it is done; a `RunError` if it fails."""
        record = self.read()
        if record["trained"]:
            return
        os.makedirs(self.folder, exist_ok=True)
        with open(self.path(TRAIN_LOG), "ab") as log:
            for times in record["times"]:
                if times[1] is None:  # killed: its log says when, roughly
                    times[1] = max(times[0], os.path.getmtime(log.name))
            record["times"].append([time.time(), None])
            self.write(record)
            try:
                processes.run(self.words, log)
                record["trained"] = True
            finally:
                record["times"][-1][1] = time.time()
                self.write(record)

    def history(self):
        """The rows of `history.csv`, one for each epoch so far: list."""
        try:
            with open(self.path("history.csv"), encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []

    def minutes(self, path=None):
        """Minutes of all its processes, or of those until a file was written.

        Time between a process that was stopped and the next does not count.
        """
        until = os.path.getmtime(path) if path else float("inf")
        times = self.read()["times"]
        return sum(max(0, min(end, until) - start) for start, end in times) / 60


class Processes:
    """Processes of one's own, none of which outlives the `with` block.

    Within it, being told to end (SIGTERM) raises `SystemExit`, so that the
    block is left as by any error. Then each process is told to end, and waited
    for: a training saves first. Each has so many threads, or as many as it
    likes.
    """

    def __init__(self, threads=None):
        self._running = set()
        self._lock = threading.Lock()
        self._stopped = False
        self._environment = dict(os.environ)
        if threads is not None:
            for name in (
                "TF_NUM_INTRAOP_THREADS",
                "TF_NUM_INTEROP_THREADS",
                "OMP_NUM_THREADS",
            ):
                self._environment[name] = str(threads)

    def __enter__(self):
        self._before = signal.signal(
            signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
        )
        return self

    def __exit__(self, *_):
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        signal.signal(signal.SIGTERM, self._before)

    def run(self, words, log, stdout=None):
        """Runs Python until it ends; a `RunError` if it fails.

        `log` takes what it prints, and `stdout`, if given, a part of that.
        """
        log.write(f"$ {shlex.join(['python', *words])}\n".encode())
        log.flush()
        with self._lock:
            if self._stopped:
                raise RunError("stopped")
            process = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
                env=self._environment,
                # Ctrl-C is for us alone, who let it save what it has.
                start_new_session=True,
            )
            self._running.add(process)
        code = process.wait()
        with self._lock:
            self._running.discard(process)
        if code:
            raise RunError(
                f"exit code {code}, {log.name}: {_last_line(log.name)}"
            )


def _last_line(path):
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 4096))
        lines = file.read().decode("utf-8", "replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    return lines[-1][:300] if lines else "nothing was printed"
