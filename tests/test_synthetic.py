import collections
import dataclasses
import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acnn_tf import segments as segments_lib
from acnn_tf.data import scenes as scenes_lib
from acnn_tf.data import synthetic
from acnn_tf.data.annotations import read_moments
from acnn_tf.data.extraction import encode_video
from acnn_tf.data.features import open_features
from acnn_tf.data.windows import WindowGrid, pool_clips
from acnn_tf.encoders import pixels

NUM_COLOUR_COLUMNS = (len(pixels.NAMES) - 4) // len(pixels.COLOURS)


@pytest.fixture(scope="module")
def scenes():
    return synthetic.make_scenes(num_videos=28)


@pytest.fixture(scope="module")
def plans():
    """Of more videos: what happens in them takes no pixels."""
    names = [f"scene_{number:06d}" for number in range(60)]
    return {video_id: scenes_lib.plan(video_id) for video_id in names}


@pytest.fixture(scope="module")
def moments(plans):
    return [m for video_id in plans for m in synthetic.name_moments(video_id)]


def column(name):
    return pixels.NAMES.index(name)


def of_colour(features, colour):
    """The columns of `features` about one colour."""
    first = column(f"{colour} area")
    return features[first : first + NUM_COLOUR_COLUMNS]


def draw(shape, paths, colour=(225, 40, 40)):
    """A video of one shape on grey: `paths` is `[F, 3]`."""
    coverage = scenes_lib._coverage(shape, np.array(paths))[..., None]
    return (40 + coverage * (np.array(colour) - 40)).astype(np.uint8)


# Scenes


def test_same_arguments_make_the_same_scenes(scenes, moments):
    again = synthetic.make_scenes(num_videos=2)
    assert again.moments == moments[: len(again.moments)]
    for video_id, clips in again.features.items():
        np.testing.assert_array_equal(clips, scenes.features[video_id])
        # What can be drawn again is what the features come from.
        frames = scenes.frames(video_id)
        np.testing.assert_array_equal(pixels.describe(frames), clips)


def test_videos_differ_between_videos_splits_and_seeds():
    choices = [("train", 0), ("val", 0), ("test", 0), ("train", 1), ("val", 1)]
    made = [
        synthetic.make_scenes(1, split=split, seed=seed)
        for split, seed in choices
    ]
    video_ids = [video_id for part in made for video_id in part.features]
    assert len(set(video_ids)) == len(choices)
    plans = [repr(scenes_lib.plan(video_id)) for video_id in video_ids]
    assert len(set(plans)) == len(plans)


def test_every_video_is_whole(scenes, plans):
    durations = {m.video_id: m.duration for m in scenes.moments}
    assert list(durations) == list(scenes.features)
    for video_id, clips in scenes.features.items():
        duration, _ = plans[video_id]
        assert durations[video_id] == duration
        assert 32 <= duration <= 48
        num_clips = duration / scenes.clip_seconds
        assert clips.shape == (num_clips, len(pixels.NAMES))
        assert clips.dtype == np.float32
        assert np.isfinite(clips).all()
    frames = scenes.frames(video_id)
    assert frames.shape == (4 * duration, 32, 32, 3)
    assert frames.dtype == np.uint8


def test_shapes_seen_together_differ_in_colour(plans):
    for _, events in plans.values():
        for a, b in itertools.combinations(events, 2):
            if segments_lib.intersection(a.visit, b.visit) and (
                a.visit != b.visit
            ):
                assert a.colour != b.colour


def test_shapes_stay_in_the_picture(plans):
    for _, events in plans.values():
        for event in events:
            assert len(event.path) == 4 * np.subtract(*event.segment[::-1])
            assert (event.path[:, :2] >= 1).all()
            assert (event.path[:, :2] <= 31).all()


def test_bad_arguments_are_named(refused):
    for video_id in ("", "scene_", "scene_-1", "v_1", "0"):
        with refused(ValueError, "built-in scene", video_id=video_id):
            synthetic.render(video_id)
    for arguments, expected in (
        ({"split": "dev"}, "`split` must be one of .* Received: dev"),
        ({"num_videos": 0}, "`num_videos` must be in .* Received: 0"),
        ({"num_videos": 100_001}, "`num_videos` must be in"),
        ({"seed": -1}, "`seed` must not be negative. Received: -1"),
    ):
        with refused(ValueError, expected):
            synthetic.make_scenes(**{"num_videos": 1, **arguments})


# Sentences


def test_a_video_has_several_moments_of_3_to_10_seconds(moments):
    by_video = collections.defaultdict(list)
    for moment in moments:
        by_video[moment.video_id].append(moment.segments)
    for segments in by_video.values():
        assert 4 <= len(segments) <= 6
        assert len(set(segments)) == len(segments)
    for moment in moments:
        ((start, end),) = moment.segments
        assert 0 <= start < end <= moment.duration
        assert 2.75 <= end - start <= 10.25
    ids = [moment.query_id for moment in moments]
    assert len(set(ids)) == len(ids)


def by_words(many_words):
    return {words: name for name, many in many_words.items() for words in many}


COLOUR_OF = {colour: colour for colour in scenes_lib.COLOURS}
SHAPE_OF = by_words(synthetic.SHAPES)
MOTION_OF = by_words(synthetic.MOTIONS)
DOES = "|".join(MOTION_OF)
FORMS = (
    f"after (?P<after>the .+ disappears|it (?:{DOES})) (?P<main>.+)",
    f"before (?P<before>the .+ comes|it (?:{DOES})) (?P<main>.+)",
    "(?P<main>.+) (?:after|once) (?P<after>.+)",
    "(?P<main>.+) (?:before|and then) (?P<before>.+)",
    "(?P<main>.+)",
)


def read(text):
    """Colour, shape and motion that are named in `text`."""
    return [
        next((names[words] for words in names if words in text), None)
        for names in (COLOUR_OF, SHAPE_OF, MOTION_OF)
    ]


def fits(event, named):
    of_event = event.colour, event.shape, event.motion
    return all(
        n is None or n == e for n, e in zip(named, of_event, strict=True)
    )


def answers(query, events):
    """Segments that answer `query`: a reader of its own, sentence to events."""
    match = next(m for m in (re.fullmatch(f, query) for f in FORMS) if m)
    clauses = {"after": None, "before": None, **match.groupdict()}
    main = read(clauses["main"])
    found = [event for event in events if fits(event, main)]
    for relation in ("after", "before"):
        clause = clauses[relation]
        if clause is None:
            continue
        kept = []
        for event in found:
            others = [other for other in events if fits(other, read(clause))]
            if clause.startswith("it "):
                visit = event.visit, event.colour
                others = [o for o in others if (o.visit, o.colour) == visit]
                edges = [other.segment for other in others]
            else:
                edges = [other.visit for other in others]
                assert len(set(edges)) == 1
            if relation == "after":
                fit = any(event.segment[0] >= end for _, end in edges)
            else:
                fit = any(event.segment[1] <= start for start, _ in edges)
            kept += [event] if fit else []
        found = kept
    if "appears" in clauses["main"]:
        found = sorted({event.visit for event in found})
    else:
        found = [event.segment for event in found]
    if re.search("first time|second time|again", query):
        # There is no third time, or "again" would be either.
        assert len(found) == 2
        found = [found["first time" not in query]]
    return found


def test_every_sentence_has_exactly_one_answer(moments, plans):
    for moment in moments:
        _, events = plans[moment.video_id]
        assert answers(moment.query, events) == list(moment.segments), moment


def test_sentences_vary_and_some_need_their_context(moments):
    queries = [moment.query for moment in moments]
    assert len(set(queries)) > 0.8 * len(queries)
    for words in (
        "first time|second time|again",
        r"\bit\b",
        "leaves|disappears|gone|comes|and then",
    ):
        share = np.mean([bool(re.search(words, query)) for query in queries])
        assert share > 0.04, words


def test_moments_cannot_be_guessed_from_their_place(moments):
    # Of a window in the middle of the video, as long as moments are in the
    # mean, no more is to be expected than of any event of the video.
    truth = np.array([moment.segments[0] for moment in moments])
    duration = np.array([moment.duration for moment in moments])
    for share in (0.25, 0.5, 0.75):
        guess = share * duration[:, None] + [-2.3, 2.3]
        assert np.mean(segments_lib.iou(guess, truth) >= 0.5) < 0.16
    grid = WindowGrid((3.0, 4.5, 6.0, 8.0))
    chance = np.mean(
        [
            np.mean(segments_lib.iou(grid.windows(d), t) >= 0.5)
            for d, t in zip(duration, truth, strict=True)
        ]
    )
    assert chance < 0.09


# Descriptors


def test_descriptors_see_the_motion_of_any_shape(subtests):
    paths = {
        "left": ((20, 16, 4), (8, 16, 4)),
        "right": ((8, 16, 4), (20, 16, 4)),
        "up": ((16, 20, 4), (16, 8, 4)),
        "down": ((16, 8, 4), (16, 20, 4)),
        "growing": ((16, 16, 3), (16, 16, 6)),
        "shrinking": ((16, 16, 6), (16, 16, 3)),
    }
    for shape, motion in itertools.product(scenes_lib.SHAPES, paths):
        clips = pixels.describe(draw(shape, np.linspace(*paths[motion], 24)))
        means = clips[1:].mean(axis=0)
        seen = {kind: means[column(f"red {kind}")] for kind in paths}
        with subtests.test(shape, motion=motion):
            assert seen.pop(motion) > 0.4
            # The centre of a triangle moves a bit where its pixels are few.
            assert max(seen.values()) < 0.2


def test_descriptors_see_the_shape_at_any_size(subtests):
    names = {"square": "full", "circle": "round", "cross": "sparse"}
    shapes = (*names, "triangle")
    for shape, radius in itertools.product(shapes, (3.0, 4.0, 6.0)):
        clips = pixels.describe(draw(shape, [(15.3, 16.2, radius)] * 4))
        bins = {n: clips[0, column(f"red {n}")] for n in names.values()}
        lopsided = clips[0, column("red lopsided")]
        with subtests.test(shape, radius=radius):
            assert (lopsided > 0.25) == (shape == "triangle")
            if shape in names:
                assert max(bins, key=bins.get) == names[shape]


def test_descriptors_see_the_colour():
    for colour, rgb in scenes_lib.COLOURS.items():
        clips = pixels.describe(draw("circle", [(8, 24, 5)] * 4, rgb))
        areas = {c: clips[0, column(f"{c} area")] for c in pixels.COLOURS}
        # A circle of radius 5 has 78.5 pixels; its rim counts for a bit more.
        assert areas.pop(colour) * 50 == pytest.approx(80, abs=6), colour
        assert max(areas.values()) == 0
        assert clips[0, column(f"{colour} bottom left")] > 3
        assert clips[0, column(f"{colour} top right")] == 0


def test_descriptors_of_an_empty_picture_are_zero():
    grain = np.random.default_rng(0).integers(-6, 7, (9, 32, 32, 3))
    clips = pixels.describe((50 + grain).astype(np.uint8), clip_frames=2)
    assert clips.shape == (4, len(pixels.NAMES))
    np.testing.assert_array_equal(clips, 0)


@given(st.integers(0, 2**32))
def test_descriptors_are_finite_on_any_picture(seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (4, 6, 8, 3), np.uint8)
    assert np.isfinite(pixels.describe(frames)).all()


def test_pooled_features_tell_colour_shape_and_motion(scenes, plans):
    def examples(video_ids):
        for video_id in video_ids:
            for event in plans[video_id][1]:
                if event.motion in synthetic.MOTIONS:
                    clips = scenes.features[video_id]
                    pooled = pool_clips(clips, event.segment, 0.5)
                    yield pooled, event

    video_ids = list(scenes.features)
    train, test = list(examples(video_ids[:21])), list(examples(video_ids[21:]))

    # The colour of an event is one of the two that are seen most meanwhile.
    areas = [column(f"{colour} area") for colour in scenes_lib.COLOURS]
    colours = np.array(list(scenes_lib.COLOURS))
    for pooled, event in test:
        assert event.colour in colours[np.argsort(pooled[areas])[-2:]]

    def linear(pairs):
        x = np.array([of_colour(pooled, e.colour) for pooled, e in pairs])
        return np.column_stack([x, np.ones(len(x))])

    # Shape and motion follow linearly from the columns of that colour.
    x, x_test = linear(train), linear(test)
    for attribute in ("shape", "motion"):
        labels = np.array([getattr(event, attribute) for _, event in train])
        names = np.unique(labels)
        weights = np.linalg.solve(
            x.T @ x + 0.1 * np.eye(x.shape[1]), x.T @ (labels[:, None] == names)
        )
        predicted = names[np.argmax(x_test @ weights, axis=1)]
        truth = [getattr(event, attribute) for _, event in test]
        assert np.mean(predicted == np.array(truth)) > 0.9


# Files


def test_written_scenes_read_back(scenes, tmp_path):
    part = dataclasses.replace(
        scenes,
        moments=scenes.moments[:12],
        features=dict(list(scenes.features.items())[:3]),
    )
    synthetic.write(part, tmp_path / "new", "val")
    moments = read_moments(tmp_path / "new" / "val.jsonl", "jsonl")
    without_source = [dataclasses.replace(m, source="") for m in moments]
    assert without_source == part.moments
    with open_features(tmp_path / "new" / "features_val.hdf5") as features:
        assert features.clip_seconds == part.clip_seconds
        assert sorted(features) == sorted(part.features)
        for video_id, clips in part.features.items():
            np.testing.assert_array_equal(features[video_id], clips)


def test_files_of_videos_give_the_same_features(tmp_path):
    pytest.importorskip("av")
    scenes = synthetic.make_scenes(2, split="val")
    told = []
    moments = synthetic.write_videos(
        tmp_path,
        2,
        split="val",
        progress=lambda share, done: told.append((share, done)),
    )
    assert told == [(0.5, 1), (1.0, 2)]
    assert moments == scenes.moments
    encoder = pixels.Pixels()
    for video, clips in scenes.features.items():
        encoded = encode_video(tmp_path / f"{video}.mp4", encoder)
        assert encoded.clips.shape == clips.shape
        # On average numbers of 0.1; the codec takes 2 % of that.
        assert np.abs(encoded.clips - clips).mean() < 0.005
        assert encoded.duration == synthetic.plan(video)[0]
