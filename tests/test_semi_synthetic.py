"""Features made from annotations, and the main that goes from them to a table.

That TACoS has 26,963 pairs and 15,881 test windows: test_inspect_data.py.
"""

import dataclasses
import json
import math
import os

import numpy as np
import pytest

from acnn_tf.data.annotations import Moment, read_moments
from acnn_tf.data.sentences import write_sentence_vectors
from acnn_tf.data.windows import WindowGrid
from acnn_tf.models import load_model
from experiments.tacos.semi_synthetic import (
    Clips,
    Recipe,
    Sentences,
    blur,
    content_words,
)
from tests.processes import run_module

PLAIN = Recipe(
    clip_seconds=2.0,
    clip_dim=6,
    sentence_dim=5,
    word_dim=4,
    blur=0.0,
    drift=0.0,
    noise=0.0,
    sentence_noise=0.0,
)


def moment(start, end, query, row=0, video="v", duration=20.0):
    name = f"{video}_{start}_{end}_{row}"
    return Moment(name, query, video, duration, ((start, end),))


def test_the_seed_decides_and_the_videos_beside_do_not():
    moments = [moment(0, 5, "He cuts a fig."), moment(0, 9, "x", video="w")]
    recipe = dataclasses.replace(PLAIN, drift=1.0, noise=1.0, seed=1)
    clips = Clips(moments, recipe)["v"]
    np.testing.assert_array_equal(clips, Clips(moments[:1], recipe)["v"])
    other = Clips(moments, dataclasses.replace(recipe, seed=2))["v"]
    assert (clips != other).any()
    noisy = dataclasses.replace(recipe, sentence_noise=1.0)
    vectors = Sentences(moments, noisy)["v_0_5"]
    np.testing.assert_array_equal(vectors, Sentences(moments, noisy)["v_0_5"])


def test_words_are_the_same_on_every_machine():
    # Written down, so that files which were made before can be made again.
    clips = Clips([moment(0, 20, "fig")], PLAIN)["v"]
    np.testing.assert_allclose(clips[0], EXPECTED, atol=1e-3)


EXPECTED = [0.53418, -0.01298, 0.22327, 0.16064, 0.54492, 0.32837]


def test_a_clip_mixes_its_moments_by_the_share_they_cover():
    # Clips of 2 s: [0, 5) covers two and half of a third; [4, 8) the third
    # and the fourth.
    fig, plum = moment(0, 5, "The fig"), moment(4, 8, "a plum")
    alone = [Clips([each], PLAIN)["v"].astype(float) for each in (fig, plum)]
    f, p = alone[0][0], alone[1][3]
    both = Clips([fig, plum], PLAIN)["v"]
    expected = [f, f, f / 2 + p, p]
    np.testing.assert_allclose(both[:4], expected, atol=2e-3)
    assert not both[4:].any()


def test_sentences_of_one_moment_share_its_vector():
    # The mean of all their words: fig, fig and plum.
    moments = [moment(0, 5, "fig"), moment(0, 5, "a fig and a plum", 1)]
    f = Clips([moment(0, 5, "fig")], PLAIN)["v"][0].astype(float)
    p = Clips([moment(0, 5, "plum")], PLAIN)["v"][0].astype(float)
    found = Clips(moments, PLAIN)["v"][0]
    np.testing.assert_allclose(found, (2 * f + p) / 3, atol=2e-3)


def test_a_clip_outside_of_a_moment_has_none_of_it():
    # It ends with the second clip; a blur of one clip reaches three further.
    recipe = dataclasses.replace(PLAIN, blur=1.0)
    clips = Clips([moment(0, 4, "fig")], recipe)["v"]
    assert clips[:5].any(axis=1).all()
    assert not clips[5:].any()


def test_blur_is_a_mean_with_gaussian_weights():
    # exp(-k^2 / (2 s^2)) with s^2 = 1 / (2 ln 4): 1 at 0, 1/4 at 1, and
    # 3 s = 1.8 ends it there.
    deviation = math.sqrt(1 / (2 * math.log(4)))
    rows = np.array([[0.0], [0.0], [3.0], [0.0]])
    found = blur(rows, deviation).ravel()
    np.testing.assert_allclose(found, [0.0, 0.5, 2.0, 0.5], atol=1e-12)


def test_background_and_noise_have_their_deviations():
    # Without words to show, 400 clips x 500 numbers: the variance of the
    # noise is known to 0.3 %, that of changes to 1 %.
    quiet = dataclasses.replace(PLAIN, clip_dim=500, word_dim=1)
    silent = moment(0, 800, "the", duration=800.0)
    noise = Clips([silent], dataclasses.replace(quiet, noise=2.0))["v"]
    assert noise.astype(float).var() == pytest.approx(4.0, rel=0.02)
    drift = dataclasses.replace(quiet, drift=2.0, drift_clips=10.0)
    drift = Clips([silent], drift)["v"].astype(float)
    # Neighbours correlate by exp(-1/10): 2 x 4 x (1 - 0.905) = 0.761.
    assert np.diff(drift, axis=0).var() == pytest.approx(0.761, rel=0.03)


def test_a_sentence_is_the_mean_of_its_words():
    moments = [
        moment(0, 5, "The person cuts."),
        moment(0, 5, "fig", 1),
        moment(0, 5, "He cuts a fig.", 2),
        moment(0, 5, "He is there.", 3),
    ]
    cuts, fig, both, none = Sentences(moments, PLAIN)["v_0_5"].astype(float)
    np.testing.assert_allclose(both, (cuts + fig) / 2, atol=2e-3)
    assert not none.any()


def test_stop_words_are_left_out():
    assert content_words(["She's in the kitchen.", "It is."]) == [
        ["kitchen"],
        [],
    ]


def test_what_cannot_be_made_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"`blur` must be at least 0.*-1"):
        Recipe(blur=-1.0)
    with pytest.raises(ValueError, match="`clip_seconds` must be above 0"):
        Recipe(clip_seconds=0.0)
    with pytest.raises(ValueError, match="`moments` must not be empty"):
        Clips([], PLAIN)
    wrong = dataclasses.replace(moment(0, 5, "fig"), query_id="7", source="a:3")
    with pytest.raises(ValueError, match="a:3: query '7' was expected"):
        Sentences([wrong], PLAIN)
    with pytest.raises(ValueError, match=r"must end in \.hdf5 or \.h5"):
        write_sentence_vectors(tmp_path / "s.npy", {})


def test_every_sentence_of_tacos_has_words_and_a_vector(shared_data):
    data = shared_data / "tacos"
    path = data / "TACoS_val_samples.txt"
    moments = read_moments(path, "tacos", num_frames=data / "num_frames.json")
    vectors = Sentences(moments, PLAIN)
    assert len({m.query_id.rpartition("_")[0] for m in moments}) == len(vectors)
    words = content_words(m.query for m in moments)
    assert np.mean([len(each) for each in words]) > 2


@pytest.mark.soak
def test_from_annotations_to_table_and_not_twice(tmp_path):
    frames = {"s1-d1": 900, "s2-d2": 700, "s3-d3": 800}
    (tmp_path / "num_frames.json").write_text(json.dumps(frames))
    for split, video in zip(("train", "val", "test"), frames, strict=True):
        (tmp_path / f"TACoS_{split}_samples.txt").write_text(
            "".join(
                f"{video}.avi_{start}_{start + 140}:He cuts.#He peels.#\n"
                for start in (100, 300, 480)
            )
        )
    workdir = tmp_path / "run"
    flags = f"--data_dir={tmp_path}", f"--workdir={workdir}", "--smoke"
    printed = run_module("experiments.tacos", *flags).stdout
    assert "semi-synthetic" in printed
    assert "m - 0.05" in printed
    assert "Largest of the processes" in printed
    made = os.stat(workdir / "features" / "c3d_train.hdf5").st_mtime_ns
    # The paper's settings.
    model = load_model(workdir / "model.keras")
    assert model.grid == WindowGrid((64, 128, 256, 512), 0.8, 29.4)
    assert model.grid.dilation == 5
    assert model.hidden_dim is None
    assert not model.first_order_query
    assert model.offset_unit == "frames"
    assert model.scorer_activation == "relu"
    again = run_module("experiments.tacos", *flags).stdout
    assert again.count("Done before") == 3
    assert again.splitlines()[-1] == printed.splitlines()[-1]
    assert made == os.stat(workdir / "features/c3d_train.hdf5").st_mtime_ns
    # Other flags, and a file that is no record of steps.
    other = run_module("experiments.tacos", *flags, "--seed=1", code=2)
    assert "steps.json: step 'features'" in other.stderr
    (workdir / "steps.json").write_text("[]")
    other = run_module("experiments.tacos", *flags, code=2)
    assert "remove it to do every step" in other.stderr
