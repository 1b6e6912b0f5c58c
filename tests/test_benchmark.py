"""The benchmark: that it runs and what it reports, not how fast anything is."""

import collections
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import measure
from tests.processes import ROOT, run_module

# Those that start no processes but to measure memory, and are soon done.
PARTS = ("cross", "context", "encode", "search")
LONG_PARTS = ("video", "step", "serve", "input")
KEYS = {
    *("part", "case", "against", "ratio", "memory_ratio", "gemm_share"),
    *("max_relative_error", "seconds", "other_seconds"),
    *("memory_mb", "other_memory_mb"),
}
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="this system has no /proc to read peak memory from",
)


@pytest.fixture(autouse=True)
def one_run_a_turn(monkeypatch):
    monkeypatch.setattr(measure, "PAUSE", 0.0)
    monkeypatch.setattr(measure, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(measure, "PRODUCT_SIZE", 64)


def check(row):
    """That a row is whole, and what it holds against each other agrees."""
    assert KEYS <= row.keys()
    assert row["seconds"] > 0
    if row["ratio"] is None:  # a load on a server
        assert row["codes"]["OK"] > 0
        return
    assert row["ratio"] == pytest.approx(row["other_seconds"] / row["seconds"])
    # bfloat16 keeps 8 bits.
    bound = 2**-7 if "bfloat16" in row["case"] else 1e-4
    if row["max_relative_error"] is not None:
        assert row["max_relative_error"] < bound, row
    assert row.get("same_top_10", 1) == 1
    if row["part"] == "cross":
        assert row["max_relative_error_float64"] < 1e-12


@pytest.mark.soak
def test_ways_that_are_held_against_each_other_agree(monkeypatch):
    nothing = collections.defaultdict(lambda: None)
    monkeypatch.setattr(measure, "peaks", lambda make, *arguments: nothing)
    for part in PARTS:
        module = importlib.import_module(f"experiments.benchmarks.{part}")
        rows = module.rows(smoke=True, rounds=1)
        assert {row["part"] for row in rows} == {part}
        for row in rows:
            check(row)
            assert row["max_relative_error"] is not None


@pytest.mark.soak
@needs_proc
def test_benchmark_writes_rows_with_their_machine_and_prints_them(tmp_path):
    flags = ("--smoke", "--json", "--rounds=1", f"--out={tmp_path}")
    done = run_module("experiments.benchmark", *flags, "--parts=encode")
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["rows"] == json.loads(done.stdout) != []
    for row in written["rows"]:  # measured in a process of its own
        assert row["memory_mb"] >= 0
        assert row["other_memory_mb"] >= 0
    assert {"processor", "cores", "tensorflow"} <= written["machine"].keys()


@pytest.mark.soak
def test_all_parts_run(tmp_path):
    # No fork: gRPC, with which a server is asked, may hang in one.
    command = [sys.executable, "-m", "experiments.benchmark", "--smoke"]
    command += ["--json", "--rounds=1", f"--out={tmp_path}"]
    command += [f"--parts={','.join([*PARTS, *LONG_PARTS])}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    rows = json.loads(done.stdout)
    assert {row["part"] for row in rows} == {*PARTS, *LONG_PARTS}
    for row in rows:
        check(row)
        if row["part"] in ("cross", "context", "encode", "step"):
            assert row["memory_mb"] >= 0
            assert row["other_memory_mb"] >= 0


def test_candidates_run_in_turn_and_quick_ones_several_times(monkeypatch):
    calls = []
    candidates = {name: lambda n=name: calls.append(n) for name in "ABC"}
    measure.in_turn(candidates, rounds=2)
    assert "".join(calls) == "ABC" * 3  # the first to warm up
    monkeypatch.setattr(measure, "TURN_SECONDS", 0.1)
    calls.clear()
    measured = measure.in_turn(candidates, rounds=1)
    assert calls.count("A") > 10
    assert 0 < measured["A"] < 0.01


@needs_proc
def test_peak_memory_sees_what_a_function_touches_and_no_more():
    # 64 * 2^20 bytes are 67 MB; they are gone when the function returns.
    peak = measure.peak_memory(lambda: np.ones(64 * 2**20, np.uint8))
    assert 60 < peak < 90
    kept = np.ones(64 * 2**20, np.uint8)
    peak = measure.peak_memory(lambda: np.ones(16 * 2**20, np.uint8))
    assert peak < 30
    assert kept.all()


def test_relative_error_is_the_worst_of_all_arrays():
    ours = [np.array([1.0, 10.0]), np.array([3.0])]
    other = [np.array([2.0, 10.0]), np.array([4.0])]
    # 1 / 10 and 1 / 4.
    assert measure.max_relative_error(ours, other) == 0.25
    with pytest.raises(ValueError, match="one shape"):
        measure.max_relative_error([np.zeros(2)], [np.zeros((2, 1))])


TABLE = """
from experiments.benchmark import table
from experiments.benchmarks import measure

print(*table([measure.row("p", "c", "a", 0.001, 0.02)]), sep="\\n")
"""


def test_table_shows_what_does_not_apply_as_a_dash():
    # In a process of its own: the flags of this main are also those of others.
    heading, line = run_module("-c", TABLE).stdout.splitlines()
    assert heading.split()[:4] == ["part", "case", "against", "ratio"]
    shown = "p c a 20.0x - - - 1.00 20.00 - - - - - - - -"
    assert line.split() == shown.split()
