"""What the models share: their settings, their queries and their methods."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from acnn_tf import layers, replicas
from acnn_tf.data.windows import WindowGrid, check_queries
from acnn_tf.models.moment_model import MomentModel, description_text
from acnn_tf.segments import OFFSET_UNITS

# Settings of any `keras.Model`.
OF_KERAS = ("name", "trainable", "dtype")
# Settings that describe an encoder, see `acnn_tf.encoders.descriptions`.
DESCRIPTIONS = ("encoder", "query_description")


class WindowModel(MomentModel):
    """Base of models that score the windows of videos for queries.

    Training, evaluation, search and serving all use `encode_windows`,
    `encode_queries` and `match`. A model adds the layers that make vectors of
    windows, and the head that compares them with queries.

    Args:
        window_lengths: Lengths of the windows, in seconds, or in frames if
            `frame_rate` is given.
        window_overlap: Share that neighbouring windows have in common.
        frame_rate: Frames per second, where windows are in frames.
        clip_seconds: Seconds that one clip (one feature vector) stands for.
        dilation: Steps between the windows of a context. Default:
            `1 / (1 - window_overlap)`, which makes them adjacent.
        context_length: Length of the windows of a context, in the unit of
            `window_lengths`: adjacent stretches, whatever the window's own
            length, 128 frames in the code of the paper. `None`: windows of
            its own length, by `dilation`.
        embedding_dim: t, the common width of windows and queries.
        hidden_dim: Hidden layer of the head; `None` goes straight from the
            cross feature to the outputs.
        position_features: Whether the model sees where in its video a window
            lies.
        query_encoder: `"gru"` or `"mean"` over words. Sentence vectors are
            used as they are.
        query_units: Units of the GRU in each direction.
        vocabulary: List of words where queries are word ids (from
            `acnn_tf.data.sentences.Vocabulary`), `None` where they are
            sentence vectors.
        word_dim: Width of the word vectors.
        train_words: Whether training changes the word vectors.
        dropout: Rate on query vectors, window vectors and the hidden layer.
        clip_dropout: Share of the clip features that training leaves out, the
            same ones in all clips of a video.
        offset_unit: Unit of the predicted offsets: `"seconds"`, `"frames"` or
            `"window_lengths"`.
        consensus_iou: Search raises the scores of windows that overlap each
            other by more than this IoU once they are shifted by their offsets;
            several values are averaged. `None` ranks by the scores alone, as
            in the papers.
        decay_sigma: Search lowers the scores of windows that overlap better
            ones, more so the smaller this is. `None` leaves the scores.
        encoder: What made the clip features, a dictionary, see
            `acnn_tf.encoders.descriptions`; others are refused. `None` where
            it is not known.
        query_description: What made the sentence vectors that it learned from,
            a dictionary like `encoder`. `None` where it is not known, or
            queries are words.

    Call arguments:
        inputs: Dictionary of a training batch, as `acnn_tf.data.batches`
            makes it: what `encode_windows` takes, `"query"`, and
            `"positive"`, int `[B]`, the index of the window of each example
            that the other examples of the batch are compared with; without
            it, they are not.

    Returns:
        `"score": [B, W]` and `"offset": [B, W, 2]` of each query with the
        windows of its own example, and `"batch_score": [B, B]` of query i
        with the positive window of example j.

    Example:

    >>> import acnn_tf
    >>> model = acnn_tf.models.CTRL(window_lengths=(4.0, 8.0))
    >>> model.grid.windows(duration=5.0).tolist()[:2]
    [[0.0, 4.0], [0.5, 4.5]]
    """

    def __init__(
        self,
        window_lengths: Sequence[float] = (
            3.0,
            4.5,
            6.0,
            8.0,
            10.5,
            14.0,
            19.0,
        ),
        window_overlap: float = 0.8,
        frame_rate: float | None = None,
        clip_seconds: float = 1.0,
        dilation: int | None = None,
        context_length: float | None = None,
        embedding_dim: int = 128,
        hidden_dim: int | None = 256,
        position_features: bool = True,
        query_encoder: str = "gru",
        query_units: int = 128,
        vocabulary: Sequence[str] | None = None,
        word_dim: int = 300,
        train_words: bool = True,
        dropout: float = 0.3,
        clip_dropout: float = 0.3,
        offset_unit: str = "window_lengths",
        consensus_iou: float | Sequence[float] | None = (0.5,),
        decay_sigma: float | None = None,
        encoder: Mapping | None = None,
        query_description: Mapping | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.window_lengths = tuple(window_lengths)
        self.window_overlap = window_overlap
        self.frame_rate = frame_rate
        self.clip_seconds = clip_seconds
        self.dilation = dilation
        self.context_length = context_length
        self.embedding_dim = embedding_dim
        self.hidden_dim = hidden_dim
        self.position_features = position_features
        self.query_encoder = query_encoder
        self.query_units = query_units
        self.vocabulary = None if vocabulary is None else list(vocabulary)
        self.word_dim = word_dim
        self.train_words = train_words
        self.dropout = dropout
        self.clip_dropout = clip_dropout
        self.consensus_iou = consensus_iou
        if consensus_iou is not None:
            self.consensus_iou = tuple(np.atleast_1d(consensus_iou).tolist())
        self.decay_sigma = decay_sigma
        self.offset_unit = offset_unit

        if offset_unit not in OFFSET_UNITS:
            raise ValueError(
                f"`offset_unit` not in {OFFSET_UNITS}. Received: {offset_unit}"
            )
        if offset_unit == "frames" and not frame_rate:
            raise ValueError("`offset_unit='frames'` needs a `frame_rate`.")
        if self.consensus_iou is not None and not (
            self.consensus_iou and all(0 <= m < 1 for m in self.consensus_iou)
        ):
            raise ValueError(
                f"`consensus_iou` must be in [0, 1). Received: {consensus_iou}"
            )
        if decay_sigma is not None and not decay_sigma > 0:
            raise ValueError(
                f"`decay_sigma` must be positive. Received: {decay_sigma}"
            )
        if not 0 < clip_seconds < math.inf:
            raise ValueError(
                f"`clip_seconds` must be positive. Received: {clip_seconds}"
            )
        if isinstance(vocabulary, str) or not (
            all(isinstance(word, str) for word in self.vocabulary or ())
            and len(set(self.vocabulary or ())) == len(self.vocabulary or ())
        ):
            raise ValueError(
                "`vocabulary` must be a list of words, each once. "
                f"Received: {vocabulary!r:.60}"
            )
        self._encoder = description_text("encoder", encoder)
        self._query_description = description_text(
            "query_description", query_description
        )
        self.grid = WindowGrid(
            self.window_lengths,
            window_overlap,
            frame_rate,
            dilation,
            context_length,
        )
        self.normalization = layers.ClipNormalization(dtype=self.dtype_policy)
        self.drop_features = keras.layers.SpatialDropout1D(
            clip_dropout, dtype=self.dtype_policy
        )

    def _add_query_layers(self):
        """Makes the layers of the queries, and those that windows share.

        Keras draws a seed with each layer, so their order is part of what a
        seed repeats: first the layers of windows, then these, then the head.
        """
        common = {"dtype": self.dtype_policy}
        self.position_projection = None
        if self.position_features:
            hidden = keras.layers.Dense(self.embedding_dim, "relu", **common)
            output = keras.layers.Dense(self.embedding_dim, **common)
            self.position_projection = keras.Sequential(
                [hidden, output], name="position_projection"
            )
        self.words = None
        if self.vocabulary is not None:
            self.words = keras.layers.Embedding(
                len(self.vocabulary) + 2,
                self.word_dim,
                trainable=self.train_words,
                name="words",
                **common,
            )
        self.sentence = layers.QueryEncoder(
            self.query_encoder,
            self.query_units,
            self.dropout,
            name="sentence",
            **common,
        )
        self.query_projection = keras.layers.Dense(
            self.embedding_dim, name="query_projection", **common
        )
        self.drop = keras.layers.Dropout(self.dropout, **common)

    @property
    def encoder(self) -> dict | None:
        """What made the clip features: a dictionary, or `None`."""
        return json.loads(self._encoder)

    @property
    def query_description(self) -> dict | None:
        """What made the sentence vectors: a dictionary, or `None`."""
        return json.loads(self._query_description)

    @property
    def query_dim(self) -> int:
        """E, the width of sentence vectors; of words, that of their GRU."""
        return self.query_projection.kernel.shape[0]

    @property
    def clip_dim(self) -> int | None:
        """D, the width of the clip features; `None` before it is known."""
        known = self.normalization.built
        return self.normalization.mean.shape[0] if known else None

    def adapt(self, clips: np.ndarray | Iterable[np.ndarray]) -> None:
        """Sets the mean and scale that clip features are normalised by.

        Args:
            clips: float `[N, D]` or an iterable of such arrays, for instance
                `features.values()`.
        """
        self.normalization.adapt(clips)

    def set_word_vectors(
        self, words: Sequence[str], vectors: np.ndarray
    ) -> None:
        """Starts words of the vocabulary at given vectors.

        Words of the vocabulary that are not among `words` keep the random
        vectors that they have.

        Args:
            words: List of N words of the vocabulary, such as
                `acnn_tf.data.sentences.read_glove` returns.
            vectors: float `[N, word_dim]`.

        Raises:
            ValueError: If the model has no vocabulary, a word is not in it, or
                the shape is another.
        """
        if self.words is None:
            raise ValueError("Word vectors need a model with a `vocabulary`.")
        shape = (len(words), self.word_dim)
        if tuple(vectors.shape) != shape:
            raise ValueError(
                f"`vectors` must be {shape}. Received: {tuple(vectors.shape)}"
            )
        row = {word: i for i, word in enumerate(self.vocabulary, start=2)}
        if unknown := [word for word in words if word not in row]:
            raise ValueError(
                f"`words` are not in the vocabulary: {unknown[:5]}"
            )
        if not self.words.built:
            self.words.build()
        table = ops.convert_to_numpy(self.words.embeddings).copy()
        table[[row[word] for word in words]] = vectors
        self.words.embeddings.assign(table)

    def encode_windows(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Encodes the windows of videos as vectors.

        Args:
            inputs: Dictionary with `"segment"`, float `[B, W, C, 2]`, the
                context windows of each window in seconds
                (`WindowGrid.contexts`), of zero length where there is none;
                `"duration"`, float `[B]`, seconds of the videos; and either
                `"clip"`, float `[B, T, D]`, with `"clip_mask"`, bool `[B, T]`,
                or `"window"`, float `[B, W, C, D]`, the context windows,
                pooled by `acnn_tf.data.windows.pool_clips`. Clips from the
                middle of a video come with `"first_clip"`, int `[B]`, the
                number of clips before them.
            training: bool.

        Returns:
            `[B, W, N]`, where N is t unless the model says otherwise.
        """
        raise NotImplementedError

    def attention_weights(
        self, inputs: Mapping[str, keras.KerasTensor]
    ) -> keras.KerasTensor | None:
        """Weights of the widths of the context, `None` without such weights.

        Args:
            inputs: The dictionary that `encode_windows` takes.
        """
        return None

    def _features(self, inputs, training):
        """Normalised features, and which of them belong to each window.

        Returns `(features, mask, share)`: of clips, `[B, T, D]`, `None` and
        the `[B, W, C, T]` of `clip_share`; of pooled windows, `[B, W, C, D]`,
        bool `[B, W, C]` and `None`.
        """
        if "clip" in inputs:
            segment = ops.cast(inputs["segment"], self.variable_dtype)
            clip = self.normalization(inputs["clip"])
            clip = self.drop_features(clip, training=training)
            share = layers.clip_share(
                segment / self.clip_seconds,
                inputs["clip_mask"],
                inputs.get("first_clip"),
            )
            return clip, None, share
        window = inputs["window"]
        # Windows past the last clip were pooled to zeros. They count as
        # missing, since normalised zeros would be the negative mean.
        mask = ops.any(ops.not_equal(window, 0), axis=-1)
        window = self.normalization(window)
        shape = ops.shape(window)
        window = self.drop_features(
            ops.reshape(window, (-1, shape[1] * shape[2], shape[3])),
            training=training,
        )
        return ops.reshape(window, shape), mask, None

    def _placed(self, window, segment, duration):
        """Adds to windows `[B, W, t]` where in their videos they lie."""
        if self.position_projection is None:
            return window
        segment = ops.cast(segment, self.variable_dtype)
        duration = ops.cast(duration, self.variable_dtype)
        place = segment / ops.reshape(duration, (-1, 1, 1))
        length = place[..., 1:] - place[..., :1]
        return window + self.position_projection(
            ops.concatenate([place, length], -1)
        )

    def encode_queries(
        self,
        query: np.ndarray | keras.KerasTensor,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Encodes queries as vectors.

        Args:
            query: int `[Q, L]`, word ids, 0 = padding, if the model has a
                vocabulary, else float `[Q, E]`, sentence vectors.
            training: bool.

        Returns:
            `[Q, t]`.
        """
        if not hasattr(query, "dtype"):
            query = np.asarray(query)
        mask = None
        is_float = keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(query.dtype)
        )
        if is_float == (self.words is not None):
            raise ValueError(
                "`query` must be word ids, ints [Q, L], if the model has a "
                "`vocabulary`, else vectors, floats [Q, E]. Received: "
                f"{query.dtype} of shape {tuple(query.shape)}"
            )
        if self.words is not None:
            if isinstance(query, np.ndarray):
                check_queries(query, self.vocabulary)
            mask = ops.not_equal(query, 0)
            query = self.words(query)
        query = self.sentence(query, mask=mask, training=training)
        return self.query_projection(query)

    def match(
        self,
        query: keras.KerasTensor,
        window: keras.KerasTensor,
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """Score and offsets of every query with every window.

        Args:
            query: `[..., Q, t]` from `encode_queries`.
            window: `[..., W, N]` from `encode_windows`.
            training: bool.

        Returns:
            `{"score": [..., Q, W], "offset": [..., Q, W, 2]}`; the offsets of
            start and end are in `offset_unit`.
        """
        return self.head(query, window, training=training)

    def fold(self, query: keras.KerasTensor) -> tuple[keras.KerasTensor, ...]:
        """Folds queries `[Q, t]` for `score` and `locate`.

        Returns:
            Tuple of tensors whose first axis is Q.
        """
        return self.head.fold(query)

    def score(
        self, folded: tuple[keras.KerasTensor, ...], window: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Scores of `match` without the offsets, for search.

        Args:
            folded: What `fold` returned for `[Q, t]` queries.
            window: `[W, N]`, float32 or less.

        Returns:
            `[W, Q]` in the precision of `window`.
        """
        return self.head.score(folded, window)

    def locate(
        self,
        folded: tuple[keras.KerasTensor, ...],
        row: keras.KerasTensor,
        window: keras.KerasTensor,
    ) -> dict[str, keras.KerasTensor]:
        """Score and offsets of some queries, each with windows of its own.

        Args:
            folded: What `fold` returned for `[Q, t]` queries.
            row: int `[P]`, the index of a query for each row of `window`.
            window: `[P, W, N]`.

        Returns:
            `{"score": [P, W], "offset": [P, W, 2]}`.
        """
        return self.head.locate(folded, row, window)

    def call(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        window = self.encode_windows(inputs, training=training)  # [B, W, N]
        query = self.encode_queries(inputs["query"], training=training)
        if "positive" not in inputs:  # `predict`
            output = self.match(query[:, None], window, training=training)
            return {name: value[:, 0] for name, value in output.items()}
        # One product compares each query with the windows of its own video and
        # with the positive windows of the whole batch, of all replicas.
        index = inputs["positive"][:, None, None]
        positive = ops.take_along_axis(window, index, axis=1)[:, 0]
        rows, num_windows = ops.shape(window)[:2]
        positive = ops.repeat(replicas.gather(positive)[None], rows, axis=0)
        output = self.match(
            query[:, None],
            ops.concatenate([window, positive], axis=1),
            training=training,
        )
        score = output["score"][:, 0]  # [B, W + B]
        return {
            "score": score[:, :num_windows],
            "offset": output["offset"][:, 0, :num_windows],
            "batch_score": score[:, num_windows:],
        }

    def _build_windows(self, clip_dim):
        """Builds the layers of the windows' side."""
        raise NotImplementedError

    def build(self, input_shape: Mapping[str, tuple]) -> None:
        features = input_shape.get("clip") or input_shape["window"]
        query = tuple(input_shape["query"])
        if self.words is not None:
            query = (*query, self.word_dim)
        build(self.normalization, features)
        self._build_windows(features[-1])
        build(self.position_projection, (None, None, 3))
        build(self.words, query[:2])
        build(self.sentence, query)
        sentence = self.sentence.compute_output_shape(query)
        build(self.query_projection, sentence)
        pair = (None, self.embedding_dim)
        build(self.head, pair, pair)
        self.built = True

    def settings(self) -> dict[str, object]:
        """The constructor's arguments, a layer as Keras serialises it."""
        found = {name: getattr(self, name) for name in self.arguments()}
        for name, value in found.items():
            if isinstance(value, keras.layers.Layer):
                found[name] = keras.saving.serialize_keras_object(value)
                found[name].pop("build_config", None)  # the model builds it
        return found

    def get_config(self) -> dict:
        return super().get_config() | self.settings()

    @classmethod
    def from_config(cls, config: dict) -> "WindowModel":
        return cls(**deserialize(config))


def build(
    layer: keras.layers.Layer | None, *shapes: tuple[int | None, ...]
) -> None:
    """Builds a layer that is there and not built yet."""
    if layer is not None and not layer.built:
        layer.build(*shapes)


def deserialize(settings: dict) -> dict:
    """Settings as `get_config` returned them, with their layers made again."""
    return {
        name: keras.saving.deserialize_keras_object(value)
        if isinstance(value, dict) and name not in DESCRIPTIONS
        else value
        for name, value in settings.items()
    }
