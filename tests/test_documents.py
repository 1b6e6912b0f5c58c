"""What the documents, flagfiles and docstrings promise, tried.

One test a promise, which lists all that break it.
"""

import ast
import doctest
import functools
import importlib
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras_tuner
import pytest
import yaml

import acnn_tf
from acnn_tf.data import synthetic
from experiments.sweeps.grid import read_grid
from experiments.sweeps.spaces import check_space, load_space
from tests.processes import run_module, run_script
from tests.test_project import assert_none, module_of, name_of, text_of

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md")])
FLAGFILES = sorted(ROOT.glob("experiments/flags/*.flags"))
GRIDS = sorted(ROOT.glob("experiments/grids/*.*"))
MODULES = {
    module_of(path): path
    for path in sorted(ROOT.glob("acnn_tf/**/*.py"))
    if path.name != "__init__.py"
}
# Those that a user starts.
MAINS = {
    module_of(path).removesuffix(".__main__"): path
    for package in ("experiments", "export", "demo")
    for path in sorted(ROOT.glob(f"{package}/**/*.py"))
    if 'if __name__ == "__main__":' in text_of(path)
    and path.parent.name != "benchmarks"
}
# Those that every main has, and Beam's, which some pass on.
ABSL_FLAGS = {"flagfile", "undefok", "help", "helpshort", "helpfull"}
ABSL_FLAGS |= {"runner", "direct_num_workers", "direct_running_mode"}
ABSL_FLAGS |= {"dask_client_address"}
COMMAND = re.compile(
    r"python -m ((?:experiments|export)(?:\.\w+)+|demo)\b(?!\")"
    r"((?:[^`#\n\\]|\\\n)*)"
)


# A fork for each main: none has loaded what another has.
HELP = """
import os, runpy, sys
for main in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    sys.argv, code = [main, "--help"], 0
    try:
        runpy.run_module(main, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code
    heavy = sorted({"tensorflow", "keras", "torch"} & set(sys.modules))
    print("\\nIMPORTED", main, code, *heavy, flush=True)
    os._exit(0)
"""


@functools.cache
def printed_help():
    """The help of every main, with its exit code and what it imported."""
    text = run_script(HELP, *MAINS)
    return re.findall(r"([\s\S]*?)\nIMPORTED (.*)\n", text)


def help_of(module):
    return printed_help()[list(MAINS).index(module)][0]


def test_help_waits_for_no_tensorflow_and_ends_with_0():
    assert [how for _, how in printed_help()] == [f"{m} 0" for m in MAINS]
    assert len(MAINS) > 10


def ungrouped_help():
    for module in MAINS:
        text = help_of(module)
        headings = re.findall(r"^[A-Z][\w, ]+:$", text, re.M)
        count = len(re.findall(r"^  --", text, re.M))
        if count > 12 and len(headings) < 3:
            yield f"{module} --help: {count} flags under {headings}"
        if longer := [line for line in text.splitlines() if len(line) > 80]:
            yield f"{module} --help: longer than 80 columns: {longer}"


def test_help_groups_flags_by_subject():
    assert_none(ungrouped_help())
    text = help_of("experiments.train")
    groups = dict(re.findall(r"^([A-Z].*):\n((?:  .*\n)+)", text, re.M))
    for title, line in (
        ("Flags", "--workdir               Folder of the run. Required."),
        ("Batches", "--batch_size            Queries in a batch. Default: 32."),
        ("Model", "--filters "),
        ("Data", "--val_features "),
    ):
        assert f"  {line}" in groups[title]


@functools.cache
def defined_flags(module):
    """Flags of `module`, as it tells them itself."""
    found = set()
    for no, name in re.findall(
        r"^  --(\[no\])?(\w+)(?: |$)", help_of(module), re.M
    ):
        found |= {name, f"no{name}"} if no else {name}
    return found


# The quick start, whose steps are told and not done.
QUICKSTART = """
import json
from experiments import quickstart
from export import command

def step(*words):
    print("STEP", json.dumps(words))
    found = {"start": 1.0, "end": 2.5, "score": 0.25}
    return json.dumps({"moments": [found]})

quickstart.step = step
command.run(quickstart.run)
"""


def test_steps_of_the_quickstart_fit_together_and_end_with_an_answer(tmp_path):
    arguments = "--smoke", f"--workdir={tmp_path / 'run'}"
    lines = run_module("-c", QUICKSTART, *arguments).stdout.splitlines()
    steps = [json.loads(x[5:]) for x in lines if x.startswith("STEP ")]
    assert [module for module, *_ in steps] == [
        *["experiments.extract_features"] * 2,
        *("experiments.train", "experiments.evaluate", "export.saved_model"),
        "experiments.predict",
    ]
    made, named = set(tmp_path.rglob("*")), set()
    for module, *words in steps:
        assert not unknown_flags(module, words)
        for name, _, value in (word.partition("=") for word in words):
            paths = [Path(x) for x in value.split(",") if x[:1] == "/"]
            (made if name == "--out" else named).update(paths)
    made.add(tmp_path / "run" / "models")  # of the servable
    assert named <= made
    data = tmp_path / "run" / "data"
    for split in ("train", "val", "test"):
        assert (data / f"{split}.jsonl").exists()
    (sentence, *_) = synthetic.name_moments("scene_500000")
    (start, end), *_ = sentence.segments
    assert lines[-4:] == [
        f"{data}/new/scene_500000.mp4, which it has not seen:",
        f"  {sentence.query}",
        "    found   1.0 to   2.5 s, score 0.25",
        f"    true  {start:5.1f} to {end:5.1f} s",
    ]


def flag_names(words):
    return {
        word.lstrip("-").split("=")[0] for word in words if word[:2] == "--"
    }


def unknown_flags(module, words):
    return flag_names(words) - defined_flags(module) - ABSL_FLAGS


def broken_commands():
    for path in [*DOCUMENTS, *FLAGFILES, *GRIDS, *MAINS.values()]:
        text = text_of(path)
        if path in (*FLAGFILES, *GRIDS):
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        for module, arguments in COMMAND.findall(text):
            where = f"{name_of(path)}: {module} {' '.join(arguments.split())}"
            if module not in MAINS:
                yield f"{where}: no such main"
                continue
            words = shlex.split(arguments.replace("\\\n", " "))
            for flag in unknown_flags(module, words):
                yield f"{where}: no flag --{flag}"
            for word in words:
                if word.startswith("--flagfile=experiments/"):
                    if not ROOT.joinpath(word.split("=")[1]).is_file():
                        yield f"{where}: no file {word}"


def test_documented_commands_exist():
    assert_none(broken_commands())


def test_flags_and_targets_in_prose_exist():
    known = set.union(ABSL_FLAGS, *map(defined_flags, MAINS))
    makefile = text_of(ROOT / "Makefile")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    offenders = []
    for path in DOCUMENTS:
        flags = set(re.findall(r"`--(\w+)", text_of(path)))
        made = re.findall(r"(?:^|`)make ([a-z0-9-]+)", text_of(path), re.M)
        offenders += [f"{name_of(path)}: --{flag}" for flag in flags - known]
        offenders += [
            f"{name_of(path)}: make {target}" for target in {*made} - targets
        ]
    assert_none(offenders)


def broken_flagfiles():
    for path in FLAGFILES:
        lines = text_of(path).splitlines()
        head = re.match(r"# python -m (experiments\.\w+) ", lines[0])
        if not head or f"--flagfile={name_of(path)}" not in lines[0]:
            yield f"{name_of(path)}: the first line is not its command"
            continue
        for flag in unknown_flags(head[1], lines):
            yield f"{name_of(path)}: {head[1]} has no --{flag}"


def test_a_flagfile_starts_with_its_command_and_its_flags_exist():
    assert_none(broken_flagfiles())


def broken_grids():
    for path in GRIDS:
        is_grid = path.suffix == ".txt"
        main = "ablate --grid" if is_grid else "tune --space"
        command = f"python -m experiments.sweeps.{main}={name_of(path)}"
        if command not in text_of(path):
            yield f"{name_of(path)}: does not say {command}"
        unknown = set()

        def check(words, unknown=unknown):
            unknown |= unknown_flags("experiments.train", words)

        if is_grid:
            for row in read_grid(path, check):
                if re.search(r"_|--|=", row.name):
                    yield f"{name_of(path)}: {row.name!r} is no name in words"
        else:
            check_space(keras_tuner, path, load_space(path), check)
        for name in unknown:
            yield f"{name_of(path)}: experiments.train has no --{name}"


def test_a_grid_tells_its_command_and_its_flags_exist():
    assert_none(broken_grids())


def unexplained_flags():
    for module in MAINS:
        text = help_of(module)
        found = re.findall(r"^  --(?:\[no\])?(\w+)\s+(.*)", text, re.M)
        if not found:
            yield f"{module} --help names no flag"
        for name, words in found:
            if not words or words.startswith("--"):
                yield f"{module}: --{name} is not explained"


def test_help_explains_every_flag():
    assert_none(unexplained_flags())


def test_docstring_examples_run():
    printed, failed = io.StringIO(), []
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    for name in MODULES:
        module = importlib.import_module(name)
        # As pasted: with the names that the example itself imports.
        own = {"globs": {}} if name.startswith("acnn_tf.") else {}
        for example in doctest.DocTestFinder().find(module, **own):
            if runner.run(example, out=printed.write).failed:
                failed.append(example.name)
    assert not failed, "\n".join([*failed, printed.getvalue()])
    assert runner.tries > 100


def untyped_signatures():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(text_of(path))):
            if not name.startswith("acnn_tf.") or not isinstance(
                node, ast.FunctionDef
            ):
                continue
            parts = node.args
            named = [*parts.posonlyargs, *parts.args, *parts.kwonlyargs]
            if (
                not node.name.startswith("_")
                and "Args:" in (ast.get_docstring(node) or "")
                and not (
                    node.returns
                    and all(
                        one.annotation
                        for one in named
                        if one.arg not in ("self", "cls")
                    )
                )
            ):
                yield f"{name}.{node.name}"


def test_signatures_with_explained_arguments_are_typed():
    assert_none(untyped_signatures())


def test_public_classes_show_an_example():
    assert_none(
        f"{name}.{node.name}"
        for name, path in MODULES.items()
        if re.match(
            r"acnn_tf\.(layers|models|losses|metrics|optimizers)\b", name
        )
        for node in ast.parse(text_of(path)).body
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and ">>>" not in (ast.get_docstring(node) or "")
    )


LINK = re.compile(r"\]\(\s*([^)\s]+)\)")


def anchors_of(path):
    """The anchors of a document's headings, as GitHub names them."""
    for heading in re.findall(r"^#+ (.*)", text_of(path), re.M):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        yield words.replace(" ", "-")


def broken_links():
    for path in DOCUMENTS:
        for link in LINK.findall(text_of(path)):
            if re.match(r"https?://", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.exists():
                yield f"{name_of(path)}: {link} is not there"
            elif anchor and anchor not in anchors_of(target):
                yield f"{name_of(path)}: {link} has no such heading"


def test_links_of_documents_lead_somewhere():
    assert_none(broken_links())


def test_readme_names_the_papers_of_the_citation():
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    readme = " ".join(text_of(ROOT / "README.md").split())
    assert len(citation["references"]) == 3
    for paper in citation["references"]:
        where = {"doi", "url", "repository-code"} & set(paper)
        for fact in (paper["title"], *(paper[key] for key in where)):
            assert fact in readme


@pytest.mark.soak
def test_docs_are_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip(
        "mkdocstrings", reason="the extra docs is not installed"
    )
    # With --quiet MkDocs counts no warning.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, f"--site-dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = text_of(tmp_path / "reference" / "retriever.html")
    assert "acnn_tf.retriever.MomentRetriever.search" in text
    built = {path.stem for path in (tmp_path / "reference").glob("*.html")}
    assert built == set(acnn_tf.__all__) - {"__version__", "MomentRetriever"}
    for name in ("BUILD", "docs/results", "notebooks/model_fit"):
        assert (tmp_path / f"{name}.html").is_file()


def test_readme_stays_short():
    size = (ROOT / "README.md").stat().st_size
    assert size < 7000, f"README.md has {size} bytes: move some of it to docs/"


def test_rooms_of_the_tree_are_those_of_contributing():
    """Each folder of sources lies in a room; those of the package are rooms."""
    text = text_of(ROOT / "CONTRIBUTING.md")
    rows = text.split("| room | what it holds |")[1].split("\n\n")[0]
    rooms = set(re.findall(r"^\| `([\w/]+)`", rows, re.M))
    gone = {room for room in rooms if not (ROOT / room).is_dir()}
    assert not gone, f"listed, but not there: {gone}"
    folders = {
        name_of(path.parent)
        for package in ("acnn_tf", "experiments", "export", "demo", "notebooks")
        for path in (ROOT / package).rglob("*.[pi]*")
        if path.suffix in (".py", ".ipynb")
    } | {name_of(path.parent) for path in DOCUMENTS} - {"."}
    # A room within another is told by the other, but in the package itself.
    needed = {
        "/".join(folder.split("/")[: 1 + folder.startswith("acnn_tf")])
        for folder in folders
    }
    assert rooms == needed
