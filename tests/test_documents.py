"""What the documents, flagfiles and docstrings promise, tried."""

import ast
import doctest
import functools
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.sweeps.grid import read_grid
from experiments.sweeps.spaces import check_space, load_space

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md")])
FLAGFILES = sorted(ROOT.glob("experiments/flags/*.flags"))
GRIDS = sorted(ROOT.glob("experiments/grids/*.*"))
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.glob("acnn_tf/**/*.py")
    if path.name != "__init__.py"
)
MAINS = sorted(
    f"{package}.{path.stem}"
    for package in ("experiments", "export")
    for path in ROOT.glob(f"{package}/*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
# Those that every main has, and Beam's, which some pass on.
ABSL_FLAGS = {"flagfile", "undefok", "help", "helpshort", "helpfull"}
ABSL_FLAGS |= {"runner", "direct_num_workers", "direct_running_mode"}
COMMAND = re.compile(
    r"python -m ((?:experiments|export)\.\w+)\b(?!\")((?:[^`#\n\\]|\\\n)*)"
)


def source_of(module):
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


@functools.cache
def help_of(module):
    # argparse, of the one main that uses it, knows no --helpfull.
    for flag in ("--helpfull", "--help"):
        done = subprocess.run(
            [sys.executable, "-m", module, flag],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        # absl leaves with 1 after printing help.
        if done.returncode in (0, 1):
            return done.stdout
    raise AssertionError(done.stderr)


@functools.cache
def defined_flags(module):
    """Flags of `module`, as it tells them itself."""
    found = set()
    # As absl writes them, and argparse.
    for no, name in re.findall(
        r"^  --(\[no\])?(\w+)(?::| |$)", help_of(module), re.M
    ):
        found |= {name, f"no{name}"} if no else {name}
    return found


def flag_names(words):
    return {
        word.lstrip("-").split("=")[0] for word in words if word[:2] == "--"
    }


def commands():
    for path in [*DOCUMENTS, *FLAGFILES, *GRIDS, *map(source_of, MAINS)]:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".flags", ".txt"):
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        for module, arguments in COMMAND.findall(text):
            words = shlex.split(arguments.replace("\\\n", " "))
            yield pytest.param(
                module,
                words,
                id=f"{path.relative_to(ROOT)}: {module} {' '.join(words)}",
            )


@pytest.mark.parametrize(("module", "words"), list(commands()))
def test_documented_command_exists(module, words):
    assert module in MAINS
    unknown = flag_names(words) - defined_flags(module) - ABSL_FLAGS
    assert not unknown
    for word in words:
        if word.startswith("--flagfile=experiments/"):
            assert ROOT.joinpath(word.split("=")[1]).is_file()


@pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_flags_and_targets_in_prose_exist(path):
    text = path.read_text(encoding="utf-8")
    known = set.union(ABSL_FLAGS, *map(defined_flags, MAINS))
    assert not set(re.findall(r"`--(\w+)", text)) - known
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert not set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) - targets


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_flagfile_starts_with_its_command_and_its_flags_exist(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    head = re.match(r"# python -m (experiments\.\w+) ", lines[0])
    assert head, "the first line is the command that uses the file"
    assert f"--flagfile={path.relative_to(ROOT)}" in lines[0]
    unknown = flag_names(lines) - defined_flags(head[1]) - ABSL_FLAGS
    assert not unknown


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.name)
def test_grid_tells_its_command_and_its_flags_exist(path):
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT)
    unknown = set()

    def note(words):
        unknown.update(flag_names(words))

    if path.suffix == ".txt":
        assert f"python -m experiments.sweeps.ablate --grid={name}" in text
        read_grid(path, note)
    else:
        assert f"python -m experiments.sweeps.tune --space={name}" in text
        tuner = pytest.importorskip("keras_tuner", reason="extra `tune`")
        check_space(tuner, path, load_space(path), note)
    unknown -= defined_flags("experiments.train")
    assert not unknown - ABSL_FLAGS


@pytest.mark.parametrize("module", MAINS)
def test_help_explains_every_flag(module):
    own = help_of(module).split("\nabsl.")[0]
    found = re.findall(r"^  --(?:\[no\])?(\w+)(?::|\b)(.*)", own, re.M)
    assert found
    assert not [name for name, words in found if not words.strip()]


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module):
    result = doctest.testmod(
        importlib.import_module(module),
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert result.failed == 0


@pytest.mark.parametrize(
    "module",
    [
        name
        for name in MODULES
        if re.match(
            r"acnn_tf\.(layers|models|losses|metrics|optimizers)\b", name
        )
    ],
)
def test_public_classes_show_an_example(module):
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ">>>" in (ast.get_docstring(node) or ""), node.name


def test_map_of_the_tree_is_true():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```text\n(README\.md.*?)```", text, re.DOTALL)[1]
    listed, folders = set(), []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        listed.add("".join(folders[: depth + 1]))
    missing = {name for name in listed if not (ROOT / name).exists()}
    assert not missing, f"listed, but not there: {missing}"
    there = {
        str(path.relative_to(ROOT))
        for pattern in ("acnn_tf/**/*.py", "experiments/*.py", "notebooks/*")
        for path in ROOT.glob(pattern)
        if path.is_file() and path.name != "__init__.py"
    }
    assert not there - listed, f"there, but not listed: {there - listed}"
