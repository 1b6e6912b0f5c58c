"""C3D up to its layer fc6, with weights that a user brings.

Features of TACoS in CTRL, ACRN and the paper are this layer's. Nobody may
hand on its weights here; who has them saves them once, as `numpy.savez`:

    conv1a_kernel   [3, 3, 3, 3, 64]   time, height, width, in, out
    conv1a_bias     [64]
    conv2a_kernel   [3, 3, 3, 64, 128]
    ...             conv3a 256, conv3b 256, conv4a 512, conv4b 512,
                    conv5a 512, conv5b 512, each with its bias
    fc6_kernel      [8192, 4096]       of 4 rows, 4 columns, 512 filters
    fc6_bias        [4096]
    mean            [3], or [112, 112, 3], or [16, 112, 112, 3]

Colours stand as red, green, blue, of 0 to 255. From Caffe's or PyTorch's
arrays, `[out, in, time, height, width]` and blue first:

    conv1a_kernel = conv1a.transpose(2, 3, 4, 1, 0)[..., ::-1, :]
    conv2a_kernel = conv2a.transpose(2, 3, 4, 1, 0)
    fc6_kernel = fc6.reshape(4096, 512, 4, 4).transpose(2, 3, 1, 0)
    fc6_kernel = fc6_kernel.reshape(8192, 4096)
    mean = mean[:, :, 8:120, 29:141].transpose(1, 2, 3, 0)[..., ::-1]
"""

import functools
import os
import zipfile

import keras
import numpy as np
from keras import layers

from acnn_tf.encoders.descriptions import digest
from acnn_tf.encoders.encoder import Encoder, compiled
from acnn_tf.encoders.pictures import resize
from acnn_tf.files.problems import DataError, fail

# Convolutions, and what is pooled after some: time, height, width.
_CONVOLUTIONS = {
    "conv1a": (1, 2, 2),
    "conv2a": (2, 2, 2),
    "conv3a": None,
    "conv3b": (2, 2, 2),
    "conv4a": None,
    "conv4b": (2, 2, 2),
    "conv5a": None,
    "conv5b": (2, 2, 2),
}
_FRAMES, _SIDE = 16, 112
# What is left of 16 frames of 112 x 112 behind five poolings.
_POOLED = 1 * 4 * 4
_fail = functools.partial(fail, kind=DataError)
# The size that pictures were stored in, of which the middle is taken.
_STORED = (128, 171)


class C3D(Encoder):
    """C3D's layer fc6, behind its ReLU: one vector for 16 frames.

    Args:
        weights: `.npz` file, as the module describes it. The numbers of
            filters are those of its arrays.
        frame_rate: Frames a second. Default: 16, so that a vector stands for a
            second.

    Reference: Tran et al., "Learning Spatiotemporal Features with 3D
    Convolutional Networks", ICCV 2015.
    """

    kind = "c3d"
    default_frame_rate = 16.0
    clip_frames = _FRAMES
    size = (_SIDE, _SIDE)
    preprocessing = "bilinear to 128 x 171, middle 112 x 112; minus its mean"
    batch_size = 4

    def __init__(self, weights: str = "", frame_rate: float | None = None):
        super().__init__(weights, frame_rate)
        arrays = read_weights(weights)
        self.mean = arrays.pop("mean")
        self.network = build_network(arrays)
        self._call = compiled(self.network)
        self.dim = self.network.output_shape[-1]
        self.digest = digest([*self.network.get_weights(), self.mean])

    def preprocess(self, frame: np.ndarray) -> np.ndarray:
        picture = resize(frame, _STORED, "BILINEAR")
        top, left = ((size - _SIDE) // 2 for size in _STORED)
        return picture[top : top + _SIDE, left : left + _SIDE]

    def encode_clips(self, clips: np.ndarray) -> np.ndarray:
        return self._call(clips - self.mean)


def build_network(weights: dict[str, np.ndarray]) -> keras.Model:
    """The network up to fc6 and its ReLU, of arrays by their names.

    `float32 [B, 16, 112, 112, 3]` -> `[B, D]`.
    """
    x = clips = keras.Input((_FRAMES, _SIDE, _SIDE, 3))
    # Nothing is drawn at random that is replaced right after.
    settings = {"activation": "relu", "kernel_initializer": "zeros"}
    built = []
    for name, pool in _CONVOLUTIONS.items():
        filters = len(weights[f"{name}_bias"])
        built.append(layers.Conv3D(filters, 3, **settings, padding="same"))
        x = built[-1](x)
        if pool:
            # The last of 7 rows and columns is pooled alone, as in Caffe.
            x = layers.MaxPooling3D(pool, padding="same")(x)
    built.append(layers.Dense(len(weights["fc6_bias"]), **settings))
    network = keras.Model(clips, built[-1](layers.Flatten()(x)))
    for layer, name in zip(built, [*_CONVOLUTIONS, "fc6"]):
        layer.set_weights([weights[f"{name}_kernel"], weights[f"{name}_bias"]])
    return network


def read_weights(path: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a file of weights, as the module describes it.

    One that is missing or has another shape is a `DataError`.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path!r} is not there: `c3d` needs an .npz file of weights, "
            "c3d:FILE.npz, as acnn_tf/encoders/c3d.py describes it"
        )
    try:
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it holds a single array")
            arrays = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        _fail(path, f"is not a whole .npz file: {error}")
    width = 3
    expected = {}
    for name in _CONVOLUTIONS:
        # As many filters as the array itself says.
        filters = np.shape(arrays.get(f"{name}_kernel"))[-1:] or (0,)
        expected[f"{name}_kernel"] = (3, 3, 3, width, *filters)
        expected[f"{name}_bias"] = filters
        (width,) = filters
    dim = np.shape(arrays.get("fc6_kernel"))[-1:] or (0,)
    expected["fc6_kernel"] = (_POOLED * width, *dim)
    expected["fc6_bias"] = dim
    for name, shape in expected.items():
        _check(path, arrays, name, shape)
    mean = _check(path, arrays, "mean")
    frame = (_FRAMES, _SIDE, _SIDE, 3)
    if mean.shape not in (frame, frame[1:], frame[3:]):
        _fail(
            path,
            f"'mean': expected {list(frame)}, {list(frame[1:])} or [3], found "
            f"{list(mean.shape)}",
        )
    return {
        name: arrays[name].astype(np.float32) for name in (*expected, "mean")
    }


def _check(path, arrays, name, shape=None):
    if name not in arrays:
        _fail(path, f"lacks {name!r}; it holds {', '.join(sorted(arrays))}")
    array = arrays[name]
    if shape is not None and array.shape != shape:
        _fail(
            path,
            f"{name!r}: expected {list(shape)}, found {list(array.shape)}",
        )
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        _fail(path, f"{name!r}: expected finite numbers")
    return array
