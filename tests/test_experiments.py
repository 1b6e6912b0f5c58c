"""The mains, run as a user runs them."""

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from acnn_tf.data import annotations, synthetic
from acnn_tf.files.locks import locked
from acnn_tf.models import load_model
from tests.processes import Started, run_module

ROOT = Path(__file__).resolve().parents[1]


def run(main, *arguments, code=0):
    return run_module(f"experiments.{main}", *arguments, code=code)


SMALL = (
    "--window_seconds=3,6",
    "--filters=4",
    "--embedding_dim=4",
    "--hidden_dim=4",
    "--query_encoder=mean",
    "--word_dim=4",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data set of one's own: jsonl and HDF5 files."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 4), ("val", 7)):
        synthetic.write(
            synthetic.make_scenes(count, split=split), folder, split
        )
    return folder


@pytest.fixture(scope="module")
def workdir(data_dir, tmp_path_factory):
    """A trained run of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    run(
        "train",
        "--dataset=jsonl",
        f"--data_dir={data_dir}",
        f"--workdir={folder}",
        "--epochs=2",
        "--train_queries=5",
        *SMALL,
    )
    return folder


def history(workdir):
    with open(workdir / "history.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_training_leaves_what_it_promises(workdir):
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        "model.keras",
        "calibration.json",
        "history.csv",
        "training.png",
        "tensorboard",
        "checkpoints",
        "flags.txt",
    }
    for epoch, row in enumerate(history(workdir)):
        assert row["epoch"] == str(epoch)
        assert 0 <= float(row["val_mIoU"]) <= 1 >= float(row["train_mIoU"])
    assert (workdir / "training.png").read_bytes().startswith(b"\x89PNG")


def test_training_again_goes_on_where_it_stopped(workdir, tmp_path):
    # The rate of learning depends on the number of epochs, so a run that was
    # interrupted is one that lost its last checkpoint, not a shorter one.
    folder = tmp_path / "stopped"
    shutil.copytree(workdir, folder)
    max((folder / "checkpoints").glob("*.index")).unlink()
    for name in ("history.csv", "training.png"):
        (folder / name).unlink()
    flags = f"--flagfile={workdir / 'flags.txt'}", f"--workdir={folder}"
    done = run("train", *flags)
    assert history(folder) == history(workdir)
    assert (folder / "training.png").exists()
    best = max(float(row["val_mIoU"]) for row in history(workdir))
    assert f"Best val_mIoU: {best:.4f}." in done.stdout
    last = f"-m experiments.evaluate --workdir={folder}"
    assert done.stdout.endswith(f"{last}\n")
    # The header, where it goes on, and a line for what was left.
    *header, resumed, epoch = done.stdout.partition("\nBest")[0].splitlines()
    assert re.fullmatch(r"resumed at step \d+, epoch 2 of 2", resumed)
    assert re.fullmatch(
        r"epoch 2/2 +\d+ s  loss [\d.]+  R@1 IoU=.5 [.\d]+  "
        r"train R@1 IoU=.5 [.\d]+  mIoU \.\d{3}( \(best\))?",
        epoch,
    )
    words = "4 videos", "3, 6 s in", "ACNN, ", "2 epochs of", str(folder)
    for line, word in zip(header[1:], words[1:]):
        assert word in line
    assert words[0] in header[0]
    assert re.fullmatch(r"[\x20-\x7e\n]*", done.stdout + done.stderr)


def test_flags_txt_holds_every_setting_as_it_was(workdir):
    """So that the run can be repeated whatever becomes of the defaults."""
    lines = (workdir / "flags.txt").read_text().splitlines()
    # Given; of a function, of a constructor, of the table of models.
    assert {"--epochs=2", "--window_seconds=3,6", "--query_encoder=mean"} < {
        *lines
    }
    assert {
        *("--strategy=none", "--noskip_bad", "--batch_size=32", "--crop=0.5"),
        *("--learning_rate=0.001", "--schedule=cosine", "--target_iou=0.3"),
        *("--model=acnn", "--members=1", "--overlap=0.8", "--dilation=none"),
        *("--kernel_sizes=1,3,5", "--position_features", "--dropout=0.3"),
        *("--consensus_iou=0.5", "--scorer_activation=tanh"),
    } < {*lines}
    names = {line[2:].removeprefix("no").split("=")[0] for line in lines}
    # What has no value at all, or one that follows from others.
    printed = run("train", "--help").stdout
    defined = set(re.findall(r"^  --(?:\[no\])?(\w+)", printed, re.M))
    assert defined - names == {
        *("flagfile", "verbosity", "help"),
        *("annotations", "durations", "num_frames", "features"),
        *("videos", "encoder", "fps", "init_from"),
        *(f"val_{name}" for name in ("annotations", "durations")),
        *("val_num_frames", "val_features", "sentence_vectors"),
        *("word_vectors", "clip_seconds", "window_frames", "frame_rate"),
        *("context_size", "memory_activation", "pool_size"),
        *("num_replicas", "videos_in_memory", "checkpoint_steps"),
        *("positive_weight", "negative_weight"),
    }


@pytest.mark.soak
def test_a_training_from_a_trained_model_goes_on_where_it_stopped(
    data_dir, workdir, tmp_path
):
    moments = annotations.read_moments(data_dir / "train.jsonl", "jsonl")
    moments[0] = dataclasses.replace(moments[0], query="an okapi rises")
    annotations.write_jsonl(moments, tmp_path / "okapi.jsonl")
    folder = tmp_path / "run"
    begun = run(
        *("train", "--dataset=jsonl", f"--data_dir={data_dir}"),
        *(f"--annotations={tmp_path / 'okapi.jsonl'}", f"--workdir={folder}"),
        *(f"--init_from={workdir}", "--epochs=2", "--dropout=0.1"),
    )
    assert re.search(
        r"of the \d+ words of the sentences; 3 are added", begun.stderr
    )
    lines = (folder / "flags.txt").read_text().splitlines()
    assert {f"--init_from={workdir}", "--filters=4", "--dropout=0.1"} < {*lines}
    assert any(line.startswith("# sha256 of init_from: ") for line in lines)
    assert load_model(folder / "model.keras").vocabulary == [
        *load_model(workdir / "model.keras").vocabulary,
        *("an", "okapi", "rises"),
    ]
    done = history(folder)
    max((folder / "checkpoints").glob("*.index")).unlink()
    (folder / "history.csv").unlink()
    run("train", f"--flagfile={folder / 'flags.txt'}")
    assert history(folder) == done


def test_evaluation_prints_table_json_predictions_and_pictures(
    data_dir, workdir, tmp_path
):
    out = tmp_path / "predictions.jsonl"
    arguments = (
        "evaluate",
        f"--workdir={workdir}",
        f"--predictions_out={out}",
        "--timelines=2",
        "--shuffled",
        f"--report={tmp_path / 'report.html'}",
    )
    printed = json.loads(run(*arguments, "--json").stdout)
    folder = workdir / "pictures" / f"{data_dir.name}-val"
    assert len(list((folder / "timelines").glob("*.png"))) == 2
    assert (folder / "table.png").exists()
    page = (tmp_path / "report.html").read_text()
    for words in (f"{data_dir.name}, val", "shuffled", 'class="curve"'):
        assert words in page
    for results in (printed, printed["shuffled"], printed["chance"]):
        assert 0 <= results["R@1,IoU=0.5"] <= 1
        assert 0 <= results["mIoU"] <= 1
    moments = annotations.read_moments(data_dir / "val.jsonl", "jsonl")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["qid"] for line in lines] == [m.query_id for m in moments]
    for line, moment in zip(lines, moments):
        windows = np.array(line["pred_relevant_windows"])
        assert (windows[:, 0] >= 0).all()
        assert (windows[:, 1] <= moment.duration).all()
        assert (np.diff(windows[:, 2]) <= 0).all()
    # The file scores as the model did.
    scoring = (
        "evaluate",
        f"--predictions={out}",
        "--dataset=jsonl",
        f"--annotations={data_dir / 'val.jsonl'}",
        "--suppression=fixed",
    )
    for key, value in json.loads(run(*scoring, "--json").stdout).items():
        assert printed[key] == value, key
    # That of a model is what a search shows; a file is taken as it stands.
    fixed = "fixed: NMS keeps results of IoU <= 0.5"
    assert printed["protocol"] == fixed
    table = run(*scoring[:-1]).stdout
    count = len(moments)
    assert table.startswith(
        f"predictions on data0, val: {count} queries, none: no suppression"
    )
    assert re.search(r"R@1 +[\d. ]+", table)
    window = lines[0] | {"pred_relevant_windows": [[0, np.nan, 1]]}
    out.write_text(json.dumps(window))
    done = run(*scoring, "--json", code=2)
    assert done.stdout == ""
    assert "predictions.jsonl:1: a window must be" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.soak
def test_two_replicas_train_on_pairs_and_evaluate_as_one(
    data_dir, workdir, tmp_path
):
    mirrored = ("--strategy=mirrored", "--num_replicas=2")
    arguments = ("evaluate", f"--workdir={workdir}", "--json", "--timelines=0")
    one, two = run(*arguments), run(*arguments, *mirrored)
    assert json.loads(one.stdout) == json.loads(two.stdout)
    run(
        "train",
        "--dataset=jsonl",
        f"--data_dir={data_dir}",
        f"--workdir={tmp_path}",
        "--batches=pairs",
        "--video_negatives=2",
        "--epochs=1",
        *SMALL,
        *mirrored,
        *("--checkpoint_steps=3", "--overlap=0.5"),
    )
    assert [row["epoch"] for row in history(tmp_path)] == ["0"]


def test_search_prints_moments_of_all_videos(data_dir, workdir, tmp_path):
    (tmp_path / "queries.txt").write_text("a circle\n\na zebra\n")
    arguments = (
        "search",
        f"--workdir={workdir}",
        f"--features={data_dir / 'features_val.hdf5'}",
        "--query=the red circle moves left",
        "--top=3",
    )
    file = f"--queries_file={tmp_path / 'queries.txt'}"
    lines = run(*arguments, file, "--json").stdout.splitlines()
    answers = {a["query"]: a["moments"] for a in map(json.loads, lines)}
    queries = ["the red circle moves left", "a circle", "a zebra"]
    assert list(answers) == queries
    for moments in answers.values():
        scores = [moment["score"] for moment in moments]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= m["start"] < m["end"] for m in moments)


def test_bad_input_is_named_and_leaves_nothing_behind(data_dir, tmp_path):
    lines = (data_dir / "train.jsonl").read_text().splitlines()
    record = json.loads(lines[1])
    record["relevant_windows"] = [[9.0, 3.0]]
    lines[1] = json.dumps(record)
    bad = tmp_path / "train.jsonl"
    bad.write_text("\n".join(lines) + "\n")
    arguments = (
        "train",
        "--dataset=jsonl",
        f"--annotations={bad}",
        f"--features={data_dir / 'features_train.hdf5'}",
        f"--val_annotations={data_dir / 'val.jsonl'}",
        f"--val_features={data_dir / 'features_val.hdf5'}",
        f"--workdir={tmp_path / 'run'}",
    )
    error = run(*arguments, code=2).stderr
    assert f"{bad}:2" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_second_training_is_refused_before_its_data_is_read(tmp_path):
    with locked(tmp_path):
        flags = "--dataset=jsonl", "--data_dir=none", f"--workdir={tmp_path}"
        error = run("train", *flags, code=2).stderr
        assert os.listdir(tmp_path) == [".lock"]
    told = f"FolderInUseError: {tmp_path} is in use by process {os.getpid()} on"
    assert error.startswith(told)
    assert "Traceback" not in error


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A folder in which a small quick start has run, and what it printed."""
    folder = tmp_path_factory.mktemp("quick")
    workdir = folder / "runs" / "quickstart"
    printed = run("quickstart", "--smoke", f"--workdir={workdir}").stdout
    return folder, printed


# That its steps fit together and end with an answer: tests/test_documents.py.
@pytest.mark.soak
def test_quickstart_goes_all_the_way(quickstart):
    folder, printed = quickstart
    workdir = folder / "runs" / "quickstart"
    for words in ("R@10", "shuffled", "chance", "Pictures:", "To serve"):
        assert words in printed
    # It ends with what was asked for.
    *_, video, query, found, _, true = printed.splitlines()
    assert (
        video == f"{workdir}/data/new/scene_500000.mp4, which it has not seen:"
    )
    (sentence, *_) = synthetic.name_moments("scene_500000")
    assert query == f"  {sentence.query}"
    assert re.fullmatch(r"    found +[\d.]+ to +[\d.]+ s, score .*", found)
    assert re.fullmatch(r"    true +[\d.]+ to +[\d.]+ s", true)
    for name in ("model.keras", "training.png", "pictures"):
        assert (workdir / name).exists()


def blocks_of(document, language):
    """The fenced blocks of a document in a language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.soak
def test_readme_python_prints_what_it_says(quickstart, monkeypatch, capsys):
    monkeypatch.chdir(quickstart[0])
    (code,) = blocks_of("README.md", "python")
    (said,) = blocks_of("README.md", "text")
    exec(compile(code, "README.md", "exec"), {})
    form = re.sub(r"[\d.]+", "N", said)
    assert re.sub(r"[\d.]+", "N", capsys.readouterr().out) == form


def recipe(target):
    """The commands of a target of the Makefile, as lists of words."""
    command = ["make", "-n", "-o", ".venv/ready", target, "DEMO_ARGS=--port=0"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.replace("\\\n", " ").splitlines()
    found = [
        re.search(r"\.venv/bin/python -m ([^;]*);? ?}?$", x) for x in lines
    ]
    return [shlex.split(match[1]) for match in found if match]


@pytest.mark.soak
def test_readme_commands_run(quickstart):
    folder, _ = quickstart
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for block in blocks_of("README.md", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            if words == ["make", "quickstart"]:
                # The fixture has run it.
                assert recipe("quickstart") == [["experiments.quickstart"]]
            elif words == ["make", "demo"]:
                # The first is for those who had no quick start.
                page = Started(*recipe("demo")[-1], cwd=folder)
                assert page.first_line().startswith("The page is at http")
                page.kill()
                page.finish()
            elif words[:2] == ["pip", "install"]:
                for extra in re.findall(r"\w+", words[-1]):
                    assert f'"{extra}"' in setup, line
            else:
                assert words[:2] == ["python", "-m"], f"not tried: {line}"
                printed = run_module(*words[2:], cwd=folder).stdout
                assert re.match(r"\d+:[\d.]+ - \d+:[\d.]+ ", printed), printed


@pytest.mark.soak
def test_training_finds_the_planted_moments(tmp_path):
    """The whole path: a true signal is found, and only with the sentence."""
    run(
        "train",
        *("--dataset=synthetic", "--num_scenes=120", f"--workdir={tmp_path}"),
        *("--window_seconds=3,4.5,6.5,9", "--epochs=8", "--learning_rate=3e-3"),
        *("--ema_momentum=0", "--crop=0", "--word_dim=32", "--filters=32"),
        *("--query_encoder=mean", "--embedding_dim=32", "--hidden_dim=64"),
        *("--dropout=0.1", "--clip_dropout=0.1", "--overlap=0.5"),
        "--kernel_sizes=1,3",
    )
    flags = f"--workdir={tmp_path}", "--shuffled", "--json", "--timelines=0"
    found = json.loads(run("evaluate", *flags).stdout)
    key = "R@1,IoU=0.5"
    assert found[key] > 3 * found["chance"][key]
    assert found["shuffled"][key] < 0.6 * found[key]
