"""One process at a time in a folder, whatever becomes of the others."""

import contextlib
import errno
import logging
import os
import re
import signal
import socket
import threading
import time

import pytest

from acnn_tf.files import locks
from acnn_tf.files.locks import FolderInUseError, locked
from tests.processes import start_script

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks are of POSIX")
HOLD = """
import sys
from acnn_tf.files.locks import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.readline()
"""
COUNT = """
import sys
from pathlib import Path
from acnn_tf.files.locks import locked
for _ in range(40):
    with locked(sys.argv[1], wait=True):
        number = Path(sys.argv[1], "number")
        count = int(number.read_text()) if number.exists() else 0
        number.write_text(str(count + 1))
"""


@pytest.fixture
def other(tmp_path):
    """A process that has the folder until it is told to end."""
    with start_script(HOLD, tmp_path) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.mark.parametrize("ends", ["by itself", "by kill -9"])
def test_folder_in_use_is_refused_by_name_until_it_is_free(
    other, tmp_path, ends
):
    with pytest.raises(
        FolderInUseError,
        match=rf"{tmp_path} is in use by process {other.pid} on "
        rf"{re.escape(socket.gethostname())} since \d\d:\d\d:\d\d on "
        r"\d{4}-\d\d-\d\d: wait for it, or choose another folder",
    ):
        with locked(tmp_path):
            pass
    if ends == "by kill -9":
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert os.listdir(tmp_path) == [".lock"]
    else:
        other.communicate("end\n")
        assert os.listdir(tmp_path) == []
    with locked(tmp_path):
        assert os.listdir(tmp_path) == [".lock"]
    assert os.listdir(tmp_path) == []


def test_two_objects_of_one_process_do_not_share_a_folder(tmp_path):
    name = f"process {os.getpid()} on"
    with contextlib.suppress(KeyboardInterrupt), locked(tmp_path):
        for _ in range(2):  # being refused does not free it
            with pytest.raises(FolderInUseError, match=name), locked(tmp_path):
                pass
        raise KeyboardInterrupt
    with locked(tmp_path):
        pass


def test_who_waits_says_so_once_and_goes_on(
    other, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(locks, "_PATIENCE", 0.2)
    threading.Timer(1.0, other.stdin.close).start()
    started = time.monotonic()
    with locked(tmp_path / "free", wait=True):
        assert not caplog.records
    with locked(tmp_path, wait=True):
        assert time.monotonic() - started > 0.9
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"waits for process {other.pid} on " in record.getMessage()


def test_no_update_is_lost_among_many(tmp_path):
    processes = [start_script(COUNT, tmp_path) for _ in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert (tmp_path / "number").read_text() == "160"
    assert os.listdir(tmp_path) == ["number"]


def test_new_folder_is_gone_again_if_nothing_was_written(tmp_path):
    with locked(tmp_path / "a" / "b"):
        pass
    assert os.listdir(tmp_path / "a") == []
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert os.listdir(tmp_path / "a" / "b") == ["file"]


def test_remote_folder_is_not_locked_which_is_said_once(
    caplog, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with locked("s3://bucket/run"), locked("s3://bucket/run"):
            pass
    (record,) = caplog.records
    assert "s3://bucket/run is not local" in record.getMessage()
    assert os.listdir(tmp_path) == []


def test_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locked(tmp_path):
        (record,) = caplog.records
    assert "a file system without locks" in record.getMessage()
    assert os.listdir(tmp_path) == []


def test_full_disk_does_not_matter(tmp_path, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with locked(tmp_path):
        with pytest.raises(FolderInUseError, match="in use by another process"):
            with locked(tmp_path):
                pass


def test_link_of_somebody_is_not_written_through(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".lock").symlink_to(mine)
    with pytest.raises(OSError, match=r"\.lock"):
        with locked(tmp_path / "folder"):
            pass
    assert mine.read_text() == "precious"
