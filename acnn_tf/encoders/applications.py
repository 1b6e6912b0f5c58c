"""Any network of `keras.applications`, pooled over the picture."""

import os
import sys

import keras
import numpy as np

from acnn_tf.encoders.descriptions import digest
from acnn_tf.encoders.encoder import Encoder, compiled
from acnn_tf.files.problems import DataError, fail

# Pixels of a side that each was trained with, where that is not 224.
_SIDES = {
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
    "InceptionResNetV2": 299,
    "InceptionV3": 299,
    "NASNetLarge": 331,
    "Xception": 299,
}


class Applications(Encoder):
    """The last map of a network of `keras.applications`, averaged.

    Args:
        weights: `NAME`, whose ImageNet weights Keras fetches once;
            `NAME:FILE`, an `.h5` file of the network without its top; or
            `NAME:none`, random weights.
        frame_rate: Frames a second. Default: 1.

    Example:

    >>> from acnn_tf.encoders.applications import Applications
    >>> encoder = Applications("MobileNet:none")
    >>> encoder.dim
    1024
    """

    kind = "applications"

    def __init__(self, weights: str = "", frame_rate: float | None = None):
        network, _, file = weights.partition(":")
        super().__init__(f"{network}:{file}", frame_rate)
        label = f":{os.path.basename(file)}" if file else ""
        self.name = f"{self.kind}:{network}{label}"
        build = getattr(keras.applications, network, None)
        if not network[:1].isupper() or not callable(build):
            names = [n for n in dir(keras.applications) if n[0].isupper()]
            raise ValueError(
                f"`applications` must be followed by one of {', '.join(names)}."
                f" Received: {network!r}"
            )
        side = _SIDES.get(network, 224)
        self.size = (side, side)
        self.preprocessing = (
            f"bicubic, short side {side}, middle square; preprocess_input"
        )
        self._preprocess_input = sys.modules[build.__module__].preprocess_input
        self.network = _build(build, network, file, (side, side, 3))
        self._call = compiled(self.network)
        self.dim = self.network.output_shape[-1]
        self.digest = digest(self.network.get_weights())

    def encode_clips(self, clips: np.ndarray) -> np.ndarray:
        pixels = self._preprocess_input(clips[:, 0].astype("float32"))
        return self._call(pixels)


def _build(build, network, file, shape):
    settings = {"include_top": False, "pooling": "avg", "input_shape": shape}
    if file == "none":
        return build(weights=None, **settings)
    if file:
        if not os.path.isfile(file):
            raise FileNotFoundError(
                f"{file} is not there: it should hold weights of {network}"
            )
        try:
            return build(weights=file, **settings)
        # Whatever is wrong with the file comes as it may.
        except Exception as error:
            message = f"holds no weights of {network} without its top: {error}"
            fail(file, message, kind=DataError)
    try:
        return build(weights="imagenet", **settings)
    # Keras raises a plain `Exception` where there is no network.
    except Exception as error:
        raise FileNotFoundError(
            f"The ImageNet weights of {network} are not on this machine, and "
            f"could not be fetched: {error}. Fetch that file where there is a "
            "network, and put it into ~/.keras/models, or name it: "
            f"applications:{network}:FILE"
        ) from error
