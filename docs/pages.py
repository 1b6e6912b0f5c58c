"""The pages that `make docs` builds: documents, notebooks and the public API.

They lie in the site as the files lie in the repository, so a link that leads
somewhere in the one does so in the other. MkDocs calls `on_files`; mkdocstrings
makes the reference of the docstrings, by way of `Docstrings`.
"""

import ast
import json
import pkgutil
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File, Files

import acnn_tf

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\]\(\s*([^)#\s]+)")
_DOCTEST = re.compile(r"^>>> .*(?:\n\S.*)*", re.MULTILINE)
_CALL_ARGUMENTS = re.compile(
    r"^Call arguments:\n(?:(?:    .*)?\n)+", re.MULTILINE
)


class Docstrings(griffe.Extension):
    """Writes the docstrings as Markdown, where they are something else."""

    def on_instance(self, *, obj, **arguments):
        if obj.docstring is not None:
            text = _DOCTEST.sub(_fenced, obj.docstring.value)
            obj.docstring.value = _CALL_ARGUMENTS.sub(_listed, text)


def _fenced(match):
    code = re.sub(r"\s*# doctest: .*", "", match[0])
    return f"```pycon\n{code}\n```"


def _listed(match):
    return re.sub(
        r"^    (\w+): ", r"    - `\1`: ", match[0], flags=re.MULTILINE
    )


def on_files(files, config):
    """Returns the files of the site, and lays down its menu.

    Args:
        files: Those that MkDocs has found, which are made anew.
        config: MkDocs' configuration, whose `nav` is set.

    Returns:
        `mkdocs.structure.files.Files`.
    """
    theme = [file for file in files if file.src_dir != config["docs_dir"]]
    guides = {
        **_notebooks(),
        **_documents("docs/*.md"),
        **_documents("experiments/README.md"),
    }
    reference = dict(_reference())
    first, others = _documents("README.md"), _documents("BUILD.md")
    others |= _documents("CONTRIBUTING.md") | _documents("CHANGELOG.md")
    pages = first | others | guides | reference
    config["nav"] = [
        *first,
        "BUILD.md",
        {"Guides": list(guides)},
        {"Reference": list(reference)},
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ]
    generated = [
        File.generated(config, uri, content=text) for uri, text in pages.items()
    ]
    generated += [
        File.generated(config, uri, abs_src_path=str(ROOT / uri))
        for uri in sorted(set(_linked(pages)) - pages.keys())
    ]
    return Files([*theme, *generated])


def _documents(pattern):
    """Documents, with links to notebooks turned to their pages."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(
            encoding="utf-8"
        ).replace(".ipynb)", ".md)")
        for path in sorted(ROOT.glob(pattern))
    }


def _notebooks():
    """Notebooks as Markdown; their pictures are within it."""
    pages = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        blocks = [block for cell in cells for block in _blocks(cell)]
        pages[f"notebooks/{path.stem}.md"] = "\n\n".join(blocks)
    return pages


def _blocks(cell):
    """A cell of a notebook, and what it has printed."""
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![](data:image/png;base64,{data['image/png'].strip()})"
        else:
            lines = output.get("text") or data.get("text/plain", [])
            yield f"```text\n{''.join(lines).rstrip()}\n```"


def _reference():
    """A page for each public module; its names are those of `__all__`.

    Nothing but `acnn_tf` and `acnn_tf.data` is imported: neither needs
    TensorFlow.
    """
    # What is used first comes first.
    for name in sorted(acnn_tf.__all__, key=lambda one: one != "retriever"):
        folder = ROOT / "acnn_tf" / name
        text = f"# acnn_tf.{name}\n\n"
        if folder.with_suffix(".py").exists():
            options = "{show_root_heading: false, show_root_toc_entry: false}"
            text += f"::: acnn_tf.{name}\n    options: {options}\n"
        elif folder.is_dir():
            tree = ast.parse((folder / "__init__.py").read_text("utf-8"))
            blocks = "\n".join(f"::: {one}\n" for one in _names(name, tree))
            text += f"{ast.get_docstring(tree)}\n\n{blocks}"
        else:  # a name of another module
            continue
        yield f"reference/{name}.md", text


def _names(package, tree):
    """The full names of what a package offers."""
    if package == "data":  # which imports each name when it is first used
        for name in acnn_tf.data.__all__:
            yield f"acnn_tf.data.{acnn_tf.data._MODULES[name]}.{name}"
        return
    found = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    for node in found:
        for alias in node.names:
            yield f"{node.module}.{alias.name}"
    if not found:  # its modules are used by their names
        for module in pkgutil.iter_modules([ROOT / "acnn_tf" / package]):
            yield f"acnn_tf.{package}.{module.name}"


def _linked(pages):
    """Files of the repository that pages link to, and that are no pages."""
    for uri, text in pages.items():
        for link in _LINK.findall(text):
            if ":" in link:
                continue
            path = (ROOT / uri).parent.joinpath(link).resolve()
            if path.is_file():
                yield path.relative_to(ROOT).as_posix()
