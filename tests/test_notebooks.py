"""The notebooks: they run, and are committed with what they show."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.test_project import assert_none

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# How a line of a log begins, and what draws a bar or colours.
NOISE = re.compile(r"^(?:WARNING|[IWEF]\d{4} )|[\b\x1b]|\r(?!\n)", re.M)
MAX_BYTES = 300_000


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def offences(notebook):
    """What a reader of a notebook should not meet."""
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        yield "was not run from its first cell to its last"
    outputs = [output for cell in cells for output in cell.outputs]
    for output in outputs:
        text = output.get("text", "")
        if output.output_type == "error":
            yield f"ends with {output.ename}"
        elif output.get("name") == "stderr" or NOISE.search(text):
            yield f"shows noise: {text[:80]!r}"
    if not any("image/png" in output.get("data", {}) for output in outputs):
        yield "shows no picture"


def test_notebooks_are_committed_with_their_outputs_and_no_noise():
    assert {path.stem for path in NOTEBOOKS} >= {
        *("model_fit", "own_videos", "fine_tune"),
    }
    found = []
    for path in NOTEBOOKS:
        reasons = list(offences(nbformat.read(path, 4)))
        if (size := path.stat().st_size) > MAX_BYTES:
            reasons.append(f"has {size:,} bytes, more than {MAX_BYTES:,}")
        found += [f"{path.name} {reason}; make notebooks" for reason in reasons]
    assert_none(found)


def test_noise_in_a_notebook_is_seen():
    cell = nbformat.v4.new_code_cell(execution_count=2)
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=text)
        for text in ("a\nI0000 00:00 port.cc:153] oneDNN", "1/9\b\b", "fine")
    ]
    cell.outputs.append(nbformat.v4.new_output("error", ename="KeyError"))
    found = list(offences(nbformat.v4.new_notebook(cells=[cell])))
    for reason, words in zip(
        found, ("first cell", "oneDNN", "1/9", "KeyError", "no picture")
    ):
        assert words in reason
    assert len(found) == 5


@pytest.mark.soak
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, 4)
    sizes = "NUM_VIDEOS, EPOCHS = "
    changed = 0
    for cell in notebook.cells:
        changed += sizes in cell.source
        cell.source = re.sub(f"{sizes}.*", f"{sizes}8, 1", cell.source)
    assert changed == 1
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert_none(offences(notebook))
    assert not list(tmp_path.iterdir())
