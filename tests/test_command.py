"""How mains end, and what becomes of their flags."""

import os
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec

import pytest

from export import command
from tests.processes import ROOT, run_module, start_script


def test_each_end_has_its_line_and_its_code():
    for end, code, words in (
        ("", 0, ""),
        ("input", 2, "ValueError: bad input"),
        ("interrupt", 130, "Interrupted."),
        ("saved", 130, "Saved after step 3."),
        ("file", 2, "Error: runs/x/a.b: No such file. Give another --path."),
        ("missing", 2, 'grpc is not installed: pip install -e ".[serving]"'),
        ("memory", 2, "The memory is not enough. Lower --batch_size"),
        ("fault", 1, "Traceback"),
    ):
        done = run_module(
            "tests.endings", f"--end={end}", "--path=runs/x", code=code
        )
        assert words in done.stderr, end
        assert ("Traceback" in done.stderr) == (end == "fault"), end


def test_a_path_may_begin_at_home(tmp_path):
    done = run_module("tests.endings", "--path=~/a", HOME=str(tmp_path))
    assert done.stdout == f"{tmp_path}/a\n"
    done = run_module("tests.endings", "--path=a~b", HOME=str(tmp_path))
    assert done.stdout == "a~b\n"


def test_the_page_needs_its_own_extra(monkeypatch):
    page = types.SimpleNamespace(__spec__=ModuleSpec("demo.__main__", None))
    error = ModuleNotFoundError("no starlette", name="starlette")
    assert command._message(error).endswith('pip install -e ".[serving]"')
    monkeypatch.setitem(sys.modules, "__main__", page)
    assert command._message(error).endswith('pip install -e ".[demo]"')


def test_a_reader_that_leaves_is_no_error():
    for argument in ("--end=many lines", "--help"):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.endings", argument],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if argument != "--help":
            process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"", argument
        process.stderr.close()
        assert process.wait() == command.UNREAD, argument


def test_a_terminal_without_the_letters_spells_them():
    done = subprocess.run(
        [sys.executable, "-m", "tests.endings", "--end=letters"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
    )
    assert b"caf\\xe9 \\u65e5\\u672c" in done.stdout


def test_paths_are_made_absolute_and_addresses_are_not():
    assert command.absolute("a/b") == os.path.abspath("a/b")
    assert command.absolute("s3://a/b") == "s3://a/b"
    assert command.absolute(None) is None


LOADS_TENSORFLOW = """
import os, sys
sys.path.insert(0, sys.argv[1])
from export import quiet_tensorflow
quiet_tensorflow.install()
try:
    import tensorflow.part
finally:
    os.write(2, b"after")
    print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
"""


@pytest.mark.parametrize(
    "level, end, shown",
    [
        ("", "", "after"),
        ("0", "", "greetings\nafter"),
        ("", "import nothing_of_this_name", "greetings\nafter"),
    ],
)
def test_tensorflow_loads_quietly_and_shows_what_it_wrote_if_it_fails(
    level, end, shown, tmp_path, monkeypatch
):
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"import os\nos.write(2, b'greetings\\n')\n{end}\n"
    )
    (package / "part.py").touch()
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    if level:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    process = start_script(LOADS_TENSORFLOW, tmp_path)
    stdout, stderr = process.communicate()
    assert stderr.startswith(shown)
    assert (process.returncode != 0) == ("nothing_of" in stderr) == bool(end)
    # What child processes are told.
    assert stdout.strip() == (level or "3")


def test_a_command_to_go_on_with_runs_in_the_same_shell(monkeypatch):
    for prefix, base, active, python in (
        ("/usr", "/usr", None, "python"),
        ("/a/.venv", "/usr", "/a/.venv", "python"),
        ("/a/.venv", "/usr", None, ".venv/bin/python"),
        ("/b/.venv", "/usr", "/a/.venv", "/b/.venv/bin/python"),
    ):
        monkeypatch.setattr(sys, "prefix", prefix)
        monkeypatch.setattr(sys, "base_prefix", base)
        monkeypatch.setattr(sys, "executable", f"{prefix}/bin/python")
        monkeypatch.setattr(os, "getcwd", lambda: "/a")
        monkeypatch.setenv("VIRTUAL_ENV", active or "")
        words = command.as_command("export.server", "--model_name=a b")
        assert words == f"{python} -m export.server '--model_name=a b'"
