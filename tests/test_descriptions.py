"""What made the features goes from their file into all that is made of them.

And wherever features meet a model, those that were made otherwise are refused
by name. `PLACES` and `MAINS` list where that is; a test looks for others.
"""

import ast
import functools
import importlib.util
import json
import re
import tempfile
import unittest.mock
from pathlib import Path

import numpy as np
import pytest

from acnn_tf import (
    calibration,
    callbacks,
    didemo,
    evaluation,
    models,
    qvhighlights,
    search,
)
from acnn_tf.data import batches, open_features, pair_batches, windows
from acnn_tf.data.annotations import Moment, write_jsonl
from acnn_tf.data.features import write_features
from acnn_tf.files.problems import DataError
from acnn_tf.search.index_files import IndexFiles
from experiments import run_settings
from tests import small_acnn
from tests.processes import run_module
from tests.test_index_files import write_list

ROOT = Path(__file__).resolve().parents[1]
OWN = {
    "encoder": "pixels",
    "name": "pixels",
    "frame_rate": 1.0,
    "clip_frames": 1,
    "dim": small_acnn.CLIP_DIM,
    "versions": {"keras": "3.15"},
}
# The same width, the same seconds: nothing else tells them apart.
CLIP = {**OWN, "encoder": "clip", "name": "clip:mine"}
OTHERS = {
    "made by clip:mine at 1 fps, the model learned from pixels at 1 fps": CLIP,
    "made by pixels at 2 fps, the model": {**OWN, "frame_rate": 2.0},
    r"pixels at 1 fps \(size \[8, 8\]\), the model": {**OWN, "size": [8, 8]},
}
# Those of another version count as the same.
SAME = {**OWN, "versions": {"keras": "3.99"}}
NAMED, *_ = OTHERS
MOMENTS = [
    Moment(f"q{n}", "a person opens the door", f"v0{n}", 9.0, ((1.0, 4.0),))
    for n in range(3)
]
CLIPS = {
    moment.video_id: np.random.default_rng(n)
    .normal(1, 2, (9, small_acnn.CLIP_DIM))
    .astype(np.float32)
    for n, moment in enumerate(MOMENTS)
}
DURATIONS = dict.fromkeys(CLIPS, 9.0)
make_model = functools.partial(small_acnn.make_model, query_encoder="mean")


@pytest.fixture(scope="module")
def model():
    return make_model(encoder=OWN)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Features of the same numbers, made otherwise: open files by name."""
    folder = tmp_path_factory.mktemp("features")
    described = {"own": OWN, "same": SAME, "unknown": None, **OTHERS}
    opened = {}
    for number, (name, encoder) in enumerate(described.items()):
        path = folder / f"{number}.hdf5"
        write_features(path, CLIPS, 1.0, encoder)
        opened[name] = open_features(path)
    return opened


# The way of a description


def test_it_comes_back_with_a_model(tmp_path, subtests):
    settings = {"query_encoder": "mean", "filters": 2, "embedding_dim": 2}
    path = tmp_path / "model.keras"
    for made in (
        models.ACNN(encoder=OWN, **settings),
        models.Ensemble(models.ACNN, 2, encoder=OWN, **settings),
        models.ACNN(**settings),
    ):
        with subtests.test(type(made).__name__):
            made.build({"clip": (None, None, 6), "query": (None, 9)})
            models.save_model(made, path)
            loaded = models.load_model(path)
            assert loaded.encoder == made.encoder
            assert json.loads(json.dumps(loaded.encoder)) == loaded.encoder
            again = type(made).from_config(made.get_config())
            assert again.encoder == made.encoder
    assert loaded.encoder is None
    with pytest.raises(ValueError, match="`encoder`: expected text as `name`"):
        models.CTRL(encoder={"encoder": "clip"})


def test_a_model_of_before_it_has_none(tmp_path):
    model = make_model()
    config = model.get_config()
    del config["encoder"]
    assert models.ACNN.from_config(config).encoder is None


def test_it_is_kept_in_an_index_and_all_its_parts(model, files, tmp_path):
    path = tmp_path / "index"
    index = small_acnn.make_index(model, path, files["own"])
    assert index.encoder == OWN
    for features in (files["same"], files["unknown"]):
        index.add_missing(features)
    # The model need not know: then the first features decide.
    silent = make_model()
    assert search.MomentIndex(silent, path).encoder == OWN
    kept = small_acnn.make_index(silent, None, files["own"])
    assert kept.encoder == OWN
    kept.save(tmp_path / "kept")
    for index in (kept, search.MomentIndex(silent, tmp_path / "kept")):
        with pytest.raises(DataError, match=NAMED):
            index.add_missing(files[NAMED])
        assert len(index) == len(CLIPS)
    # Nor features, nor an index of before.
    taken = small_acnn.make_index(silent, tmp_path / "taken", files["unknown"])
    assert taken.encoder is None
    listed = tmp_path / "taken" / "videos-00000.json"
    about = json.loads(listed.read_text())
    del about["encoder"]
    write_list(listed.parent, 0, json.dumps(about).encode())
    assert search.MomentIndex(model, listed.parent).encoder == OWN


def test_an_index_of_another_encoder_is_refused(refused, files, tmp_path):
    # The same weights, as those of a model without any.
    path = tmp_path / "index"
    own, other = (make_model(encoder=e) for e in (OWN, CLIP))
    small_acnn.make_index(own, path, files["own"])
    told = r"videos-00000\.json: made by pixels .*: build the index again"
    with refused(search.IndexFileError, told):
        search.MomentIndex(other, path)
    listed = path / "videos-00000.json"
    about = json.loads(listed.read_text())
    for wrong in ("pixels", {"name": "pixels"}, OWN | {"dim": "6"}):
        write_list(path, 0, json.dumps(about | {"encoder": wrong}).encode())
        with refused(search.IndexFileError, r"json is damaged: expected"):
            search.MomentIndex(own, path)


def test_shards_of_another_encoder_are_refused(files, tmp_path):
    silent = make_model()
    shards = search.assign_videos(DURATIONS, 2, silent.grid)
    for number, name in ((0, "own"), (1, NAMED)):
        found = search.done_shards(
            tmp_path, silent, shards, None, files["own"].encoder
        )
        assert found == set(range(number))
        features = files[name]
        small_acnn.encode_shards(silent, features, shards, tmp_path, {number})
    with pytest.raises(search.IndexFileError, match="made by clip:mine"):
        search.done_shards(tmp_path, silent, shards, None, OWN)
    with pytest.raises(search.IndexFileError, match="made by clip:mine"):
        search.MomentIndex(silent, tmp_path)


# Where features meet a model


# For DiDeMo's protocol, which knows pieces of five seconds.
ANNOTATED = [
    Moment(m.query_id, m.query, m.video_id, 9.0, ((0.0, 5.0),), None, "", (4,))
    for m in MOMENTS
]


def word_ids(model):
    return model.read_sentences([m.query for m in MOMENTS]).queries


def train(make, **settings):
    return lambda model, features, _: make(
        MOMENTS, word_ids(model), features, model, **settings
    )


def validate(model, features, _):
    callback = callbacks.Validation(MOMENTS, features)
    callback.set_model(model)
    callback.on_epoch_end(0, {})


def calibrate_run(model, features, _):
    with tempfile.TemporaryDirectory() as run:
        models.save_model(model, f"{run}/model.keras")
        with unittest.mock.patch.object(calibration, "FEWEST", 1):
            calibration.calibrate_run(run, MOMENTS, features)


def encode_shard(model, features, path):
    (shard,) = search.describe_shards([DURATIONS])
    search.encode_shard(model, features, DURATIONS, shard, path)


def encoder_inputs(model, features, _):
    found = {v: model.grid.windows(s) for v, s in DURATIONS.items()}
    search.encoder_inputs(model, features, DURATIONS, found)


def index(call):
    return lambda model, features, path: call(
        search.MomentIndex(model, path), features
    )


# All that are given features, as a call with a model, features and a folder.
PLACES = {
    "calibration.best_scores": lambda model, features, _: (
        calibration.best_scores(model, MOMENTS, features)
    ),
    "calibration.calibrate": lambda model, features, _: calibration.calibrate(
        model, MOMENTS, features
    ),
    "calibration.calibrate_run": calibrate_run,
    "callbacks.Validation.__init__": validate,
    "data.batches.check_examples": train(batches.check_examples, batch_size=2),
    "data.batches.training_videos": train(batches.training_videos),
    "data.pair_batches.training_pairs": train(pair_batches.training_pairs),
    "data.windows.check_features": lambda model, features, _: (
        windows.check_features(model, features)
    ),
    "didemo.evaluate": lambda model, features, _: didemo.evaluate(
        model, ANNOTATED, features
    ),
    "evaluation.attention": lambda model, features, _: evaluation.attention(
        model, MOMENTS[0], features, 4.0
    ),
    "evaluation.evaluate": lambda model, features, _: evaluation.evaluate(
        model, MOMENTS, features
    ),
    "evaluation.predict": lambda model, features, _: evaluation.predict(
        model, MOMENTS, features
    ),
    "evaluation.score_curve": lambda model, features, _: evaluation.score_curve(
        model, MOMENTS[0], features
    ),
    "qvhighlights.evaluate": lambda model, features, _: qvhighlights.evaluate(
        model, MOMENTS, features
    ),
    "search.encoding.encode_videos": lambda model, features, _: list(
        search.encode_videos(model, features, DURATIONS)
    ),
    "search.encoding.encoder_inputs": encoder_inputs,
    "search.index_files.IndexFiles.check": lambda model, features, path: (
        IndexFiles(path, model).check(features)
    ),
    "search.index_files.IndexFiles.encode": lambda model, features, path: (
        IndexFiles(path, model).encode(features, DURATIONS)
    ),
    "search.moment_index.MomentIndex.append": index(
        lambda index, features: index.append(features)
    ),
    # Also where nothing is to be added.
    "search.moment_index.MomentIndex.add_missing": index(
        lambda index, features: index.add_missing(features, video_ids=())
    ),
    "search.moment_index.MomentIndex.update": index(
        lambda index, features: index.update(
            features, DURATIONS, dict.fromkeys(DURATIONS, "")
        )
    ),
    "search.shards.encode_shard": encode_shard,
}
# Those that are given features and no model.
WITHOUT_MODEL = {
    "data.durations.known_seconds",
    "data.durations.video_seconds",
    "data.features.pack_windows",
    "data.features.write_features",
    "data.inspection.save_manifests",
    "data.inspection.with_usable_features",
    "files.arrays.write_npy",
    "files.hdf5.write_hdf5",
    "files.tfrecord.write_tfrecord",
    "layers.clip_normalization.ClipNormalization.adapt",
}
# Mains that read features, for or with a model.
MAINS = {
    "experiments.calibrate",
    "experiments.encode_corpus",
    "experiments.evaluate",
    "experiments.evaluate_didemo",
    "experiments.evaluate_shards",
    "experiments.predict",
    "experiments.search",
    "experiments.train",
    "export.client",  # in test_export
    "export.saved_model",
}


def functions_of(tree, name):
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            public = node.name == "__init__" or not node.name.startswith("_")
            own = f"{name}.{node.name}"
            if public and isinstance(node, ast.ClassDef):
                yield from functions_of(node, own)
            elif public:
                yield own, {arg.arg for arg in node.args.args}


def test_no_place_where_features_meet_a_model_is_left_out():
    found = set()
    for path in (ROOT / "acnn_tf").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT / "acnn_tf").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function, arguments in functions_of(tree, name.removesuffix(".py")):
            if "features" in arguments:
                found.add(function)
    assert found == {*PLACES, *WITHOUT_MODEL}

    reading = re.compile(
        r"(data\.open_features|splits\.load_split|indexing\.add_videos|"
        r"shard_work\.run_shards|_read_clips)\("
    )
    mains = {
        ".".join((path.parent.name, path.stem))
        for folder in ("experiments", "export")
        for path in (ROOT / folder).glob("*.py")
        if reading.search(text := path.read_text(encoding="utf-8"))
        and ("command.run(" in text or "argparse" in text)
    }
    without_model = {
        "experiments.extract_features",
        "experiments.inspect_data",
        "experiments.pack_windows",
    }
    assert mains - without_model == MAINS


def test_features_that_were_made_otherwise_are_refused(
    refused, subtests, model, files, tmp_path
):
    model.compile("sgd")
    for number, (place, call) in enumerate(PLACES.items()):
        for words in OTHERS:
            with refused(DataError, words, place=place):
                call(model, files[words], tmp_path / f"other{number}")
        with subtests.test("the same is taken", place=place):
            call(model, files["same"], tmp_path / f"same{number}")
    for path in tmp_path.glob("other*"):
        assert not list(path.iterdir())


def test_what_does_not_say_is_taken(subtests, model, files, tmp_path):
    silent = make_model()
    for number, (place, call) in enumerate(PLACES.items()):
        with subtests.test(place=place):
            if "Validation" in place:
                continue  # which asks for a model that is compiled
            call(model, files["unknown"], tmp_path / f"a{number}")
            call(silent, files[NAMED], tmp_path / f"b{number}")


@pytest.fixture
def run(model, files, tmp_path):
    """Runs a main with files of a model and of moments, by `{name}`."""
    models.save_model(model, tmp_path / "model.keras")
    write_jsonl(MOMENTS, tmp_path / "a.jsonl")
    pieces = [
        {"annotation_id": n, "description": m.query, "video": m.video_id}
        | {"times": [[0, 0]] * 4, "num_segments": 2}
        for n, m in enumerate(MOMENTS)
    ]
    (tmp_path / "didemo.json").write_text(json.dumps(pieces))
    (tmp_path / "durations.json").write_text(json.dumps(DURATIONS))
    names = {name: opened.path for name, opened in files.items()}
    names |= {"workdir": tmp_path, "other": names.pop(NAMED)}

    def call(main, *arguments, code=0):
        given = (argument.format(**names) for argument in arguments)
        return run_module(main, *given, code=code)

    return call


SPLIT = ("--dataset=jsonl", "--annotations={workdir}/a.jsonl")
DIDEMO = ("--dataset=didemo", "--annotations={workdir}/didemo.json")
RUN = "--workdir={workdir}"
OUT = "--out={workdir}/out"
REPORT = "--report={workdir}/page.html"


@pytest.mark.slow
def test_mains_refuse_them_in_one_line(run, subtests, tmp_path):
    val = "--val_annotations={workdir}/a.jsonl", "--val_features={other}"
    train = ("train", *SPLIT, "--features={own}", *val, "--filters=2")
    (tmp_path / "taken_up").mkdir()
    run_settings.write_flags(tmp_path / "taken_up", ["--seed=0"], {}, CLIP)
    cases = [
        (*train, "--workdir={workdir}/new"),
        (*train, "--workdir={workdir}/taken_up"),
        ("calibrate", *SPLIT, "--features={other}", RUN),
        ("evaluate", *SPLIT, "--features={other}", RUN),
        ("evaluate_didemo", *DIDEMO, "--features={other}", RUN),
        ("search", "--features={other}", "--query=door", RUN),
        ("predict", *SPLIT, "--features={other}", "--out={workdir}/out", RUN),
    ]
    if importlib.util.find_spec("apache_beam"):
        cases += [
            ("encode_corpus", "--features={other}", RUN, OUT),
            ("evaluate_shards", *SPLIT, "--features={other}", RUN, OUT),
        ]
    cases = [(f"experiments.{main}", *words) for main, *words in cases]
    export = "--corpus={other}", "--export_dir={workdir}/models"
    cases.append(("export.saved_model", *export, RUN))
    before = sorted(tmp_path.rglob("*"))
    for case in cases:
        with subtests.test(case):
            done = run(*case, code=2)
            told = f"{NAMED}; extract"
            if "--workdir={workdir}/taken_up" in case:
                told = "made by pixels at 1 fps, the run learned from clip:mine"
            assert told in done.stderr
            assert "Traceback" not in done.stderr
            lines = [line for line in done.stderr.splitlines() if "fps" in line]
            assert len(lines) == 1
    left = {path.name for path in tmp_path.rglob("*") if path not in before}
    # The folders that were locked, and the list of flags.
    assert left <= {"new", "models", "acnn", ".lock", "out"}


@pytest.mark.slow
def test_mains_say_once_that_a_file_does_not_say(run, tmp_path):
    told = "2.hdf5 does not say what made its features. They are taken as they"
    for case in (
        ("search", "--query=door", "--features={unknown}", RUN),
        ("evaluate", *SPLIT, "--features={unknown}", RUN, REPORT),
    ):
        done = run(f"experiments.{case[0]}", *case[1:])
        assert done.stderr.count(told) == 1
    # A page has pictures of its own.
    assert (tmp_path / "page.html").exists()
    assert not (tmp_path / "pictures").exists()
    done = run("experiments.search", "--query=door", "--features={same}", RUN)
    assert "does not say" not in done.stderr


def test_it_is_shown(run):
    for name, shown in (("own", json.dumps(OWN)), ("unknown", "not said")):
        features = f"--features={{{name}}}"
        done = run("experiments.inspect_data", *SPLIT, features)
        assert re.search(
            f"^features made by +{re.escape(shown)}$", done.stdout, re.M
        )
        done = run("experiments.inspect_data", *SPLIT, features, "--json")
        found = json.loads(done.stdout)["encoder"]
        assert found == {"own": OWN, "unknown": None}[name]
