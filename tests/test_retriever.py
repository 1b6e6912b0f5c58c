"""A model, its encoder and an index in one."""

import os

import numpy as np
import pytest

import acnn_tf
from acnn_tf import encoders, search
from acnn_tf.calibration import Calibration
from acnn_tf.data.extraction import encode_video
from acnn_tf.encoders.pixels import Pixels
from acnn_tf.files.problems import DataError, UnknownIdError
from acnn_tf.models import save_model
from acnn_tf.retriever import MomentRetriever
from acnn_tf.search.moment_index import FoundMoments
from tests import small_acnn
from tests.test_encoders import save_clip
from tests.video_files import RATE, draw, shortened, write

SENTENCE = "a person opens the door"


def write_scene(path, seed, seconds=12):
    """Noise of one colour, which wanders."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(seconds * RATE // 5):
        picture = np.full((36, 48, 3), 40, np.uint8)
        y, x = rng.integers(0, 24, 2)
        picture[y : y + 12, x : x + 12] = rng.integers(0, 255, 3)
        pictures += [picture] * 5
    return write(path, pictures=pictures)


@pytest.fixture(scope="module")
def model():
    return small_acnn.make_model(clip_dim=130, clip_seconds=0.5)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder of three, which tests leave as they are."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, name in enumerate("abc"):
        write_scene(folder / f"{name}.mp4", seed, 8 + 2 * seed)
    return folder


class Counting(Pixels):
    """Counts the videos that it encodes."""

    count = 0

    def encode(self, *arguments):
        self.count += 1
        return super().encode(*arguments)


def test_the_expected_recall_of_a_search_is_passed_on(model, monkeypatch):
    retriever = MomentRetriever(model, "pixels")

    def found(sentences, **settings):
        moment = search.FoundMoment("a", 0.0, 1.0, 2.0)
        return [FoundMoments([moment], sentences[0], [], recall=0.93)]

    monkeypatch.setattr(retriever.index, "search", found)
    assert retriever.search(SENTENCE, shortlist="linear").recall == 0.93


def test_sentences_in_moments_of_files_out(model, videos):
    told = []
    retriever = MomentRetriever(model, "pixels")
    retriever.add(
        videos / "a.mp4", videos, progress=lambda *counts: told.append(counts)
    )
    assert retriever.video_ids == ["a", "b", "c"]
    assert told == sorted(told)
    assert told[-1] == (1.0, 3)
    # The plain way.
    index = search.MomentIndex(model)
    for name in "abc":
        clips, duration, _ = encode_video(videos / f"{name}.mp4", Pixels())
        index.append({name: clips}, {name: duration})
    (expected,) = index.search([SENTENCE], top_n=4)
    found = retriever.search(SENTENCE, top=4)
    small_acnn.assert_alike([found], [expected])
    assert (found.query, found.unknown_words) == (SENTENCE, [])
    several = retriever.search(["a zebra", "zebras!", SENTENCE], top=4)
    assert several[0].unknown_words == ["zebra"]
    assert [one.is_mostly_known for one in several] == [False, False, True]
    assert (several[1], several[1].unknown_words) == ([], ["zebras"])
    small_acnn.assert_alike([several[2]], [expected])
    rated = MomentRetriever(
        model, "pixels", calibration=Calibration(slope=0.5, intercept=-1.0)
    )
    rated.add(videos)
    for moment, one in zip(rated.search(SENTENCE, top=4), expected):
        assert moment.score == pytest.approx(
            1 / (1 + np.exp(1 - one.score / 2)), abs=1e-4
        )


def test_what_was_added_stays_and_what_changed_is_noticed(
    model, videos, tmp_path
):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "abc":
        os.link(videos / f"{name}.mp4", folder / f"{name}.mp4")
    encoder = Counting()
    retriever = MomentRetriever(model, encoder, tmp_path / "index")
    retriever.add(folder)
    retriever.add(folder / "b.mp4")
    assert encoder.count == 3
    before = retriever.search(SENTENCE, top=9)
    again = MomentRetriever(model, encoder, tmp_path / "index")
    again.add(folder)
    assert encoder.count == 3
    assert again.search(SENTENCE, top=9) == before
    (folder / "b.mp4").unlink()
    write_scene(folder / "b.mp4", seed=7)
    again.add(folder)
    assert encoder.count == 4
    assert sorted(again.video_ids) == ["a", "b", "c"]
    new = MomentRetriever(model, encoder)
    new.add(folder)
    found = again.search(SENTENCE, top=9)
    small_acnn.assert_alike([found], [new.search(SENTENCE, top=9)])
    assert found != before
    again.remove("b")
    with pytest.raises(UnknownIdError, match="no video 'b'"):
        again.remove("b")
    assert {m.video_id for m in again.search(SENTENCE, 99)} == {"a", "c"}
    third = MomentRetriever(model, encoder, tmp_path / "index")
    assert sorted(third.video_ids) == ["a", "c"]


def test_files_that_cannot_be_read_are_named_and_others_are_added(
    model, videos, tmp_path
):
    for name in ("a", "c"):
        os.link(videos / f"{name}.mp4", tmp_path / f"{name}.mp4")
    (tmp_path / "b.mp4").write_text("not a video")
    (tmp_path / "d.mp4").touch()
    retriever = MomentRetriever(model, "pixels")
    with pytest.raises(DataError, match=r"b\.mp4: is text.*\n.*d\.mp4: is em"):
        retriever.add(tmp_path)
    assert retriever.video_ids == ["a", "c"]
    # A part of one, with its index in front.
    pictures = map(draw, range(500))
    path = write(tmp_path / "e.mp4", pictures=pictures, movflags="faststart")
    shortened(path, share=0.7)
    notes = retriever.add(path)
    assert notes[-1].startswith(f"{path}: decoded")
    assert "e" in retriever.video_ids


def test_one_video_alone_is_localized_in(model, videos):
    retriever = MomentRetriever(model, "pixels")
    retriever.add(videos / "a.mp4", videos / "b.mp4")
    within = retriever.search(SENTENCE, video_ids=["b"])
    assert {moment.video_id for moment in within} == {"b"}
    assert retriever.localize("b", SENTENCE) == within
    assert retriever.localize(videos / "b.mp4", SENTENCE) == within
    for _ in range(2):
        alone = retriever.localize(videos / "c.mp4", SENTENCE, top=2)
        assert [moment.video_id for moment in alone] == ["c", "c"]
        assert "c" not in retriever.video_ids
    with pytest.raises(ValueError, match="`video` must be one"):
        retriever.localize(videos, SENTENCE)
    with pytest.raises(DataError, match="nothing: is not there"):
        retriever.localize("nothing", SENTENCE)


def test_a_curve_and_the_attention_tell_why_a_moment_was_found(model, videos):
    rated = MomentRetriever(
        model, "pixels", calibration=Calibration(slope=0.5, intercept=-1.0)
    )
    path = videos / "c.mp4"
    encoded = encode_video(path, rated.encoder)
    rated.add_encoded("mine", encoded, path)
    assert rated.has("mine", path)
    assert not rated.has("mine", videos / "a.mp4")
    (best,) = rated.search(SENTENCE, top=1)
    times, scores = rated.curve("mine", SENTENCE)
    inside = (times >= best.start) & (times < best.end)
    np.testing.assert_allclose(scores[inside], best.score, atol=1e-4)
    assert scores.max() == pytest.approx(best.score, abs=1e-4)
    few, _ = rated.curve("mine", SENTENCE, max_points=4)
    np.testing.assert_allclose(few, encoded.duration * np.arange(1, 8, 2) / 8)
    found = rated.attention("mine", SENTENCE, best[1:3], encoded)
    # The plain way: the weights of all windows, of which one is this.
    windows = model.grid.windows(encoded.duration)
    clips = {"mine": encoded.clips}
    inputs = search.encoder_inputs(
        model, clips, {"mine": encoded.duration}, {"mine": windows}
    )
    weights = search.to_numpy(model.attention_weights(inputs))[0]
    (row,) = np.flatnonzero((windows == found["window"]).all(axis=1))
    np.testing.assert_allclose(found["weights"], weights[row], atol=1e-5)
    assert found["kernel_sizes"] == list(model.kernel_sizes)
    _, segments, _ = rated.index.scored_windows(SENTENCE, "mine")
    np.testing.assert_allclose(segments[row], best[1:3], atol=1e-4)
    assert rated.curve("mine", "zebras")[0].size == 0
    assert rated.attention("mine", "zebras", best[1:3], encoded) is None
    with pytest.raises(UnknownIdError):
        rated.curve("c", SENTENCE)


def test_zero_shot_needs_no_run(tmp_path_factory, videos):
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    clip = encoders.make(f"clip:{folder}")
    zero_shot = acnn_tf.models.ZeroShot(encoder=clip.description)
    zero_shot.build({"clip": (None, None, 4), "query": (None, 4)})
    retriever = MomentRetriever(zero_shot, f"clip:{folder}")
    retriever.add(videos)
    found = retriever.search("a cat", top=2)
    assert len(found) == 2
    # The plain way: where the likeness of frames and sentence is highest.
    (sentence,) = clip.encode_sentences(["a cat"])
    clips = encode_video(videos / f"{found[0].video_id}.mp4", clip).clips
    likeness = clips @ sentence / np.linalg.norm(clips, axis=1)
    first, last = round(found[0].start), round(found[0].end)
    inside = np.arange(len(clips))
    inside = (inside >= first) & (inside < last)
    assert likeness[inside].mean() > likeness[~inside].mean()


def test_a_run_is_loaded_with_its_encoder(model, videos, tmp_path, refused):
    assert acnn_tf.MomentRetriever is MomentRetriever
    save_model(model, tmp_path / "model.keras")
    retriever = MomentRetriever.load(tmp_path)
    with refused(ValueError, 'does not say which encoder.*`encoder="pixels"`'):
        retriever.add(videos)
    # A clip is what the model has learned from, two frames in half a second.
    retriever = MomentRetriever.load(tmp_path, "pixels")
    assert retriever.encoder.frame_rate == 4
    assert retriever.calibration is None
    described = small_acnn.make_model(
        clip_dim=130, clip_seconds=0.5, encoder=Pixels().description
    )
    save_model(described, tmp_path / "model.keras")
    retriever = MomentRetriever.load(tmp_path)
    retriever.add(videos / "a.mp4")
    assert retriever.video_ids == ["a"]
    retriever = MomentRetriever.load(tmp_path, Pixels("", 2.0))
    with refused(DataError, "made by pixels at 2 fps, .* from pixels at 4 fps"):
        retriever.add(videos)
    lost = Pixels().description | {"encoder": "c3d", "name": "c3d:w.npz"}
    model = small_acnn.make_model(encoder=lost)
    with refused(ValueError, r"made with c3d:w\.npz.*c3d:path/to/w\.npz"):
        MomentRetriever(model).add(videos)
