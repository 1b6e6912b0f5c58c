"""Likeness of frames and sentence, without training."""

import json

import keras
import numpy as np
import pytest

from acnn_tf import search, servable
from acnn_tf.data import open_features, write_features
from acnn_tf.models import ZeroShot, load_model, save_model
from acnn_tf.search import encoding
from export import run_models
from tests.processes import run_module

CLIP = {"encoder": "clip", "name": "clip:b32", "weights": "sha256:1"}


def make_model(clip_dim=6, **arguments):
    arguments = {
        "window_lengths": (2.0, 4.0),
        "window_overlap": 0.5,
    } | arguments
    model = ZeroShot(**arguments)
    model.build({"clip": (None, None, clip_dim), "query": (None, clip_dim)})
    return model


def make_features(*num_clips):
    rng = np.random.default_rng(0)
    return {
        f"v{number}": np.float32(rng.normal(0.3, 1, (count, 6)))
        for number, count in enumerate(num_clips)
    }


def make_queries(count=3):
    return np.float32(np.random.default_rng(1).normal(size=(count, 6)))


def scores_of(model, clips, duration, queries, **arguments):
    (video,) = search.encode_videos(
        model, {"v": clips}, {"v": duration}, **arguments
    )
    output = model.match(model.encode_queries(queries), video.encoding)
    np.testing.assert_array_equal(output["offset"], 0)
    return video.windows, search.to_numpy(output["score"])


def plain_scores(clips, clip_seconds, windows, query):
    """The scores of the windows by their definition, clip by clip."""
    cosines = [
        clip @ query / np.linalg.norm(clip) / np.linalg.norm(query)
        for clip in np.float64(clips)
    ]
    scores = []
    for start, end in windows / clip_seconds:
        shares = [
            max(0, min(end, t + 1) - max(start, t)) for t in range(len(clips))
        ]
        inside = sum(s * c for s, c in zip(shares, cosines)) / sum(shares)
        rest = [1 - share for share in shares]
        outside = 0  # the likeness less that inside, of clips outside
        if sum(rest) >= 0.5:
            outside = sum(s * c for s, c in zip(rest, cosines)) / sum(rest)
            outside -= inside
        seconds = (end - start) * clip_seconds
        scores.append(-outside * seconds**0.75)
    return scores


def test_scores_by_hand():
    # Two clips show what is asked for, two what is at a right angle to it.
    clips = np.float32([[2, 0], [3, 0], [0, 1], [0, 5]])
    model = make_model(2)
    windows, (scores,) = scores_of(model, clips, 4.0, np.float32([[7, 0]]))
    assert windows.tolist() == [[0, 2], [1, 3], [2, 4], [0, 4]]
    # Inside less outside: 1 - 0, 1/2 - 1/2, 0 - 1, and nothing outside.
    expected = np.array([1, 0, -1, 0]) * 2**0.75
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_scores_are_those_of_a_plain_loop(subtests):
    queries = make_queries()
    for count, seconds, duration in (
        (9, 1.0, 9.0),
        (9, 1.0, 8.3),  # clips of frames beyond the end
        (9, 1.0, 10.6),  # and none of the last frames
        (12, 0.5, 6.1),
        (5, 2.0, 10.0),
        (4, 1.0, 4.0),  # one window is all of it
        (1, 1.0, 1.0),
    ):
        with subtests.test(count=count, seconds=seconds, duration=duration):
            clips = make_features(count)["v0"]
            model = make_model(clip_seconds=seconds)
            windows, scores = scores_of(model, clips, duration, queries)
            expected = [
                plain_scores(clips, seconds, windows, query)
                for query in queries
            ]
            np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_neither_padding_nor_pieces_change_scores(monkeypatch):
    model, features = make_model(), make_features(200, 90, 7)
    durations = {name: len(clips) + 0.4 for name, clips in features.items()}
    together = list(search.encode_videos(model, features, durations))
    for video in together:
        own = {video.video_id: video.duration}
        (alone,) = search.encode_videos(model, features, own)
        np.testing.assert_allclose(video.encoding, alone.encoding, atol=1e-5)
    monkeypatch.setattr(encoding, "_LONG", 24)
    (pieces,) = search.encode_videos(model, features, {"v0": 200.4})
    np.testing.assert_allclose(
        pieces.encoding, together[-1].encoding, atol=1e-5
    )


def test_half_precision_rounds_the_scores_alone():
    clips, queries = make_features(9)["v0"], make_queries()
    model = make_model(dtype="mixed_bfloat16")
    assert model.encode_queries(queries).dtype == "bfloat16"
    _, scores = scores_of(model, clips, 9.0, queries)
    _, expected = scores_of(make_model(), clips, 9.0, queries)
    np.testing.assert_allclose(scores, expected, atol=0.03)


def test_a_file_keeps_it(tmp_path):
    model = make_model(clip_seconds=0.5, encoder=CLIP)
    save_model(model, tmp_path / "model.keras")
    for load in (load_model, keras.saving.load_model):
        loaded = load(tmp_path / "model.keras")
        assert type(loaded) is ZeroShot
        assert loaded.get_config() == model.get_config()
        assert loaded.grid == model.grid
        assert (loaded.clip_dim, loaded.encoder) == (6, CLIP)
        assert not loaded.weights


def test_folded_queries_score_and_locate_as_match_does():
    model, rng = make_model(), np.random.default_rng(0)
    queries = model.encode_queries(make_queries(5))
    windows = np.float32(rng.normal(size=(5, 7, 6)))
    matched = [
        model.match(queries[row : row + 1], windows[row])["score"][0]
        for row in range(5)
    ]
    expected = search.to_numpy(matched)
    folded = model.fold(queries)
    located = model.locate(folded, np.arange(5), windows)
    np.testing.assert_allclose(located["score"], expected, atol=1e-5)
    assert located["offset"].shape == (5, 7, 2)
    scores = search.to_numpy(model.score(folded, windows[3]))
    np.testing.assert_allclose(scores[:, 3], expected[3], atol=1e-5)


def test_it_is_searched_and_served_with_the_numbers_of_match(tmp_path):
    model = make_model()
    index = search.MomentIndex(model, tmp_path / "index")
    index.append(make_features(*range(5, 12)))
    queries = make_queries()
    for query, found in zip(queries, index.search_queries(queries, top_n=3)):
        best = max(
            scores_of(model, clips, float(len(clips)), query[None])[1].max()
            for clips in make_features(*range(5, 12)).values()
        )
        np.testing.assert_allclose(found[0].score, best, rtol=1e-5)
    errors = servable.export(model, tmp_path / "1", index=index, top_n=3)
    assert set(errors) > {"search", "localize"}
    assert max(errors.values()) < 1e-5


def test_what_does_not_fit_is_named(refused):
    with refused(ValueError, "`clip_seconds` must be positive"):
        ZeroShot(clip_seconds=0)
    with refused(ValueError, "`encoder`: expected"):
        ZeroShot(encoder={"name": 3})
    with refused(ValueError, "sentence vectors of 5 numbers, and clips of 6"):
        make_model().encode_queries(np.ones((1, 5), np.float32))
    with refused(ValueError, "Set its `sentence_encoder`"):
        make_model().read_sentences(["a dog"])
    for flags, message in (
        ({}, "Give --workdir or --model=zero_shot, to say which"),
        ({"workdir": "a", "model": "zero_shot"}, "not both"),
        ({"model": "acnn"}, "can only be zero_shot here.*'acnn'"),
        ({"model": "zero_shot"}, "give --encoder"),
        ({"model": "zero_shot", "encoder": "pixels"}, "encodes no sentences"),
    ):
        with refused(ValueError, message):
            run_models.load_model(**flags)


def test_sentences_are_of_the_encoder_of_the_clips(tmp_path):
    for description, message in (
        (None, "does not say by which"),
        ({"encoder": "pixels", "name": "pixels"}, "pixels encodes no"),
        (CLIP, "are .*clip:b32|clip:b32, as .* says|keras-hub"),
    ):
        path = tmp_path / "clips.hdf5"
        write_features(path, make_features(4), 1.0, description)
        with open_features(path) as features:
            with pytest.raises((ImportError, ValueError), match=message):
                run_models.load_model(model="zero_shot", features=features)
            made = run_models.load_model(
                model="zero_shot", features=features, with_sentences=False
            )
        assert (made.clip_dim, made.encoder) == (6, description)


@pytest.mark.slow
def test_moments_of_charades_are_found_without_training(shared_data):
    data = shared_data / "charades_sta_clip"
    printed = run_module(
        "experiments.evaluate",
        "--model=zero_shot",
        "--dataset=charades_sta",
        f"--annotations={data / 'charades_sta_val.txt'}",
        f"--durations={data / 'durations_val.json'}",
        f"--features={data / 'clip_vitb32_1fps_val.hdf5'}",
        f"--sentence_vectors={data / 'clip_space_sentences.hdf5'}",
        "--shuffled",
        "--json",
    ).stdout
    results = json.loads(printed)
    for name, least in (
        ("R@1,IoU=0.3", 0.51),
        ("R@1,IoU=0.5", 0.29),
        ("R@1,IoU=0.7", 0.15),
        ("mIoU", 0.325),
    ):
        assert results[name] >= least
        assert results[name] > results["shuffled"][name] + 0.03
    assert results["num_parameters"] == 0
