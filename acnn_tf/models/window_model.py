"""What the models share: settings, queries, and the way through them."""

import inspect

import keras
import numpy as np
from keras import ops

from acnn_tf import layers, replicas
from acnn_tf.data.windows import WindowGrid
from acnn_tf.models.moment_model import MomentModel
from acnn_tf.segments import OFFSET_UNITS


class WindowModel(MomentModel):
    """Scores the windows of videos for queries, with boundary offsets.

    `encode_windows`, `encode_queries` and `match` are the only way through for
    training, evaluation, search and serving. A model adds how its windows
    become vectors, and the head in which they meet the queries.

    Args:
        window_lengths: Lengths of the windows, in seconds, or in frames if
            `frame_rate` is given.
        window_overlap: Share that neighbouring windows have in common.
        frame_rate: Frames per second, where windows are in frames.
        clip_seconds: Seconds that one clip (one feature vector) stands for.
        dilation: Steps between the windows of a context. Default:
            `1 / (1 - window_overlap)`, which makes them adjacent.
        embedding_dim: t, the common width of windows and queries.
        hidden_dim: Hidden layer of the head; `None` goes straight from the
            cross feature to the outputs.
        position_features: Show the model where in its video a window lies.
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
        consensus_iou: Search lets windows support each other whose shifted
            segments overlap by more than this IoU, or on average over several
            such, see `acnn_tf.search.consensus`; `None` ranks by the scores
            alone, as in the papers.
        decay_sigma: Search lowers the scores of windows under better ones,
            the smaller this is the more, see `acnn_tf.search.decay`; `None`
            leaves them.

    Call arguments:
        inputs: Dictionary of a training batch, as `acnn_tf.data.batches`
            makes it: what `encode_windows` takes, `"query"`, and
            `"positive"`, `int [B]`, the window of each example that stands
            for it among the others of the batch.

    Returns:
        `"score": [B, W]` and `"offset": [B, W, 2]` of each query with the
        windows of its own example, and `"batch_score": [B, B]` of query i
        with the positive window of example j.

    Example:

    >>> from acnn_tf.models import ACNN
    >>> ACNN.arguments().keys() - WindowModel.arguments().keys() >= {"filters"}
    True
    """

    def __init__(
        self,
        window_lengths=(3.0, 4.5, 6.0, 8.0, 10.5, 14.0, 19.0),
        window_overlap=0.8,
        frame_rate=None,
        clip_seconds=1.0,
        dilation=None,
        embedding_dim=128,
        hidden_dim=256,
        position_features=True,
        query_encoder="gru",
        query_units=128,
        vocabulary=None,
        word_dim=300,
        train_words=True,
        dropout=0.3,
        clip_dropout=0.3,
        offset_unit="window_lengths",
        consensus_iou=(0.5,),
        decay_sigma=None,
        **kwargs,
    ):
        # Seconds must not be rounded to half precision on the way in.
        super().__init__(autocast=False, **kwargs)
        self.window_lengths = tuple(window_lengths)
        self.window_overlap = window_overlap
        self.frame_rate = frame_rate
        self.clip_seconds = clip_seconds
        self.dilation = dilation
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
        self.grid = WindowGrid(
            self.window_lengths, window_overlap, frame_rate, dilation
        )
        self.normalization = layers.ClipNormalization(dtype=self.dtype_policy)
        self.drop_features = keras.layers.SpatialDropout1D(
            clip_dropout, dtype=self.dtype_policy
        )

    def _add_query_layers(self):
        """Makes the layers of the queries and of what both sides have.

        Keras draws a seed with each layer, so their order is part of what a
        seed repeats: a model makes those of its windows, these, its head.
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

    @classmethod
    def arguments(cls):
        """What the constructor takes, with the defaults: a dictionary.

        The model's own come first, then those of `WindowModel`.
        """
        return {
            name: parameter.default
            for owner in cls.__mro__[: cls.__mro__.index(MomentModel)]
            if "__init__" in vars(owner)
            for name, parameter in inspect.signature(owner).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }

    @property
    def clip_dim(self):
        """D, the width of the clip features; `None` before it is known."""
        known = self.normalization.built
        return self.normalization.mean.shape[0] if known else None

    def adapt(self, clips):
        """Sets the mean and scale that clip features are normalised by.

        Args:
            clips: As for `ClipNormalization.adapt`: `features.values()`, say.
        """
        self.normalization.adapt(clips)

    def set_word_vectors(self, words, vectors):
        """Starts words of the vocabulary at given vectors.

        Words of the vocabulary that are not among `words` keep the random
        vectors that they have.

        Args:
            words: List of N words of the vocabulary, such as
                `acnn_tf.data.sentences.read_glove` returns.
            vectors: float `[N, word_dim]`.
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

    def encode_windows(self, inputs, training=None):
        """Windows of videos to vectors.

        Args:
            inputs: Dictionary with `"segment"`, `[B, W, C, 2]`: the context
                windows of each window in seconds (`WindowGrid.contexts`), zero
                length where there is none; `"duration"`, `[B]`, seconds of the
                videos; and either `"clip"`, `[B, T, D]`, with `"clip_mask"`,
                bool `[B, T]`, or `"window"`, `[B, W, C, D]`: the context
                windows, pooled by `acnn_tf.data.windows.pool_clips`. Clips
                from the middle of a video come with `"first_clip"`, `[B]`:
                how many there are before them.
            training: bool.

        Returns:
            `[B, W, N]`, N = t where the model does not say otherwise.
        """
        raise NotImplementedError

    def attention_weights(self, inputs):
        """Weights of the widths of the context; `None` where there are none."""
        return None

    def _features(self, inputs, training):
        """Normalised features, and which of them each window has.

        Returns:
            `(features, mask, share)`: clips `[B, T, D]`, `None` and the
            `[B, W, C, T]` of `clip_share`; or pooled windows `[B, W, C, D]`,
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
        # Windows past the last clip pool to zeros, and count as missing: once
        # normalised they would be the negative mean.
        mask = ops.any(ops.not_equal(window, 0), axis=-1)
        window = self.normalization(window)
        shape = ops.shape(window)
        window = self.drop_features(
            ops.reshape(window, (-1, shape[1] * shape[2], shape[3])),
            training=training,
        )
        return ops.reshape(window, shape), mask, None

    def _placed(self, window, segment, duration):
        """Windows `[B, W, t]`, told where in their videos they lie."""
        if self.position_projection is None:
            return window
        segment = ops.cast(segment, self.variable_dtype)
        duration = ops.cast(duration, self.variable_dtype)
        place = segment / ops.reshape(duration, (-1, 1, 1))
        length = place[..., 1:] - place[..., :1]
        return window + self.position_projection(
            ops.concatenate([place, length], -1)
        )

    def encode_queries(self, query, training=None):
        """Queries to vectors.

        Args:
            query: int `[Q, L]`, word ids, 0 = padding, where the model has a
                vocabulary; else float `[Q, E]`, sentence vectors.
            training: bool.

        Returns:
            `[Q, t]`.
        """
        mask = None
        if self.words is not None:
            mask = ops.not_equal(query, 0)
            query = self.words(query)
        query = self.sentence(query, mask=mask, training=training)
        return self.query_projection(query)

    def match(self, query, window, training=None):
        """Score and offsets (`offset_unit`) of every query with every window.

        Args:
            query: `[..., Q, t]` from `encode_queries`.
            window: `[..., W, N]` from `encode_windows`.
            training: bool.

        Returns:
            `{"score": [..., Q, W], "offset": [..., Q, W, 2]}`.
        """
        return self.head(query, window, training=training)

    def fold(self, query):
        """Queries `[Q, t]` made ready for `score` and `locate`."""
        return self.head.fold(query)

    def score(self, folded, window):
        """Scores `[W, Q]` of `match` alone, in the precision of `window`."""
        return self.head.score(folded, window)

    def locate(self, folded, row, window):
        """`match` of folded queries, each with windows of its own."""
        return self.head.locate(folded, row, window)

    def call(self, inputs, training=None):
        window = self.encode_windows(inputs, training=training)  # [B, W, N]
        query = self.encode_queries(inputs["query"], training=training)
        # One product meets each query with the windows of its own video and
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

    def _window_layers(self, clip_dim):
        """Pairs of a layer of the windows' side and the shape it takes."""
        raise NotImplementedError

    def build(self, input_shape):
        features = input_shape.get("clip") or input_shape["window"]
        query = tuple(input_shape["query"])
        if self.words is not None:
            query = (*query, self.word_dim)
        sentence = self.sentence.compute_output_shape(query)
        pair = (None, self.embedding_dim)
        shapes = [
            (self.normalization, features),
            *self._window_layers(features[-1]),
            (self.position_projection, (None, None, 3)),
            (self.words, query[:2]),
            (self.sentence, query),
            (self.query_projection, sentence),
        ]
        for layer, shape in shapes:
            if layer is not None and not layer.built:
                layer.build(shape)
        if not self.head.built:
            self.head.build(pair, pair)
        self.built = True

    def get_config(self):
        own = {name: getattr(self, name) for name in self.arguments()}
        return super().get_config() | own
