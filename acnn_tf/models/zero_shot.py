"""Likeness of frames and sentence, without any training."""

import json
import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from acnn_tf import layers
from acnn_tf.data.windows import WindowGrid
from acnn_tf.models.moment_model import MomentModel, description_text

# Of a window's length in seconds: how much more a longer window weighs.
_POWER = 0.75
# Clips outside a window, at least: fewer say nothing of a video.
_LEAST_OUTSIDE = 0.5


@keras.saving.register_keras_serializable(package="acnn_tf")
class ZeroShot(MomentModel):
    """Scores windows by their likeness to a sentence; learns nothing.

    Clips and sentences are vectors of one space, that of an image-text
    encoder such as CLIP, and are alike by their cosine. A window scores by
    what is inside it, more than outside, and by its length of s seconds:

        score(q, w) = (mean of cos(q, clip) inside w
                       - mean of cos(q, clip) outside w) * s ** 0.75

    It is the product of the sentence with a vector of the window, so that
    windows are encoded once. Where less than half a clip lies outside, half a
    clip is assumed: a window over the whole video has nothing to compare with,
    and scores 0. The offsets are 0: no window is moved.

    There are no weights. It has the methods and settings of `WindowModel`, and
    so is evaluated, searched, indexed, saved and served as the other models
    are. Power, lengths and overlap are those of the best mIoU on 2,594
    sentences of Charades-STA, with CLIP ViT-B/32 at one frame a second.

    Args:
        window_lengths: Lengths of the windows, in seconds.
        window_overlap: Share that neighbouring windows have in common.
        clip_seconds: Seconds that one clip (one feature vector) stands for.
        encoder: What made the clips, a dictionary, see
            `acnn_tf.encoders.descriptions`; sentences must be of the same
            encoder. `None` where it is not known.
        **kwargs: Arguments of `keras.Model`.

    Example:

    >>> import acnn_tf, keras
    >>> model = acnn_tf.models.ZeroShot(window_lengths=(4.0, 8.0))
    >>> windows = model.grid.windows(duration=16.0)
    >>> window = model.encode_windows({
    ...     "clip": keras.ops.ones((1, 16, 32)),
    ...     "clip_mask": keras.ops.ones((1, 16), "bool"),
    ...     "segment": model.grid.contexts(windows, model.context_size)[None],
    ...     "duration": keras.ops.array([16.0]),
    ... })
    >>> query = model.encode_queries(keras.ops.ones((5, 32)))
    >>> tuple(model.match(query, window[0])["score"].shape) == (5, len(windows))
    True
    """

    # What search, evaluation and servables read of a model.
    context_size = 1
    vocabulary = None
    offset_unit = "seconds"
    consensus_iou = None
    decay_sigma = None

    def __init__(
        self,
        window_lengths: Sequence[float] = (
            6.0,
            7.0,
            8.0,
            9.0,
            10.0,
            11.0,
            12.0,
            13.0,
            14.0,
        ),
        window_overlap: float = 0.9,
        clip_seconds: float = 1.0,
        encoder: Mapping | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.window_lengths = tuple(window_lengths)
        self.window_overlap = window_overlap
        self.clip_seconds = clip_seconds
        self._encoder = description_text("encoder", encoder)
        self.clip_dim = None
        if not 0 < clip_seconds < math.inf:
            raise ValueError(
                f"`clip_seconds` must be positive. Received: {clip_seconds}"
            )
        self.grid = WindowGrid(self.window_lengths, window_overlap)

    @property
    def encoder(self) -> dict | None:
        """What made the clips: a dictionary, or `None`."""
        return json.loads(self._encoder)

    @property
    def query_description(self) -> dict | None:
        """What makes the vectors of sentences: the same as `encoder`."""
        return self.encoder

    @property
    def query_dim(self) -> int | None:
        """E, the width of sentence vectors: that of the clips."""
        return self.clip_dim

    def attention_weights(
        self, inputs: Mapping[str, keras.KerasTensor]
    ) -> None:
        """`None`: there is no attention."""
        return None

    def encode_windows(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Encodes the windows of videos as vectors `[B, W, D]`.

        Args:
            inputs: The dictionary that `WindowModel.encode_windows` takes,
                with `"clip"`. Clips from the middle of a video come with what
                `whole_video` returns, too.
            training: Makes no difference.
        """
        own, dtype = inputs["segment"][:, :, :1], self.variable_dtype
        clip = _unit(ops.cast(inputs["clip"], dtype))
        mask = ops.cast(inputs["clip_mask"], dtype)
        segment = ops.cast(own, dtype) / self.clip_seconds  # [B, W, 1, 2]
        share = layers.clip_share(segment, mask, inputs.get("first_clip"))
        inside = ops.matmul(share[:, :, 0], clip)  # [B, W, D]
        if "mean_clip" in inputs:
            whole, count = inputs["mean_clip"], inputs["num_clips"]
        else:
            count = ops.sum(mask, axis=1)
            whole = _mean(clip, mask[..., None])
        whole = ops.cast(whole, dtype)[:, None]  # [B, 1, D]
        count = ops.reshape(ops.cast(count, dtype), (-1, 1, 1))
        edges = ops.minimum(ops.relu(segment[:, :, 0]), count)
        covered = edges[..., 1:] - edges[..., :1]  # [B, W, 1], in clips
        # With n clips, k of them inside: inside - outside
        # = inside - (n * whole - k * inside) / (n - k)
        # = (inside - whole) * n / (n - k), without large sums.
        outside = ops.maximum(count - covered, _LEAST_OUTSIDE)
        seconds = own[:, :, 0, 1:] - own[:, :, 0, :1]  # [B, W, 1]
        weight = count / outside * ops.power(ops.cast(seconds, dtype), _POWER)
        weight = ops.where(covered > 0, weight, ops.zeros_like(weight))
        return ops.cast((inside - whole) * weight, self.compute_dtype)

    def whole_video(
        self, clip: np.ndarray | keras.KerasTensor
    ) -> dict[str, keras.KerasTensor]:
        """What `encode_windows` has to know of a video given in pieces.

        Args:
            clip: float `[T, D]`, all clips of the video.

        Returns:
            Dictionary of `"mean_clip"`, `[1, D]`, and `"num_clips"`, `[1]`.
        """
        clip = _unit(ops.cast(clip, self.variable_dtype))
        return {
            "mean_clip": ops.mean(clip, axis=0, keepdims=True),
            "num_clips": ops.ones(1) * ops.cast(ops.shape(clip)[0], "float32"),
        }

    def encode_queries(
        self,
        query: np.ndarray | keras.KerasTensor,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Encodes queries: vectors of sentences at length 1.

        Args:
            query: float `[Q, D]`, sentence vectors.
            training: Makes no difference.

        Returns:
            `[Q, D]`.
        """
        query = ops.cast(query, self.variable_dtype)
        if self.clip_dim not in (None, query.shape[-1]):
            raise ValueError(
                "Sentences and clips must be of one encoder. Received: "
                f"sentence vectors of {query.shape[-1]} numbers, and clips of "
                f"{self.clip_dim}"
            )
        return ops.cast(_unit(query), self.compute_dtype)

    def match(
        self,
        query: keras.KerasTensor,
        window: keras.KerasTensor,
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """Score, and offsets of 0, of every query with every window.

        Args:
            query: `[..., Q, D]` from `encode_queries`.
            window: `[..., W, D]` from `encode_windows`.
            training: Makes no difference.

        Returns:
            `{"score": [..., Q, W], "offset": [..., Q, W, 2]}`.
        """
        return _unmoved(ops.matmul(query, ops.swapaxes(window, -1, -2)))

    def fold(self, query: keras.KerasTensor) -> tuple[keras.KerasTensor, ...]:
        """Queries `[Q, D]` as `score` and `locate` take them."""
        return (ops.convert_to_tensor(query),)

    def score(
        self, folded: tuple[keras.KerasTensor, ...], window: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Scores `[W, Q]` of `match`, in the precision of `window`."""
        (query,) = folded
        return ops.matmul(window, ops.transpose(ops.cast(query, window.dtype)))

    def locate(
        self,
        folded: tuple[keras.KerasTensor, ...],
        row: keras.KerasTensor,
        window: keras.KerasTensor,
    ) -> dict[str, keras.KerasTensor]:
        """`match` of folded queries, each with windows of its own.

        Args:
            folded: What `fold` returned for `[Q, D]` queries.
            row: int `[P]`, the index of a query for each row of `window`.
            window: `[P, W, D]`.

        Returns:
            `{"score": [P, W], "offset": [P, W, 2]}`.
        """
        query = ops.take(folded[0], row, axis=0)[:, None]  # [P, 1, D]
        output = self.match(ops.cast(query, window.dtype), window)
        return {name: value[:, 0] for name, value in output.items()}

    def call(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        window = self.encode_windows(inputs)
        query = self.encode_queries(inputs["query"])
        output = self.match(query[:, None], window)
        return {name: value[:, 0] for name, value in output.items()}

    def build(self, input_shape: Mapping[str, tuple]) -> None:
        self.clip_dim = input_shape["clip"][-1]
        self.built = True

    def get_config(self) -> dict:
        own = {name: getattr(self, name) for name in self.arguments()}
        return super().get_config() | own

    @classmethod
    def from_config(cls, config: dict) -> "ZeroShot":
        return cls(**config)


def _unit(vectors):
    """Vectors of length 1; zeros stay."""
    length = ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True))
    return vectors / ops.where(length > 0, length, ops.ones_like(length))


def _mean(clip, mask):
    """The mean of the real clips, `[B, D]`."""
    total = ops.sum(clip * mask, axis=1)
    return total / ops.maximum(ops.sum(mask, axis=1), 1)


def _unmoved(score):
    return {
        "score": score,
        "offset": ops.zeros_like(ops.stack([score, score], axis=-1)),
    }
