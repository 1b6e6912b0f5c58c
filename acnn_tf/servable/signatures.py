"""Defines the signatures of a servable, as TensorFlow functions."""

import json
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from acnn_tf import segments
from acnn_tf.data import sentences
from acnn_tf.data.windows import NEAR_CLIPS, NEAR_SHARE
from acnn_tf.search.moment_index import MomentIndex
from acnn_tf.search.ranking import RankingSettings, in_blocks, rank
from acnn_tf.servable import windows
from acnn_tf.servable.corpus import Corpus
from acnn_tf.servable.encoding import encode_windows
from acnn_tf.servable.sentence_vectors import SentenceVectors
from acnn_tf.servable.word_ids import WordIds

# In place of a moment where fewer were found: JSON has no infinity.
NO_SCORE = np.finfo(np.float32).min
# Pairs of a query and a window that are matched and ranked together.
_WINDOWS = 1 << 16


class Signatures(tf.Module):
    """The signatures of a model, with the tensors that they need.

    - `search`: `query` -> `video_id`, `start`, `end`, `score`, `[Q, n]`, over
      the videos of an index. Only where there is one. With `min_recall`,
      `recall` `[Q]` besides.
    - `localize`: `clip`, `num_clips`, `duration`, `query` -> `start`, `end`,
      `score`, `[B, n]`: each query in the video of its row. One video may
      come with several queries, or one query with several videos.
    - `encode_windows`: `clip`, `num_clips`, `duration` -> `window`
      `[B, W, t]`, `segment` `[B, W, 2]`, `num_windows` `[B]`.
    - `encode_queries`: `query` -> `query` `[Q, t]`.
    - `describe`: `row` -> `description`, string `[B]`: for each number, any
      number, the same text, see `describe_model`.

    Where `query` is text, they all return `unknown_words` besides, `[Q]`: the
    words of each sentence that the model does not know, none where an encoder
    reads it. A sentence with no known word gets no moments.

    `query` is string `[Q]` for a model that `takes_sentences`, else float32
    `[Q, E]`; `clip` float32 `[B, T, D]`; `num_clips` int32 `[B]`, how many of
    the T are real; `duration` float64 `[B]`, seconds, 0 for the length of the
    clips. Moments are in seconds, within the video, best first; where there
    are fewer than n, rows end on moments without length, of `NO_SCORE`.

    Args:
        model: One of `acnn_tf.models`, built.
        index: Index of this model, in which `search` searches.
        top_n: n, how many moments an answer has.
        nms_threshold: Largest IoU that two moments of one video may have.
        min_recall: Share of the best moments that `search` is to find at least,
            by a linear shortlist. Default: all of them, without one.

    Example:

    >>> import acnn_tf
    >>> model = acnn_tf.models.CTRL(vocabulary=["a", "dog"])
    >>> model.build({"clip": (None, None, 6), "query": (None, None)})
    >>> sorted(acnn_tf.servable.Signatures(model).inputs())
    ['describe', 'encode_queries', 'encode_windows', 'localize']
    """

    def __init__(
        self,
        model: keras.Model,
        index: MomentIndex | None = None,
        top_n: int = 10,
        nms_threshold: float = 0.5,
        min_recall: float | None = None,
    ):
        super().__init__()
        if top_n < 1:
            raise ValueError(f"`top_n` must be positive. Received: {top_n}")
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "A SavedModel needs Keras's TensorFlow backend: load the model "
                "there, and export it. Received: KERAS_BACKEND="
                f"{keras.backend.backend()}"
            )
        if model.clip_dim is None or not model.built:
            raise ValueError("The model must be built: call it once.")
        self._model = lambda: model  # which tf.Module must not look through
        self._top_n = top_n
        self._max_iou = segments.suppression_iou("fixed", nms_threshold)
        self._weights = [weight.value for weight in model.variables]
        self._word_ids = self._sentence_vectors = None
        if model.vocabulary is not None:
            self._word_ids = WordIds(model.vocabulary)
        elif takes_sentences(model):
            self._sentence_vectors = SentenceVectors(model.sentence_encoder)
        self._corpus = None
        if index is not None:
            self._corpus = Corpus(
                model, index, top_n, self._max_iou, min_recall
            )
        self._tells_recall = min_recall is not None
        # Several signatures ask for these: each is traced once. What is an
        # attribute, a SavedModel would keep once more.
        shared = [
            tf.function(function, autograph=False)
            for function in (self._windows_encoded, self._queries_encoded)
        ]
        self._encodings = lambda: shared

    def inputs(self) -> dict[str, dict[str, tf.TensorSpec]]:
        """Returns the inputs of each signature, as `tf.TensorSpec` by name."""
        model = self._model()
        if takes_sentences(model):
            query = tf.TensorSpec([None], tf.string, "query")
        else:
            width = model.query_dim
            query = tf.TensorSpec([None, width], tf.float32, "query")
        video = {
            "clip": tf.TensorSpec(
                [None, None, model.clip_dim], tf.float32, "clip"
            ),
            "num_clips": tf.TensorSpec([None], tf.int32, "num_clips"),
            "duration": tf.TensorSpec([None], tf.float64, "duration"),
        }
        specs = {
            "localize": {**video, "query": query},
            "encode_windows": video,
            "encode_queries": {"query": query},
            # TensorFlow Serving has no use for a signature without inputs: its
            # REST finds none ("Failed to get input map for signature"), and
            # with batching a run must have "at least one input tensor", whose
            # rows are those of the output.
            "describe": {"row": tf.TensorSpec([None], tf.int32, "row")},
        }
        if self._corpus is not None:
            specs = {"search": {"query": query}, **specs}
        return specs

    def concrete_functions(self) -> dict[str, Callable]:
        """Returns concrete functions by name, for `tf.saved_model.save`.

        Functions with named inputs and outputs; `serving_default` is the first
        of `inputs`: `search` where there is an index, else `localize`.
        """
        functions = {
            name: tf.function(
                getattr(self, name), autograph=False
            ).get_concrete_function(**specs)
            for name, specs in self.inputs().items()
        }
        default = next(iter(functions.values()))
        return {"serving_default": default, **functions}

    def search(self, query):
        query, is_known, words = self._encode_queries(query)
        video_id, segment, score, recall = self._corpus(query)
        video_id = tf.where(is_known[:, None], video_id, "")
        recall = {"recall": tf.cast(recall, tf.float32)}
        return {
            "video_id": video_id,
            **_moments(segment, score, is_known),
            **(recall if self._tells_recall else {}),
            **words,
        }

    def localize(self, clip, num_clips, duration, query):
        window, segment, num_windows, duration = self._encode_windows(
            clip, num_clips, duration
        )
        query, is_known, words = self._encode_queries(query)
        num_videos, num_queries = tf.shape(window)[0], tf.shape(query)[0]
        num_videos, num_queries = _checked(
            (num_videos, num_queries),
            (
                (num_videos == num_queries)
                | (num_videos == 1)
                | (num_queries == 1),
                "`query` and `clip` must have as many rows, or one of them "
                "one row. Received:",
                num_queries,
                num_videos,
            ),
        )
        rows = tf.where(num_videos == 1, num_queries, num_videos)
        row = tf.minimum(tf.range(rows), num_videos - 1)
        row_of_query = tf.minimum(tf.range(rows), num_queries - 1)
        query, is_known, words = tf.nest.map_structure(
            lambda values: tf.gather(values, row_of_query),
            (query, is_known, words),
        )

        def of_rows(first, last):
            of_video = row[first:last]
            moments = self._best_moments(
                query[first:last],
                *(
                    tf.gather(values, of_video)
                    for values in (window, segment, num_windows, duration)
                ),
            )
            return tf.reshape(moments, (-1, 3 * self._top_n))

        together = tf.maximum(1, _WINDOWS // tf.shape(window)[1])
        moments = in_blocks(of_rows, rows, together, tf.float64)
        moments = tf.reshape(moments, (-1, self._top_n, 3))
        return {
            **_moments(moments[..., :2], moments[..., 2], is_known),
            **words,
        }

    def _best_moments(self, query, window, segment, num_windows, duration):
        """Finds start, end and score, `[P, n, 3]`, of a query in each video."""
        model = self._model()

        def match(first, last):
            output = model.match(query[:, None], window[:, first:last])
            score, offset = output["score"][:, 0], output["offset"][:, 0]
            found = tf.concat([score[..., None], offset], -1)  # [P, w, 3]
            found = tf.transpose(tf.cast(found, tf.float32), (1, 0, 2))
            return tf.reshape(found, (tf.shape(found)[0], -1))

        width = tf.shape(window)[1]
        found = in_blocks(match, width, _WINDOWS, tf.float32)  # [W, P * 3]
        found = tf.reshape(found, (width, tf.shape(query)[0], 3))
        found = tf.transpose(found, (1, 0, 2))
        real = tf.sequence_mask(num_windows, width)
        segment, score = rank(
            RankingSettings.of(model),
            segment,
            tf.where(real, found[..., 0], -np.inf),
            found[..., 1:],
            duration,
            self._top_n,
            self._max_iou,
        )
        # Those that are missing.
        missing = [[0, 0], [0, self._top_n - tf.shape(score)[1]]]
        segment = tf.pad(segment, [*missing, [0, 0]])
        score = tf.pad(score, missing, constant_values=-np.inf)
        return tf.concat([segment, score[..., None]], -1)

    def encode_windows(self, clip, num_clips, duration):
        window, segment, num_windows, _ = self._encode_windows(
            clip, num_clips, duration
        )
        real = tf.sequence_mask(num_windows, tf.shape(window)[1])
        return {
            "window": tf.where(real[..., None], window, 0.0),
            "segment": tf.cast(segment, tf.float32),
            "num_windows": tf.cast(num_windows, tf.int32),
        }

    def encode_queries(self, query):
        query, _, words = self._encode_queries(query)
        return {"query": query, **words}

    def describe(self, row):
        text = tf.constant(describe_model(self._model()))
        return {"description": tf.fill(tf.shape(row), text)}

    def _encode_queries(self, query):
        return self._encodings()[1](query)

    def _encode_windows(self, clip, num_clips, duration):
        return self._encodings()[0](clip, num_clips, duration)

    def _queries_encoded(self, query):
        """Encodes queries; tells if they have known words, and the others."""
        is_known, words = tf.ones(tf.shape(query)[:1], tf.bool), {}
        if self._word_ids is not None:
            query, unknown_words = self._word_ids(query)
            is_known = tf.reduce_any(query > sentences.UNKNOWN, axis=1)
            words = {"unknown_words": unknown_words}
        elif self._sentence_vectors is not None:
            words = {"unknown_words": tf.fill(tf.shape(query), "")}
            query, is_known = self._sentence_vectors(query)
        else:
            is_finite = tf.reduce_all(tf.math.is_finite(query))
            query = _checked(
                query, (is_finite, "`query` must be finite numbers.")
            )
        query = tf.cast(self._model().encode_queries(query), tf.float32)
        return query, is_known, words

    def _windows_encoded(self, clip, num_clips, duration):
        """Encodes windows; returns their segments and numbers, too."""
        model = self._model()
        batch, longest = tf.shape(clip)[0], tf.shape(clip)[1]
        clip, num_clips, duration = _checked(
            (clip, num_clips, duration),
            *(
                (
                    tf.reduce_all(tf.shape(one) == [batch]),
                    "`clip`, `num_clips` and `duration` must have as many "
                    "rows. Received:",
                    batch,
                    tf.shape(num_clips),
                    tf.shape(duration),
                )
                for one in (num_clips, duration)
            ),
        )
        mask = tf.sequence_mask(num_clips, longest)  # [B, T]
        own = tf.cast(num_clips, tf.float64) * model.clip_seconds
        clip, duration = _checked(
            (clip, duration),
            (
                tf.reduce_all((num_clips >= 1) & (num_clips <= longest)),
                "`num_clips` must be at least 1 and at most the clips given. "
                "Received:",
                num_clips,
                longest,
            ),
            # As in `clips_problem`; no request asks for billions of windows.
            (
                tf.reduce_all(
                    (duration == 0)
                    | (
                        tf.abs(duration - own)
                        <= tf.maximum(
                            NEAR_SHARE * duration,
                            tf.cast(
                                NEAR_CLIPS * model.clip_seconds, tf.float64
                            ),
                        )
                        + 1e-6
                    )
                ),
                "`duration` must be seconds: 0 for the length of the clips, "
                f"which is {model.clip_seconds:g} times `num_clips`, or near "
                "to that. Received:",
                duration,
                num_clips,
            ),
            (
                tf.reduce_all(tf.math.is_finite(tf.boolean_mask(clip, mask))),
                "`clip` must be finite numbers in the real clips.",
            ),
        )
        clip = tf.where(mask[..., None], clip, 0.0)
        duration = tf.where(duration > 0, duration, own)
        segment, num_windows = windows.contexts(
            model.grid, model.context_size, duration
        )
        return (
            encode_windows(model, clip, mask, segment, duration),
            segment[:, :, model.context_size // 2],
            num_windows,
            duration,
        )


def takes_sentences(model: keras.Model) -> bool:
    """Tells whether a model's servable takes sentences, or their vectors.

    Sentences are read by the vocabulary, or by a `sentence_encoder` that can
    go into the servable, as CLIP can.
    """
    return model.vocabulary is not None or hasattr(
        model.sentence_encoder, "text_tower"
    )


def describe_model(model: keras.Model) -> str:
    """Describes the features and sentences that a model takes, as JSON.

    `{"encoder": ..., "clip_seconds": 1.0}`: what made those that it learned
    from, see `acnn_tf.encoders.descriptions`, `null` if that is not known; and
    the seconds of a clip. Where sentences are vectors of a known encoder, its
    description is `"query_description"`.
    """
    about = {
        "encoder": getattr(model, "encoder", None),
        "clip_seconds": float(model.clip_seconds),
    }
    if model.vocabulary is None and model.query_description is not None:
        about["query_description"] = model.query_description
    return json.dumps(about)


def _checked(tensors, *checks):
    """Returns tensors after a check of conditions, each with a message."""
    asserts = [
        tf.debugging.Assert(holds, message) for holds, *message in checks
    ]
    with tf.control_dependencies(asserts):
        return tf.nest.map_structure(tf.identity, tensors)


def _moments(segment, score, is_known):
    """Makes outputs of float64 `[P, n, 2]` and `[P, n]`."""
    score = tf.where(is_known[:, None], score, -np.inf)
    segment = tf.where(is_known[:, None, None], segment, 0.0)
    segment = tf.cast(segment, tf.float32)
    score = tf.cast(score, tf.float32)
    return {
        "start": segment[..., 0],
        "end": segment[..., 1],
        "score": tf.where(tf.math.is_finite(score), score, NO_SCORE),
    }
