"""Files that are replaced whole, or not at all."""

import errno
import os
import signal
from pathlib import Path

import pytest

from acnn_tf.files.atomic import WriteError, replacing, replacing_together
from tests.processes import start_script


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    return path


def write_half(path, error, *companions, **kwargs):
    """Writes half of each file, and fails."""
    with replacing_together([path, *companions], **kwargs) as partials:
        for partial in partials:
            Path(partial).write_text("half")
        raise error


def test_new_content_takes_the_name_when_it_is_complete(path):
    with replacing(path) as partial:
        Path(partial).write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["notes.txt"]


def test_folder_takes_its_name_when_it_is_complete(tmp_path):
    with replacing(tmp_path / "folder") as partial:
        (Path(partial) / "inner").mkdir(parents=True)
        (Path(partial) / "inner" / "file").touch()
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "inner" / "file").exists()


def test_block_that_fails_leaves_the_old_file_and_no_other(path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            write_half(path, error)
        assert path.read_text() == "old"
        assert os.listdir(path.parent) == ["notes.txt"]


def test_two_writers_of_one_file_do_not_meet(path):
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        # Writers may ask for a suffix, which the name has.
        assert Path(one).name == Path(other).name == path.name
        Path(one).write_text("one")
        Path(other).write_text("other")
    assert path.read_text() == "one"  # the last to end
    assert os.listdir(path.parent) == ["notes.txt"]


LEAVE = """
import os, signal, sys
from acnn_tf.files.atomic import replacing
with replacing(sys.argv[1]) as partial:
    os.mkdir(partial)
    open(os.path.join(partial, "half"), "w").close()
    print("half", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="locks are of POSIX")
def test_only_what_a_killed_process_left_is_removed(path):
    other = path.with_name("other")
    with start_script(LEAVE, other) as process:
        process.stdout.readline()
        (left,) = path.parent.glob("other.*.partial")
        with replacing(path) as partial:
            Path(partial).write_text("while it writes")
        assert (left / "other" / "half").exists()
        process.communicate("go\n")
    assert process.returncode == -signal.SIGKILL
    assert (left / "other" / "half").exists()
    # Of another host, or of somebody who likes the name.
    kept = [path.with_name("x.abcdefgh.elsewhere.partial"), path.parent / "p"]
    for folder in kept:
        folder.mkdir()
    with replacing(path) as partial:
        Path(partial).write_text("afterwards")
    assert sorted(path.parent.iterdir()) == sorted([path, *kept])


MANY = """
import sys
from acnn_tf.files.atomic import replacing
for number in range(100):
    with replacing(sys.argv[1]) as partial:
        with open(partial, "w") as file:
            file.write(f"{number:<5}" * 1000)
"""


def test_many_writers_of_one_file_end_with_one_whole_file(path):
    for process in [start_script(MANY, path) for _ in range(4)]:
        process.communicate()
        assert process.returncode == 0
    assert path.read_text() == f"{99:<5}" * 1000
    assert os.listdir(path.parent) == ["notes.txt"]


def test_full_disk_says_what_was_wanted_what_is_free_and_what_to_do(path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(WriteError) as caught:
        write_half(path, error, size=12345)
    message = str(caught.value)
    assert message.startswith(f"{path} could not be written: No space left")
    assert "12,345 bytes were wanted, 4 were written" in message
    assert f"are free in {path.parent}" in message
    assert "free some space" in message
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["notes.txt"]


def test_errors_of_a_writer_can_be_named(path):
    with pytest.raises(WriteError, match="could not be written: odd"):
        write_half(path, ArithmeticError("odd"), errors=(ArithmeticError,))
    with pytest.raises(ArithmeticError):
        write_half(path, ArithmeticError("odd"))


def test_folder_that_is_not_there_or_none_is_named(path):
    for name, message in (
        ("none", r"create the folder .*none"),
        (path.name, r"notes.txt/file could not be written"),
    ):
        with pytest.raises(WriteError, match=message):
            with replacing(path.parent / name / "file") as partial:
                Path(partial).touch()


def test_error_of_a_file_that_is_read_meanwhile_stays_as_it_is(path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        with replacing(path):
            open("nowhere")
    assert path.read_text() == "old"


def test_companion_stays_in_a_failure_and_goes_if_not_written_again(path):
    about = path.with_name("about")
    about.write_text("of old")
    with pytest.raises(KeyError):
        write_half(path, KeyError("no video"), about)
    assert (path.read_text(), about.read_text()) == ("old", "of old")
    assert sorted(os.listdir(path.parent)) == ["about", "notes.txt"]
    with replacing_together([path, about]) as (partial, _):
        Path(partial).write_text("new")
    assert os.listdir(path.parent) == ["notes.txt"]
