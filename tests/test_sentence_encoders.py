"""Models that learn from sentences of an encoder, and then take sentences."""

import json
import sys

import numpy as np
import pytest

from acnn_tf import encoders, evaluation, search, servable
from acnn_tf.data import make_scenes, write_features
from acnn_tf.data.annotations import Moment
from acnn_tf.data.datasets.jsonl import to_line
from acnn_tf.files.problems import DataError
from acnn_tf.models import load_model, save_model
from experiments import (
    losses_and_optimizer,
    model_flags,
    splits,
    training_batches,
)
from export import run_models
from tests.processes import run_module
from tests.test_encoders import save_clip

SENTENCES = ["a cat", "a dog", "cat!"]


class Letters:
    """Sentences by how often they have each of four letters."""

    name, dim, clip_seconds = "letters", 4, 1.0

    def __init__(self, weights="sha256:1"):
        self.description = {
            "encoder": "letters",
            "name": self.name,
            "weights": weights,
        }

    def encode_sentences(self, sentences):
        return np.float32([[s.count(c) for c in "acdt"] for s in sentences])


def test_a_model_takes_sentences_where_its_encoder_is_at_hand(tmp_path):
    scenes = make_scenes(3)
    split = splits.Split(scenes.moments, scenes.features, None)
    clips = splits.Preloaded(
        scenes.features, scenes.features, scenes.clip_seconds, None
    )
    split = splits.encode_sentences(split._replace(features=clips), Letters())
    model = model_flags.make_model(
        split,
        members=2,
        filters=4,
        embedding_dim=4,
        query_encoder="clip:any",
    )
    batches = training_batches.make_batches(model, split, batch_size=4)
    model(next(iter(batches.dataset))[0])
    losses_and_optimizer.compile_model(model, num_steps=1, learning_rate=0.01)
    save_model(model, tmp_path / "model.keras")

    loaded = load_model(tmp_path / "model.keras")
    assert loaded.query_description == Letters().description
    assert loaded.sentence_encoder is None
    with pytest.raises(ValueError, match="`sentence_encoder`"):
        loaded.read_sentences(SENTENCES)
    loaded.sentence_encoder = Letters()
    vectors = Letters().encode_sentences(SENTENCES)
    read = loaded.read_sentences(SENTENCES)
    np.testing.assert_array_equal(read.queries, vectors)
    np.testing.assert_array_equal(
        loaded.encode_sentences(SENTENCES), model.encode_queries(vectors)
    )
    # Neither normal letters nor any at all.
    assert loaded.read_sentences(["Cafe\u0301", "?!"]).is_known == [True, False]

    index = search.MomentIndex(loaded)
    index.append(clips)
    answers = index.search(["a cat", "..."], top_n=2)
    assert answers[0] == index.search_queries(vectors[:1], top_n=2)[0]
    assert (answers[1], answers[1].unknown_words) == ([], [])
    arguments = split.moments, clips
    assert (
        evaluation.evaluate(loaded, *arguments)[0]
        == (
            evaluation.evaluate(
                model, *arguments, sentence_vectors=split.sentence_vectors
            )[0]
        )
    )
    servable.export(loaded, tmp_path / "1", index=index)
    text = (tmp_path / "1" / "README.md").read_text()
    assert "4 numbers" in text
    assert "`letters`" in text
    about = json.loads(servable.signatures.describe_model(loaded))
    assert about["query_description"] == Letters().description


def test_words_and_vectors_are_not_mixed(refused):
    scenes = make_scenes(1)
    split = splits.Split(scenes.moments, scenes.features, {})
    with refused(ValueError, "--sentence_vectors or --query_encoder=letters"):
        splits.encode_sentences(split, Letters())
    with refused(ValueError, "--word_vectors are for words"):
        model_flags.make_model(
            split._replace(features=splits.Preloaded({}, (), 1.0, None)),
            word_vectors="glove.txt",
        )


def test_sentences_of_another_encoder_are_refused(refused):
    ours, other = Letters().description, Letters("sha256:2").description
    encoders.check_space(ours, ours | {"name": "elsewhere"})
    encoders.check_space(ours, None)
    with refused(DataError, "clips.hdf5: made by letters .*sha256:2.*sha256:1"):
        encoders.check_space(ours, other, "clips.hdf5")
    for arguments, message in (
        ((None,), "does not say by which encoder: name it"),
        (({"encoder": "c3d", "name": "c3d:gone.npz"},), "name that, such as"),
        ((None, "pixels"), "encodes no sentences"),
        ((None, "no such"), "must be one of"),
    ):
        with refused((ImportError, ValueError), message):
            encoders.sentence_encoder(*arguments)


def test_without_keras_hub_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"acnn_tf\[clip\]"):
        run_models.load_model(model="zero_shot", encoder="clip")


@pytest.mark.soak
def test_clip_from_training_to_answers(tmp_path):
    """The same with CLIP itself, by the mains."""
    folder = save_clip(tmp_path / "weights")
    other = save_clip(tmp_path / "others", seed=1)
    clip = encoders.make(f"clip:{folder}")
    frames = np.random.default_rng(0).integers(0, 255, (9, 40, 40, 3), np.uint8)
    write_features(
        tmp_path / "clips.hdf5",
        {"v": clip.encode(frames)},
        1.0,
        clip.description,
    )
    moments = [
        Moment(name, f"a cat {name}", "v", 9.0, ((2.0, 6.0),)) for name in "abc"
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(to_line, moments)))
    data = [
        "--dataset=jsonl",
        f"--annotations={tmp_path / 'own.jsonl'}",
        f"--features={tmp_path / 'clips.hdf5'}",
    ]
    run = f"--workdir={tmp_path / 'run'}"
    run_module(
        "experiments.train",
        *data,
        *(one.replace("--", "--val_") for one in data[1:]),
        run,
        f"--query_encoder=clip:{folder}",
        "--smoke",
        "--window_seconds=3,5",
        "--filters=4",
    )
    found = {}
    for model in (run, "--model=zero_shot"):
        for encoder, code in ((folder, 0), (other, 2), (None, 2)):
            named = [f"--encoder=clip:{encoder}"] if encoder else []
            ask = ["--query=a cat", data[2], "--json"]
            end = run_module(
                "experiments.search", model, *ask, *named, code=code
            )
            if code:
                says = "the sentences would be" if encoder else "name that"
                assert says in end.stderr
                assert "Traceback" not in end.stderr
            else:
                found[model] = json.loads(end.stdout)["moments"]
        named = [f"--encoder=clip:{folder}"]
        end = run_module("experiments.evaluate", model, *data, *named, "--json")
        assert json.loads(end.stdout)["num_queries"] == 3
    assert all(found.values())
    end = run_module(
        "export.saved_model",
        "--model=zero_shot",
        f"--corpus={tmp_path / 'clips.hdf5'}",
        f"--export_dir={tmp_path / 'models'}",
    )
    assert "the same numbers as zero_shot" in end.stdout
