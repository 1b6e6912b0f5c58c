"""The habits of CONTRIBUTING.md that a machine can watch over."""

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


def over(paths):
    return pytest.mark.parametrize("path", paths, ids=list(map(name_of, paths)))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in SOURCES}


@functools.cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported_modules(path):
    """Full names of the modules that the file at `path` imports."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(path)}: import by the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


@functools.cache
def import_table():
    """CONTRIBUTING.md's table: room -> what it may import."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
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


def is_within(module, parent):
    return module == parent or module.startswith(parent + ".")


def test_imports_follow_the_table_of_rooms():
    table, offenders = import_table(), []
    for path in SOURCES:
        module = within_room(module_of(path))
        if module == "acnn_tf":
            continue
        room = module.split(".")[0]
        if room not in table:
            offenders.append(f"{room}: no row in CONTRIBUTING.md")
            continue
        for name in imported_modules(path):
            if name.split(".")[0] not in PACKAGES:
                continue
            known = [room, *table[room]]
            if "acnn_tf" in known and is_within(name, "acnn_tf"):
                continue
            if not any(is_within(within_room(name), one) for one in known):
                offenders.append(f"{name_of(path)} imports {name}")
    assert not offenders


def test_no_modules_import_each_other_in_a_circle():
    imports = {
        module_of(path): {
            name for name in imported_modules(path) if name in MODULES
        }
        for path in SOURCES
        if path.name != "__init__.py"
    }
    left = dict(imports)
    while free := [m for m, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    assert not left, "these import each other in a circle"


@over([path for path in SOURCES if path.name == "__init__.py"])
def test_a_package_names_only_what_it_holds(path):
    for name in imported_modules(path):
        assert is_within(name, module_of(path)), f"imports `{name}`"


@over([path for path in SOURCES if module_of(path).startswith("acnn_tf")])
def test_package_reads_neither_flags_nor_environment(path):
    for name in imported_modules(path):
        assert not is_within(name, "absl"), "mains read flags, not the package"
    for node in nodes(path):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("environ", "getenv"), (
                f"line {node.lineno}: take an argument instead"
            )


@over(
    [
        path
        for path in SOURCES
        if module_of(path).startswith(("acnn_tf.layers", "acnn_tf.losses"))
    ]
)
def test_layers_and_losses_know_no_tensorflow(path):
    for name in imported_modules(path):
        assert not is_within(name, "tensorflow"), "use keras.ops"


@over(SOURCES)
def test_no_data_can_become_code(path):
    """NumPy's pickles included: `allow_pickle=False` stands where it loads."""
    for name in imported_modules(path):
        for unsafe in ("pickle", "marshal", "shelve", "dill", "yaml", "joblib"):
            assert not is_within(name, unsafe), f"imports `{name}`"
    for node in nodes(path):
        if not isinstance(node, ast.Call):
            continue
        called, place = ast.unparse(node.func), f"line {node.lineno}"
        assert called not in ("eval", "exec", "compile", "__import__"), place
        assert not called.endswith("keras.saving.load_model") or (
            path.name == "model_files.py"
        ), f"{place}: use acnn_tf.models.load_model"
        if called in ("np.load", "numpy.load"):
            given = {
                word.arg: ast.unparse(word.value) for word in node.keywords
            }
            assert given.get("allow_pickle") == "False", place


@over([path for path in TEXTS if path.suffix == ".py"])
def test_source_files_stay_short(path):
    text = path.read_text(encoding="utf-8")
    is_main = path.parent.name == "experiments" and "__main__" in text
    limit = 150 if is_main else 400
    num_lines = len(text.splitlines())
    assert num_lines <= limit, f"{num_lines} lines: look for a second concept"


@over(TEXTS)
def test_no_path_of_one_machine(path):
    folders = "home|root|work|tmp|mnt|Users"
    found = re.findall(
        rf"(?<![\w.~*]) /(?:{folders})/\S* | [A-Z]:\\Users\S*",
        path.read_text(encoding="utf-8"),
        re.VERBOSE,
    )
    assert not found


def test_version_stands_once():
    places = [
        name_of(path)
        for path in TEXTS
        if path.name != "CHANGELOG.md"
        and re.search(
            rf"(?<![\w.]){re.escape(VERSION)}(?![\w.])",
            path.read_text(encoding="utf-8"),
        )
    ]
    assert places == ["acnn_tf/version.py"]


def test_changelog_starts_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", text, re.MULTILINE)[1] == VERSION


def test_import_is_quick_and_prints_nothing(tmp_path):
    # Keras comes first: its time and TensorFlow's greetings are not ours.
    script = """
import os, sys, time
import keras
before = set(sys.modules)
out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.dup2(out, 1)
os.dup2(out, 2)
start = time.process_time()
import acnn_tf.callbacks, acnn_tf.evaluation, acnn_tf.models, acnn_tf.plots
seconds = time.process_time() - start
extras = {"matplotlib", "tensorflow_io"} & (set(sys.modules) - before)
assert not extras, f"imports what is optional: {extras}"
assert seconds < 2, f"takes {seconds} seconds of CPU"
"""
    printed = tmp_path / "printed.txt"
    done = subprocess.run(
        [sys.executable, "-c", script, str(printed)], cwd=ROOT, check=False
    )
    assert printed.read_text(encoding="utf-8") == ""
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_ruff_has_nothing_to_say(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command.split(), "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "RUFF_OUTPUT_FORMAT": "concise"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_wheel_holds_the_package(tmp_path):
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
    expected = {
        name_of(path)
        for path in SOURCES
        if not module_of(path).startswith("demo")
    }
    for folder in ("flags", "grids"):
        expected |= {
            name_of(path) for path in ROOT.glob(f"experiments/{folder}/*")
        }
    assert {name for name in held if ".dist-info/" not in name} == expected
    assert any(name.endswith("/LICENSE") for name in held)
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nRequires-Dist: keras" in metadata
