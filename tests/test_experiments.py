"""The mains, run as a user runs them, and the notebook."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import nbclient
import nbformat
import numpy as np
import pytest

from acnn_tf import evaluation, losses
from acnn_tf.data import annotations, batches, synthetic
from acnn_tf.data.features import write_features
from acnn_tf.data.sentences import Vocabulary
from acnn_tf.data.windows import WindowGrid
from acnn_tf.models import ACNN, load_model

ROOT = Path(__file__).resolve().parents[1]


def run(module, *arguments, code=0, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:] + done.stdout[-1000:]
    return done


SMALL = (
    "--window_seconds=3,6",
    "--filters=16",
    "--embedding_dim=16",
    "--hidden_dim=16",
    "--query_units=16",
    "--word_dim=16",
    "--train_queries=5",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data set of one's own: jsonl and HDF5 files."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 6), ("val", 3)):
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
    for name in ("history.csv", "model.keras", "training.png"):
        (folder / name).unlink()
    run(
        "train",
        f"--flagfile={workdir / 'flags.txt'}",
        f"--workdir={folder}",
    )
    assert history(folder) == history(workdir)
    whole, again = (
        load_model(path / "model.keras").get_weights()
        for path in (workdir, folder)
    )
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_evaluation_prints_table_json_predictions_and_pictures(
    data_dir, workdir, tmp_path
):
    out = tmp_path / "predictions.jsonl"
    arguments = (
        "evaluate",
        f"--workdir={workdir}",
        "--suppression=fixed",
        f"--predictions_out={out}",
    )
    table = run(*arguments, "--shuffled", "--timelines=2").stdout
    assert "fixed: NMS keeps results of IoU <= 0.5" in table
    assert re.search(r"R@1 +[\d. ]+", table)
    assert table.count("mIoU") == 3  # the model, shuffled, chance
    assert len(list((workdir / "timelines").glob("*.png"))) == 2
    results = json.loads(run(*arguments, "--json").stdout)
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
    scored = json.loads(
        run(
            "evaluate",
            f"--predictions={out}",
            "--dataset=jsonl",
            f"--annotations={data_dir / 'val.jsonl'}",
            "--suppression=fixed",
            "--json",
        ).stdout
    )
    for key, value in scored.items():
        assert results[key] == value, key


MIRRORED = ("--strategy=mirrored", "--num_replicas=2")


@pytest.mark.slow
def test_two_replicas_train_and_evaluate_as_one(data_dir, workdir, tmp_path):
    arguments = ("evaluate", f"--workdir={workdir}", "--json")
    one, two = run(*arguments), run(*arguments, *MIRRORED)
    assert json.loads(one.stdout) == json.loads(two.stdout)
    run(
        "train",
        "--dataset=jsonl",
        f"--data_dir={data_dir}",
        f"--workdir={tmp_path}",
        "--epochs=2",
        *SMALL,
        *MIRRORED,
        "--checkpoint_steps=3",
    )
    # Dropout differs; that there is a history of two epochs does not.
    assert [row["epoch"] for row in history(tmp_path)] == ["0", "1"]


def test_search_prints_moments_of_all_videos(data_dir, workdir):
    arguments = (
        "search",
        f"--workdir={workdir}",
        f"--features={data_dir / 'features_val.hdf5'}",
        "--query=the red circle moves left",
        "--top=3",
    )
    assert "scene_" in run(*arguments).stdout
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["query"] == "the red circle moves left"
    scores = [moment["score"] for moment in found["moments"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert all(m["start"] < m["end"] for m in found["moments"])


@pytest.mark.slow
def test_training_on_pairs_and_sentence_vectors(data_dir, tmp_path):
    (tmp_path / "vectors").mkdir()
    for split in ("train", "val"):
        for moment in annotations.read_moments(
            data_dir / f"{split}.jsonl", "jsonl"
        ):
            seed = sum(map(ord, moment.query))
            np.save(
                tmp_path / "vectors" / f"{moment.query_id}.npy",
                np.random.default_rng(seed).normal(size=8).astype("f4"),
            )
    workdir = tmp_path / "run"
    run(
        "train",
        "--dataset=jsonl",
        f"--data_dir={data_dir}",
        f"--sentence_vectors={tmp_path / 'vectors'}",
        f"--workdir={workdir}",
        "--batches=pairs",
        "--video_negatives=2",
        "--hidden_dim=none",
        "--scorer_activation=relu",
        "--window_seconds=2,3,4,6,8",
        "--filters=8",
        "--epochs=1",
    )
    # The vectors are those of the training run.
    printed = run("evaluate", f"--workdir={workdir}", "--split=train").stdout
    assert "model on train" in printed
    assert "R@10" in printed


@pytest.mark.slow
def test_the_papers_settings_run_on_files_in_the_layout_of_tacos(tmp_path):
    rng = np.random.default_rng(0)
    clip_seconds = 16 / 29.4
    (tmp_path / "num_frames.json").write_text('{"s1-d1": 900, "s2-d2": 700}')
    (tmp_path / "vectors").mkdir()
    for split, video, frames in (
        ("train", "s1-d1", 900),
        ("val", "s2-d2", 700),
    ):
        lines = []
        for start in (100, 300, 480):
            lines.append(
                f"{video}.avi_{start}_{start + 140}:He cuts.#He peels.#"
            )
            for number in range(2):
                name = f"{video}_{start}_{start + 140}_{number}.npy"
                vector = rng.normal(size=12).astype("float32")
                np.save(tmp_path / "vectors" / name, vector)
        (tmp_path / f"TACoS_{split}_samples.txt").write_text(
            "\n".join(lines) + "\n"
        )
        clips = rng.normal(size=(frames // 16 + 1, 10)).astype("float32")
        write_features(
            tmp_path / f"features_{split}.hdf5", {video: clips}, clip_seconds
        )
    workdir = tmp_path / "run"
    run(
        "train",
        "--flagfile=experiments/flags/tacos_paper.flags",
        f"--data_dir={tmp_path}",
        f"--sentence_vectors={tmp_path / 'vectors'}",
        f"--workdir={workdir}",
        "--epochs=1",
        "--filters=8",
    )
    model = load_model(workdir / "model.keras")
    assert model.grid == WindowGrid((64, 128, 256, 512), 0.8, 29.4)
    assert model.grid.dilation == 5
    assert model.hidden_dim is None
    assert not model.first_order_query
    assert model.offset_unit == "frames"
    assert model.scorer_activation == "relu"
    printed = run(
        "evaluate",
        f"--workdir={workdir}",
        f"--sentence_vectors={tmp_path / 'vectors'}",
        "--window_lengths=128,256",
        "--suppression=per_threshold",
    ).stdout
    assert "m - 0.05" in printed
    assert "R@10" in printed


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
    done = run(*arguments, "--skip_bad", "--smoke", *SMALL)
    assert f"{bad}:2" in done.stderr
    assert (tmp_path / "run" / "model.keras").exists()


@pytest.mark.slow
def test_quickstart_goes_all_the_way(tmp_path):
    workdir = tmp_path / "quick"
    printed = run("quickstart", "--smoke", f"--workdir={workdir}").stdout
    for words in ("R@10", "shuffled", "chance", "found", "true", "Pictures:"):
        assert words in printed
    for name in ("model.keras", "training.png", "table.png", "timelines"):
        assert (workdir / name).exists()


@pytest.mark.slow
def test_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / "model_fit.ipynb", 4)
    sizes = "NUM_VIDEOS, EPOCHS = "
    changed = 0
    for cell in notebook.cells:
        assert not cell.get("outputs"), "commit notebooks without outputs"
        if sizes in cell.source:
            cell.source = re.sub(sizes + ".*", sizes + "10, 1", cell.source)
            changed += 1
    assert changed == 1
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
    assert (tmp_path / "model.keras").exists()


@pytest.mark.slow
def test_training_finds_the_planted_moments(tmp_path):
    """The whole path: a true signal is found, and only with the sentence."""
    keras.utils.set_random_seed(0)
    train = synthetic.make_scenes(120, split="train")
    sentences = [moment.query for moment in train.moments]
    vocabulary = Vocabulary.from_sentences(sentences)
    model = ACNN(
        window_lengths=(3.0, 4.5, 6.5, 9.0),
        clip_seconds=train.clip_seconds,
        vocabulary=vocabulary.words,
        word_dim=32,
        query_units=32,
        filters=64,
        embedding_dim=32,
        hidden_dim=64,
        dropout=0.1,
    )
    model.adapt(train.features.values())
    model.compile(
        keras.optimizers.AdamW(3e-3, global_clipnorm=1.0),
        loss={
            "score": losses.VideoAlignmentLoss(),
            "offset": losses.OffsetLoss(),
            "batch_score": losses.AlignmentLoss(),
        },
        jit_compile=False,
    )
    data = batches.training_videos(
        train.moments, vocabulary.encode(sentences), train.features, model
    )
    model(next(iter(data.dataset))[0])  # builds it: the step is traced once
    model.fit(
        data.dataset,
        steps_per_epoch=data.steps_per_epoch,
        epochs=8,
        shuffle=False,
        verbose=0,
    )
    val, key = synthetic.make_scenes(40, split="val"), "R@1,IoU=0.5"
    found, _ = evaluation.evaluate(model, val.moments, val.features)
    shuffled, _ = evaluation.evaluate(
        model, val.moments, val.features, shuffle_seed=0
    )
    chance = evaluation.chance(val.moments, model.grid)
    assert found[key] > 3 * chance[key]
    assert shuffled[key] < 0.6 * found[key]
