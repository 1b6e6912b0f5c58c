"""The habits of CONTRIBUTING.md that a machine can watch over.

One test a habit, which lists every offender.
"""

import ast
import functools
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.processes import run_script

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("acnn_tf", "experiments", "export", "demo")
SOURCES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py")
)
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "*.py",
        "*.toml",
        "Makefile",
        ".ci/*",
        "tests/**/*.py",
        "docs/*.md",
        "notebooks/*.ipynb",
        *(f"{package}/**/*" for package in PACKAGES),
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and "__pycache__" not in path.parts
)
VERSION = runpy.run_path(str(ROOT / "acnn_tf" / "version.py"))["__version__"]


def name_of(path):
    return str(path.relative_to(ROOT))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def assert_none(offenders):
    """Fails with all of them, one a line, whatever their number."""
    offenders = list(offenders)
    assert not offenders, "\n".join(["", *offenders])


@functools.cache
def text_of(path):
    return path.read_text(encoding="utf-8")


@functools.cache
def nodes(path):
    return list(ast.walk(ast.parse(text_of(path))))


@functools.cache
def imported_modules(path):
    """Full names of the modules that the file at `path` imports."""
    names = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(path)}: import by the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.append(full if full in MODULES else node.module)
    return names


def imports_within(parents, banned):
    """Imports of `banned` modules by the modules within `parents`."""
    for module, path in MODULES.items():
        if any(is_within(module, parent) for parent in parents):
            for name in imported_modules(path):
                if any(is_within(name, one) for one in banned):
                    yield f"{name_of(path)} imports {name}"


def is_within(module, parent):
    return module == parent or module.startswith(parent + ".")


@functools.cache
def import_table():
    """CONTRIBUTING.md's table: room -> what it may import."""
    text = text_of(ROOT / "CONTRIBUTING.md")
    rows = text.split("| room | may import |")[1].split("\n\n")[0]
    table = {}
    for row in rows.splitlines()[2:]:
        rooms, allowed = row.strip("|").split("|")
        allowed = re.findall(r"`([\w.]+)`", allowed) or (
            list(table) if "all of the above" in allowed else []
        )
        rooms = re.findall(r"`([\w.]+)`", rooms)
        if "all of the above" in row:
            allowed = [*allowed, *rooms]
        table |= dict.fromkeys(rooms, allowed)
    return table


def within_room(name):
    return name.removeprefix("acnn_tf.")


def imports_against_the_table():
    table = import_table()
    for module, path in MODULES.items():
        if module == "acnn_tf":
            continue
        room = within_room(module).split(".")[0]
        if room not in table:
            yield f"{room}: no row in CONTRIBUTING.md"
            continue
        known = [room, *table[room]]
        for name in imported_modules(path):
            if name.split(".")[0] not in PACKAGES:
                continue
            if "acnn_tf" in known and is_within(name, "acnn_tf"):
                continue
            if not any(is_within(within_room(name), one) for one in known):
                yield f"{name_of(path)} imports {name}"


def test_imports_follow_the_table_of_rooms():
    assert_none(imports_against_the_table())


def test_no_modules_import_each_other_in_a_circle():
    left = {
        module: MODULES.keys() & imported_modules(path)
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    while free := [m for m, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    assert_none(f"{module} is in a circle" for module in left)


def test_a_package_names_only_what_it_holds():
    assert_none(
        f"{name_of(path)} imports {name}"
        for module, path in MODULES.items()
        if path.name == "__init__.py"
        for name in imported_modules(path)
        if name not in sys.stdlib_module_names and not is_within(name, module)
    )


def test_package_reads_neither_flags_nor_environment():
    assert_none(
        [
            *imports_within(["acnn_tf"], ["absl"]),
            *(
                f"{name_of(path)}:{node.lineno} reads the environment"
                for path in SOURCES
                if is_within(module_of(path), "acnn_tf")
                for node in nodes(path)
                if isinstance(node, ast.Attribute)
                and node.attr in ("environ", "getenv")
            ),
        ]
    )


def test_only_mains_read_flags():
    # How mains read and explain them; the last checks those of other processes.
    own = "export/command.py", "export/flag_help.py"
    own += ("experiments/sweeps/training_flags.py",)
    assert_none(
        name
        for name in map(name_of, SOURCES)
        if name.startswith(("experiments/", "export/"))
        and name not in own
        and "FLAGS" in text_of(ROOT / name)
        and (
            "benchmarks" in name
            or 'if __name__ == "__main__"' not in text_of(ROOT / name)
        )
    )


def test_layers_and_losses_know_no_tensorflow():
    assert_none(
        imports_within(["acnn_tf.layers", "acnn_tf.losses"], ["tensorflow"])
    )


PICKLES = ("pickle", "marshal", "shelve", "dill", "yaml", "joblib")


def is_unsafe(path, node):
    called = ast.unparse(node.func)
    if called in ("np.load", "numpy.load"):
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        return given.get("allow_pickle") != "False"
    if called.endswith("keras.saving.load_model"):
        # The second reads a file of one's own, and says so.
        return path.name not in ("model_files.py", "keras_file.py")
    return called in ("eval", "exec", "compile", "__import__")


def test_no_data_can_become_code():
    """NumPy's pickles included: `allow_pickle=False` stands where it loads.

    One file has an unpickler of its own, which knows plain data alone.
    """
    own = "acnn_tf/encoders/efficientnet_lite0.py"
    assert_none(
        [
            *(
                offender
                for offender in imports_within(PACKAGES, PICKLES)
                if not offender.startswith(own)
            ),
            *(
                f"{name_of(path)}:{node.lineno} {ast.unparse(node)}"
                for path in SOURCES
                for node in nodes(path)
                if isinstance(node, ast.Call) and is_unsafe(path, node)
            ),
        ]
    )


MACHINE = re.compile(
    r"(?<![\w.~*]) /(?:home|root|work|tmp|mnt|Users)/\S* | [A-Z]:\\Users\S*",
    re.VERBOSE,
)


def test_no_path_of_one_machine():
    assert_none(
        f"{name_of(path)}: {found}"
        for path in TEXTS
        for found in MACHINE.findall(text_of(path))
    )


def test_version_stands_once():
    version = re.compile(rf"(?<![\w.]){re.escape(VERSION)}(?![\w.])")
    places = [
        name_of(path)
        for path in TEXTS
        if path.name != "CHANGELOG.md" and version.search(text_of(path))
    ]
    assert places == ["acnn_tf/version.py"]


def test_changelog_starts_with_this_version():
    text = text_of(ROOT / "CHANGELOG.md")
    assert re.search(r"^## (\S+)", text, re.MULTILINE)[1] == VERSION


def test_import_is_quick_and_prints_nothing(tmp_path):
    # Keras's time and TensorFlow's greetings are not ours.
    script = """
import importlib, os, sys, time
import acnn_tf
heavy = {"h5py", "keras", "numpy", "tensorflow"} & set(sys.modules)
assert not heavy, f"`import acnn_tf` imports {heavy}"
import keras
before = set(sys.modules)
out, own = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), os.dup(2)
os.dup2(out, 1)
os.dup2(out, 2)
start = time.process_time()
for module in sys.argv[2:]:
    importlib.import_module(module)
seconds = time.process_time() - start
os.dup2(own, 2)
extras = {"matplotlib", "tensorflow_io"} & (set(sys.modules) - before)
assert not extras, f"imports what is optional: {extras}"
assert seconds < 2, f"takes {seconds} seconds of CPU"
"""
    printed = tmp_path / "printed.txt"
    modules = [name for name in MODULES if is_within(name, "acnn_tf")]
    run_script(script, printed, *modules)
    assert printed.read_text(encoding="utf-8") == ""


def test_public_names_are_there():
    import acnn_tf

    for name in acnn_tf.__all__:
        public = getattr(acnn_tf, name)
        for inner in getattr(public, "__all__", ()):
            assert getattr(public, inner) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        acnn_tf.nothing  # noqa: B018


def test_ruff_has_nothing_to_say():
    printed = ""
    for command in ("check", "format --check"):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command.split(), "--no-cache"],
            cwd=ROOT,
            env={**os.environ, "RUFF_OUTPUT_FORMAT": "concise"},
            capture_output=True,
            text=True,
            check=False,
        )
        printed += (done.stdout + done.stderr) * (done.returncode != 0)
    assert not printed, printed


@pytest.mark.slow
def test_wheel_holds_the_package_alone(tmp_path):
    # A copy: building leaves folders behind.
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for package in PACKAGES:
        if (ROOT / package).is_dir():
            shutil.copytree(ROOT / package, copy / package)
    command = "-m pip wheel . --no-deps --no-build-isolation --no-index"
    done = subprocess.run(
        [sys.executable, *command.split(), "--quiet", "-w", str(tmp_path)],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        (about,) = (name for name in held if name.endswith("/METADATA"))
        metadata = archive.read(about).decode()
    assert {name for name in held if ".dist-info/" not in name} == {
        name_of(path)
        for module, path in MODULES.items()
        if is_within(module, "acnn_tf")
    }
    assert any(name.endswith("/LICENSE") for name in held)
    assert f"\nVersion: {VERSION}\n" in metadata
    for field in (
        "Requires-Dist: keras",
        "License: Apache-2.0\n",
        "Keywords: ",
    ):
        assert f"\n{field}" in metadata
    assert "\nClassifier: Programming Language :: Python :: 3.13\n" in metadata


def test_make_names_the_pythons_that_will_do_and_leaves_nothing(tmp_path):
    for name in ("Makefile", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    # Its version is none, and an environment it would make all the same.
    python = tmp_path / "old"
    python.write_text("#!/bin/sh\n[ $1 != -c ] && mkdir -p .venv/bin\n")
    python.chmod(0o755)
    there = set(tmp_path.iterdir())
    done = subprocess.run(
        ["make", "--no-print-directory", f"PYTHON={python}", "quickstart"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    first, *_ = done.stderr.splitlines()
    assert f"needs Python 3.11 to 3.13, and {python} is no such one" in first
    assert (done.returncode, done.stdout) == (2, "")
    assert set(tmp_path.iterdir()) == there
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert 'python_requires=">=3.11,<3.14"' in setup
