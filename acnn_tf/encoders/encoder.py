"""What all encoders have in common, and the table of them."""

from __future__ import annotations

import importlib
import os
import typing
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from acnn_tf.encoders import descriptions
from acnn_tf.encoders.pictures import cover

if typing.TYPE_CHECKING:
    import keras

# Name -> module and class, imported when it is asked for.
ENCODERS = {
    "pixels": ("pixels", "Pixels"),
    "clip": ("clip", "CLIP"),
    "applications": ("applications", "Applications"),
    "efficientnet_lite0": ("efficientnet_lite0", "EfficientNetLite0"),
    "c3d": ("c3d", "C3D"),
    "keras": ("keras_file", "KerasFile"),
}

# Of the fastest cameras. One of a slip of the pen would take for ever.
_MAX_FRAME_RATE = 1000


def make(name: str, frame_rate: float | None = None) -> Encoder:
    """Makes an encoder by its name.

    | name | network | weights |
    |---|---|---|
    | `pixels` | descriptors of coloured shapes | none |
    | `clip:PRESET` | CLIP of keras-hub | fetched |
    | `clip:FOLDER` | the same | in the folder |
    | `applications:NAME` | one of `keras.applications` | fetched |
    | `applications:NAME:FILE` | the same | your `.h5`, or `none` |
    | `efficientnet_lite0` | EfficientNet-Lite0 | in a PyPI package |
    | `c3d:FILE.npz` | C3D up to its layer fc6 | your file |
    | `FILE.keras` | your own | your file |

    Args:
        name: A name as in the table.
        frame_rate: Frames a second that the encoder will be given. Default:
            the encoder's own.

    Returns:
        The encoder.

    Raises:
        ValueError: If there is no encoder of this name.
        ImportError: If the encoder needs a package that is not installed.
        FileNotFoundError: If weights are missing, and cannot be fetched.
        DataError: If a file of weights cannot be used.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.encoders import make
    >>> encoder = make("pixels", frame_rate=2)
    >>> frames = np.zeros((6, 48, 64, 3), np.uint8)
    >>> encoder.encode(frames).shape, encoder.clip_seconds
    ((3, 130), 1.0)
    """
    kind, _, weights = name.partition(":")
    if kind not in ENCODERS and name.endswith(".keras"):
        kind, weights = "keras", name
    if kind not in ENCODERS:
        raise ValueError(
            f"no encoder is called {name!r}: give one of "
            f"{', '.join(ENCODERS)}, with its weights behind a colon, or a "
            ".keras file"
        )
    module, class_name = ENCODERS[kind]
    module = importlib.import_module(f"acnn_tf.encoders.{module}")
    return getattr(module, class_name)(weights, frame_rate)


def make_described(
    description: dict, whose: str, frame_rate: float | None = None
) -> Encoder:
    """Makes an encoder by the name in its description.

    Args:
        description: Description of an encoder: `Encoder.description`, as files
            of features and models keep it.
        whose: What has this description, for the message.
        frame_rate: Frames a second that the encoder will be given. Default:
            the encoder's own.

    Returns:
        The encoder. It may have other weights than the description says, which
        `check` finds out.

    Raises:
        ValueError: If there is no encoder of this name. The message says what
            to name.

    Example:

    >>> from acnn_tf import encoders
    >>> description = encoders.make("pixels").description
    >>> encoders.make_described(description, "my file").name
    'pixels'
    """
    name = description["name"]
    try:
        # As `Encoder.name` has it. A stranger's may be an address.
        if "/" in name or "\\" in name:
            raise ValueError("it is no name, perhaps a path or an address")
        return make(name, frame_rate)
    except (OSError, ValueError) as error:
        name = descriptions.shown(name)
        kind, colon, weights = name.rpartition(":")
        raise ValueError(
            f"{whose} was made with {name}, which cannot be made by that name "
            f"({error}). Where {weights} lies somewhere else, name the encoder "
            f"so: {kind}{colon}path/to/{weights}"
        ) from error


class Encoder:
    """Frames of a video -> one vector for each of its clips.

    A subclass says how clips become vectors (`encode_clips`) and sets the
    attributes below. It may also say how a frame is prepared (`preprocess`).

    Args:
        weights: What stands behind the first colon of the encoder's name.
        frame_rate: Frames a second that the encoder will be given.

    Attributes:
        kind: String: its row in `ENCODERS`.
        name: String: its kind and its weights, without their folder.
        digest: String: SHA-256 of its weights, empty without any.
        frame_rate: Float, as above.
        clip_frames: Int: frames to a clip.
        size: `(height, width)` of a prepared frame.
        preprocessing: String: how a frame is prepared, in words.
        dim: Int: numbers in a vector.
        batch_size: Int: clips that go through the network together.

    Example:

    >>> import numpy as np
    >>> from acnn_tf.encoders import Encoder
    >>> class Brightness(Encoder):
    ...     kind = name = "brightness"
    ...     default_frame_rate, clip_frames, dim = 1.0, 1, 1
    ...     size, preprocessing, batch_size = (8, 8), "8 x 8 pixels", 32
    ...
    ...     def encode_clips(self, clips):
    ...         return clips.mean(axis=(1, 2, 3, 4))[:, None]
    >>> frames = np.full((3, 48, 64, 3), 7, np.uint8)
    >>> Brightness().encode(frames).tolist()
    [[7.0], [7.0], [7.0]]
    """

    kind: str
    digest = ""
    default_frame_rate = 1.0
    clip_frames = 1
    size: tuple[int, int]
    preprocessing: str
    dim: int
    batch_size = 32

    def __init__(self, weights: str = "", frame_rate: float | None = None):
        if frame_rate is None:
            frame_rate = self.default_frame_rate
        if not 0 < frame_rate <= _MAX_FRAME_RATE:
            raise ValueError(
                f"`frame_rate` must be above 0, and {_MAX_FRAME_RATE:,} at "
                f"most. Received: {frame_rate}"
            )
        # Where a file lies is nobody's business.
        label = os.path.basename(os.path.normpath(weights)) if weights else ""
        self.name = f"{self.kind}:{label}" if label else self.kind
        self.frame_rate = float(frame_rate)

    @property
    def clip_seconds(self) -> float:
        """Seconds of video that one vector stands for."""
        return self.clip_frames / self.frame_rate

    @property
    def description(self) -> dict:
        """What decides the numbers, as plain values.

        See `acnn_tf.encoders.descriptions`.
        """
        return {
            "encoder": self.kind,
            "name": self.name,
            "weights": self.digest,
            "frame_rate": self.frame_rate,
            "clip_frames": self.clip_frames,
            "size": list(self.size),
            "preprocessing": self.preprocessing,
            "dim": self.dim,
            "versions": descriptions.versions(),
        }

    def encode(
        self, frames: Iterable[np.ndarray], batch_size: int | None = None
    ) -> np.ndarray:
        """Encodes the frames of one video.

        Frames are prepared one by one as they come, so that an iterator over
        the frames of hours takes no more memory than a batch of clips.

        Args:
            frames: `uint8 [F, H, W, 3]`, RGB, or an iterator over its rows,
                such as `acnn_tf.data.open_video(path).frames(frame_rate)`.
            batch_size: Number of clips that go through the network together.
                Other sizes give the same numbers up to rounding.

        Returns:
            `float32 [T, D]`. If the last clip lacks frames, its last one is
            repeated.

        Raises:
            ValueError: If a frame is anything else.
        """
        if batch_size is None:
            batch_size = self.batch_size
        if batch_size < 1:
            raise ValueError(
                f"`batch_size` must be at least 1. Received: {batch_size}"
            )
        batches = self._batches(frames, batch_size)
        rows = [np.zeros((0, self.dim), np.float32)]
        return np.concatenate([*rows, *self.encode_batches(batches)])

    def preprocess(self, frame: np.ndarray) -> np.ndarray:
        """Prepares one frame: `uint8 [H, W, 3]` -> `uint8 [h, w, 3]`."""
        return cover(frame, self.size)

    def encode_batches(
        self, batches: Iterator[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Encodes the batches of one video, in their order."""
        return map(self.encode_clips, batches)

    def encode_clips(self, clips: np.ndarray) -> np.ndarray:
        """Encodes clips: `uint8 [B, F, h, w, 3]` -> `float32 [B, D]`."""
        raise NotImplementedError

    def _batches(self, frames, batch_size):
        """Prepared frames as `uint8 [B, F, h, w, 3]`."""
        batch = []
        for frame in frames:
            frame = np.asarray(frame)
            if (
                frame.dtype != np.uint8
                or frame.ndim != 3
                or frame.shape[-1] != 3
                or 0 in frame.shape
            ):
                raise ValueError(
                    "`frames` must be uint8 [height, width, 3], RGB. "
                    f"Received: {frame.dtype} {list(frame.shape)}"
                )
            batch.append(self.preprocess(frame))
            if len(batch) == batch_size * self.clip_frames:
                yield self._clips(batch)
                batch = []
        if batch:
            missing = -len(batch) % self.clip_frames
            yield self._clips(batch + batch[-1:] * missing)

    def _clips(self, frames):
        frames = np.stack(frames)
        return frames.reshape(-1, self.clip_frames, *frames.shape[1:])


def compiled(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function `[B, ...] -> float32 [B, D]` of a Keras model.

    It is traced once for all sizes of batches. `predict` would be traced for
    two of them, and compiled by XLA for each size of a last batch.
    """
    import tensorflow as tf

    (entered,) = network.inputs
    signature = [tf.TensorSpec(entered.shape, entered.dtype)]

    @tf.function(input_signature=signature, jit_compile=False)
    def call(batch):
        return tf.cast(network(batch, training=False), "float32")

    return lambda batch: call(tf.cast(batch, entered.dtype)).numpy()
