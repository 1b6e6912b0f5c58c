"""Loads hostile files and reports what else happened: a process of its own.

  python -m tests.archive_canary FOLDER NUM_MALFORMED

FOLDER holds `good.keras`, `harmless.keras`, which differs from it in what is
not looked at, and `hostile/*.keras`. Prints JSON.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from acnn_tf.models import ModelFileError, load_model
from tests import hostile_archives, mutations

MAX_BYTES = 64 * 2**20
ALARMS = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *("os.putenv", "os.symlink", "os.link", "subprocess.", "socket."),
    *("urllib.", "marshal.load", "pickle.", "ctypes.dlopen", "import", "exec"),
)
# Of one file.
CHANGES = [
    mutate
    for mutate in dict.fromkeys(mutations.MUTATIONS)
    if mutate not in (mutations.remove, mutations.swap_files)
]
MOVES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate")


class Canary:
    """Notes what code that ran would do, while it `is_watching`."""

    def __init__(self, folder):
        self.is_watching = False
        self.seen = []
        self._folder = os.path.realpath(folder) + os.sep

    def __call__(self, event, args):
        if not self.is_watching:
            return
        if event.startswith(ALARMS):
            self.seen.append(f"{event} {str(args)[:200]}")
        elif event == "open" and args[2] is not None:
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
            if args[2] & writes:
                self._check(event, args[0])
        elif event in MOVES:
            for path in args[: 2 if event == "os.rename" else 1]:
                self._check(event, path)

    def _check(self, event, path):
        # Relative to an open folder: of shutil.rmtree, which is in one.
        if isinstance(path, (str, bytes, os.PathLike)) and os.sep in str(path):
            found = os.path.realpath(os.fsdecode(path))
            if not found.startswith(self._folder):
                self.seen.append(f"{event} {found}")


def memory():
    """Most bytes that the process ever had (Linux)."""
    # Not `getrusage`, which goes on from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def damaged(rng, data):
    """Some bytes changed, as disks, networks and strangers do it."""
    mutate = CHANGES[rng.integers(len(CHANGES))]
    return mutate({"": data}, rng)[""]


def spoil(rng, members):
    """A member changed; its checksum is right all the same."""
    name = hostile_archives.CONFIG
    if rng.integers(2):
        name = hostile_archives.WEIGHTS
    data = damaged(rng, members[name])
    if name == hostile_archives.WEIGHTS and rng.integers(2):
        # The numbers are most of it; what describes them is more to the point.
        data = bytearray(members[name])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(min(len(data), 20_000))] = rng.integers(256)
    return {**members, name: bytes(data)}


def attempt(path, report):
    """The model that loading returns, or the error."""
    before = memory()
    try:
        found = load_model(path, max_bytes=MAX_BYTES)
    except ModelFileError as error:
        found = str(error)
        if not found.startswith(f"{path}: "):
            report["errors"].append(f"{path} is not named: {error}")
    except Exception as error:
        found = error
        report["errors"].append(f"{path}: {error!r:.300}")
    if memory() - before > report["bytes"]:
        report["bytes"], report["largest"] = memory() - before, str(path)
    return found


def main(folder, count):
    folder = Path(folder)
    good = folder / "good.keras"
    canary = Canary(folder)
    sys.addaudithook(canary)
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    model = load_model(good)
    rng = np.random.default_rng(0)
    report = {"errors": [], "bytes": 0, "largest": ""}
    canary.is_watching = True
    # It must be able to notice.
    os.system("true")
    with open("/dev/null", "wb"):
        pass
    report["noticed"], canary.seen = canary.seen, []

    def result(path):
        found = attempt(path, report)
        if not isinstance(found, keras.Model):
            return str(found)[:300]
        is_same = found.get_config() == model.get_config() and all(
            np.array_equal(a, b)
            for a, b in zip(
                model.get_weights(), found.get_weights(), strict=True
            )
        )
        return "LOADED: the same" if is_same else "LOADED: another"

    report["harmless"] = result(folder / "harmless.keras")
    paths = sorted(folder.glob("hostile/*.keras"))
    report["hostile"] = {path.stem: result(path) for path in paths}
    members = hostile_archives.read(good)
    path, data = folder / "malformed.keras", good.read_bytes()
    counts = {"damaged": [], "changed": []}
    for number in range(count):
        if number % 2:
            kind, changed = "changed", spoil(rng, members)
            hostile_archives.pack(path, changed.items())
        else:
            kind = "damaged"
            path.write_bytes(damaged(rng, data))
        found = result(path)
        counts[kind].append(found.startswith("LOADED"))
        if kind == "damaged" and found == "LOADED: another":
            (folder / f"loaded{number}.keras").write_bytes(path.read_bytes())
            report["errors"].append(f"damaged {number} was loaded")
    canary.is_watching = False
    report["counts"] = {kind: len(one) for kind, one in counts.items()}
    report["loaded"] = {kind: sum(one) for kind, one in counts.items()}
    report["seen"] = canary.seen
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
