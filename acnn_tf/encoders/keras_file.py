"""A network of one's own, saved by Keras."""

import hashlib
import os

import keras
import numpy as np

from acnn_tf.encoders.encoder import Encoder, compiled
from acnn_tf.files.problems import DataError, fail


class KerasFile(Encoder):
    """A `.keras` file: pictures of 0 to 255 in, vectors out.

    Its input is `[None, H, W, 3]`, frames, or `[None, F, H, W, 3]`, clips of
    F frames; its output `[None, D]`. Whatever else it wants done to the
    pixels, such as `keras.layers.Rescaling`, is one of its layers.

    Name a file only if it is your own, or from someone you trust: loading a
    model builds what the file says. Code within it is refused (`safe_mode`).

    Args:
        weights: `.keras` file.
        frame_rate: Frames a second. Default: 1.
    """

    kind = "keras"

    def __init__(self, weights: str = "", frame_rate: float | None = None):
        super().__init__(weights, frame_rate)
        self.name = os.path.basename(weights)
        if not os.path.isfile(weights):
            raise FileNotFoundError(
                f"{weights!r} is not there: expected a "
                ".keras file, as `model.save` writes it"
            )
        try:
            self.network = keras.saving.load_model(
                weights, compile=False, safe_mode=True
            )
        # Whatever is wrong with the file comes as it may.
        except Exception as error:
            message = f"cannot be loaded by Keras: {error}"
            fail(weights, message, kind=DataError)
        # A model that is no `keras.Sequential` or the like has none.
        entered = getattr(self.network, "input_shape", None)
        left = getattr(self.network, "output_shape", None)
        if (
            not isinstance(entered, tuple)
            or len(entered) not in (4, 5)
            or None in entered[1:]
            or entered[-1] != 3
        ):
            fail(
                weights,
                "expected an input of [None, height, width, 3] or [None, "
                f"frames, height, width, 3], found {entered}",
                kind=DataError,
            )
        if not isinstance(left, tuple) or len(left) != 2 or not left[1]:
            message = f"expected an output of [None, D], found {left}"
            fail(weights, message, kind=DataError)
        self._call = compiled(self.network)
        self.size = entered[-3:-1]
        self.clip_frames = entered[1] if len(entered) == 5 else 1
        self.dim = left[1]
        self.preprocessing = "bicubic, covering the size; its middle"
        with open(weights, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.digest = f"sha256:{digest}"

    def encode_clips(self, clips: np.ndarray) -> np.ndarray:
        if len(self.network.input_shape) == 4:
            clips = clips[:, 0]
        return self._call(clips)
