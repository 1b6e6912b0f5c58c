"""Models that learn from sentences of an encoder, and then take sentences."""

import json
import sys
import types
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from acnn_tf import encoders, evaluation, search, servable
from acnn_tf.data import make_scenes, write_features
from acnn_tf.data.annotations import Moment
from acnn_tf.data.datasets.jsonl import to_line
from acnn_tf.encoders import clip
from acnn_tf.files.problems import DataError
from acnn_tf.files.text import normalize
from acnn_tf.models import ZeroShot, load_model, save_model
from acnn_tf.servable import normal_forms, sentence_vectors
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
    odd = other | {"name": "\x1b[31m"}
    with refused(DataError, r"made by \\x1b\[31m"):
        encoders.check_space(ours, odd)
    encoders.check_space(ours, ours | {"name": "elsewhere"})
    encoders.check_space(ours, None)
    with refused(DataError, "clips.hdf5: made by letters .*sha256:2.*sha256:1"):
        encoders.check_space(ours, other, "clips.hdf5")
    for arguments, message in (
        ((None,), "does not say by which encoder: name it"),
        (
            ({"encoder": "c3d", "name": "c3d:gone.npz"},),
            r"name the encoder so: c3d:path",
        ),
        (
            ({"encoder": "clip", "name": "clip:hf://a\x1b/b"},),
            r"made with clip:hf://a\\x1b/b, .*perhaps a path or an address",
        ),
        ((None, "pixels"), "encodes no sentences"),
        ((None, "no such"), "no encoder is called 'no such'"),
    ):
        with refused((ImportError, ValueError), message):
            encoders.sentence_encoder(*arguments)


def test_without_keras_hub_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"\.\[clip\]"):
        run_models.load_model(model="zero_shot", encoder="clip")


def test_tokens_in_a_graph_are_those_of_the_encoder():
    models = pytest.importorskip("keras_hub").models
    merges = ["c a", "ca t</w>", "a t</w>", "' s</w>", "! !", "! !</w>", "1 2"]
    letters = sentence_vectors._letters_of_bytes()
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [merge.replace(" ", "") for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    encoder = types.SimpleNamespace(
        tokenizer=models.CLIPTokenizer(
            {word: number for number, word in enumerate(words)},
            ["#version: 0.2", *merges],
        ),
        num_tokens=150,
    )
    parts = (
        "A cat|cat's|'S|''s|!!!|<|endoftext|>|<|EndOfText|>!|12 1|caf\u00e9|"
    )
    parts += "\u0130|\u03a3|\u00a0|\u2028|\u200b|\ufeff|_|\U0001f600|\u1e9e| |"
    parts = [*parts.split("|"), "<|endoftext|>", "<|EndOfText|>!"]
    rng = np.random.default_rng(0)
    sentences = ["", *map("".join, rng.choice(parts, (300, 9)).tolist())]
    letters = [c for c in normal_forms.characters() if unicodedata.name(c, "")]
    sentences += (
        "".join(letters[n : n + 40]) for n in range(0, len(letters), 40)
    )
    sentences = [normalize(sentence) for sentence in sentences]
    expected = clip.CLIP._tokens(encoder, sentences)
    found = sentence_vectors.Tokens(encoder)(sentences)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.soak
def test_a_servable_with_the_encoder_in_it_takes_sentences(tmp_path):
    encoder = encoders.make(f"clip:{save_clip(tmp_path / 'weights')}")
    model = ZeroShot(window_lengths=(3.0,), encoder=encoder.description)
    model.build({"clip": (None, None, 4), "query": (None, 4)})
    model.sentence_encoder = encoder
    rng = np.random.default_rng(0)
    index = search.MomentIndex(model)
    index.append({v: np.float32(rng.normal(size=(7, 4))) for v in "ab"})
    servable.export(model, tmp_path / "1", index=index, top_n=3)

    text = (tmp_path / "1" / "README.md").read_text()
    assert "text tower of the encoder `clip:weights`" in text
    assert "0.0 MB" in text
    loaded = tf.saved_model.load(tmp_path / "1")
    sentences = ["A cat!", "  ?!", "Cafe\u0301 \U0001f600", ""]
    answer = loaded.signatures["search"](query=tf.constant(sentences))
    assert answer["unknown_words"].numpy().tolist() == [b""] * 4
    for row, moments in enumerate(index.search(sentences, top_n=3)):
        found = answer["end"][row] > answer["start"][row]
        assert np.count_nonzero(found) == len(moments)
        np.testing.assert_allclose(
            answer["score"][row][: len(moments)],
            [moment.score for moment in moments],
            atol=1e-5,
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="2,000 char"):
        loaded.signatures["search"](query=tf.constant(["a" * 2001]))


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
        Moment(name, f"a cat {name}", "v", 9.0, ((2.0, 6.0),))
        for name in map(str, range(30))  # no fewer are calibrated on
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
                says = (
                    "the sentences would be" if encoder else "name the encoder"
                )
                assert says in end.stderr
                assert "Traceback" not in end.stderr
            else:
                found[model] = json.loads(end.stdout)["moments"]
        named = [f"--encoder=clip:{folder}"]
        end = run_module("experiments.evaluate", model, *data, *named, "--json")
        assert json.loads(end.stdout)["num_queries"] == 30
    end = run_module("experiments.calibrate", run, f"--encoder=clip:{folder}")
    assert "Calibration on 30 searches" in end.stdout
    assert all(found.values())
    for model, named, dtype in (
        ("--model=zero_shot", [], "float32"),
        ("--model=zero_shot", [f"--encoder=clip:{folder}"], "string"),
        (run, [f"--encoder=clip:{folder}"], "string"),
    ):
        end = run_module(
            "export.saved_model",
            model,
            *named,
            f"--corpus={tmp_path / 'clips.hdf5'}",
            f"--export_dir={tmp_path / 'models'}",
        )
        path, _, says = end.stdout.partition(": the same numbers as ")
        assert says
        loaded = tf.saved_model.load(path)
        taken = loaded.signatures["search"].structured_input_signature[1]
        assert taken["query"].dtype.name == dtype
    answer = loaded.signatures["search"](query=tf.constant(["a cat"]))
    expected = found[run][0]
    np.testing.assert_allclose(answer["score"][0, 0], expected["score"], 1e-4)
