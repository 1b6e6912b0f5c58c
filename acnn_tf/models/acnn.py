"""The attentive n-gram convolutional network."""

import inspect

import keras
from keras import ops

from acnn_tf import layers, replicas
from acnn_tf.data.windows import WindowGrid
from acnn_tf.models.moment_model import MomentModel
from acnn_tf.segments import OFFSET_UNITS


@keras.saving.register_keras_serializable(package="acnn_tf")
class ACNN(MomentModel):
    """Scores the windows of videos for queries, with boundary offsets.

    Windows: clips -> pooled into windows -> `TemporalContext` at several
    widths -> `AttentionPooling` -> `m_c`. Queries: words -> `QueryEncoder` ->
    `m_q`. Pairs: `LocalizationHead` on `[m_c, m_q, m_c (x) m_q, 1]`.

    `encode_windows`, `encode_queries` and `match` are the only way through for
    evaluation, search and serving; training calls the same layers.

    Args:
        window_lengths: Lengths of the windows, in seconds, or in frames if
            `frame_rate` is given.
        window_overlap: Share that neighbouring windows have in common.
        frame_rate: Frames per second, where windows are in frames.
        clip_seconds: Seconds that one clip (one feature vector) stands for.
        kernel_sizes: Odd widths of the context, in windows.
        filters: Width of the context vectors.
        dilation: Steps between the windows of a context. Default:
            `1 / (1 - window_overlap)`, which makes them adjacent.
        context_activation: Activation of the context vectors; default none,
            as in the paper.
        scorer_activation: Activation of the attention's scorer; the paper's is
            `"relu"`.
        embedding_dim: t, the common width of windows and queries.
        hidden_dim: Hidden layer of the head; `None` is the paper's form.
        first_order_query: Keep `m_q` in the cross feature; `False` is the
            paper's printed form.
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
            segments overlap by more than this IoU, see
            `acnn_tf.search.consensus`; `None` ranks by the scores alone, as
            in the paper.

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

    >>> model = ACNN(window_lengths=(4.0, 8.0), kernel_sizes=(1, 3), filters=8)
    >>> windows = model.grid.windows(duration=16.0)
    >>> window = model.encode_windows({
    ...     "clip": keras.ops.ones((1, 16, 32)),
    ...     "clip_mask": keras.ops.ones((1, 16), "bool"),
    ...     "segment": model.grid.contexts(windows, model.context_size)[None],
    ...     "duration": keras.ops.array([16.0]),
    ... })
    >>> query = model.encode_queries(keras.ops.ones((5, 300)))
    >>> tuple(model.match(query, window[0])["score"].shape) == (5, len(windows))
    True

    Reference: paper, section 3.
    """

    def __init__(
        self,
        window_lengths=(3.0, 4.5, 6.0, 8.0, 10.5, 14.0, 19.0),
        window_overlap=0.8,
        frame_rate=None,
        clip_seconds=1.0,
        kernel_sizes=(1, 3, 5),
        filters=256,
        dilation=None,
        context_activation=None,
        scorer_activation="tanh",
        embedding_dim=128,
        hidden_dim=256,
        first_order_query=True,
        position_features=True,
        query_encoder="gru",
        query_units=128,
        vocabulary=None,
        word_dim=300,
        train_words=True,
        dropout=0.3,
        clip_dropout=0.3,
        offset_unit="window_lengths",
        consensus_iou=0.5,
        **kwargs,
    ):
        # Seconds must not be rounded to half precision on the way in.
        super().__init__(autocast=False, **kwargs)
        self.window_lengths = tuple(window_lengths)
        self.window_overlap = window_overlap
        self.frame_rate = frame_rate
        self.clip_seconds = clip_seconds
        self.kernel_sizes = tuple(kernel_sizes)
        self.filters = filters
        self.dilation = dilation
        self.context_activation = context_activation
        self.scorer_activation = scorer_activation
        self.embedding_dim = embedding_dim
        self.hidden_dim = hidden_dim
        self.first_order_query = first_order_query
        self.position_features = position_features
        self.query_encoder = query_encoder
        self.query_units = query_units
        self.vocabulary = None if vocabulary is None else list(vocabulary)
        self.word_dim = word_dim
        self.train_words = train_words
        self.dropout = dropout
        self.clip_dropout = clip_dropout
        self.consensus_iou = consensus_iou
        self.offset_unit = offset_unit

        if offset_unit not in OFFSET_UNITS:
            raise ValueError(
                f"`offset_unit` not in {OFFSET_UNITS}. Received: {offset_unit}"
            )
        if offset_unit == "frames" and not frame_rate:
            raise ValueError("`offset_unit='frames'` needs a `frame_rate`.")
        if not (consensus_iou is None or 0 <= consensus_iou < 1):
            raise ValueError(
                f"`consensus_iou` must be in [0, 1). Received: {consensus_iou}"
            )
        self.grid = WindowGrid(
            self.window_lengths, window_overlap, frame_rate, dilation
        )
        common = {"dtype": self.dtype_policy}
        self.normalization = layers.ClipNormalization(**common)
        self.context = layers.TemporalContext(
            self.kernel_sizes,
            filters,
            activation=context_activation,
            name="context",
            **common,
        )
        self.drop_features = keras.layers.SpatialDropout1D(
            clip_dropout, **common
        )
        self.pooling = layers.AttentionPooling(
            scorer_activation, name="pooling", **common
        )
        self.window_projection = keras.layers.Dense(
            embedding_dim, name="window_projection", **common
        )
        self.position_projection = None
        if position_features:
            hidden = keras.layers.Dense(embedding_dim, "relu", **common)
            output = keras.layers.Dense(embedding_dim, **common)
            self.position_projection = keras.Sequential(
                [hidden, output], name="position_projection"
            )
        self.words = None
        if self.vocabulary is not None:
            self.words = keras.layers.Embedding(
                len(self.vocabulary) + 2,
                word_dim,
                trainable=train_words,
                name="words",
                **common,
            )
        self.sentence = layers.QueryEncoder(
            query_encoder, query_units, dropout, name="sentence", **common
        )
        self.query_projection = keras.layers.Dense(
            embedding_dim, name="query_projection", **common
        )
        self.drop = keras.layers.Dropout(dropout, **common)
        self.head = layers.LocalizationHead(
            hidden_dim, first_order_query, dropout, name="head", **common
        )

    @property
    def context_size(self):
        """C: windows that the largest kernel sees."""
        return max(self.kernel_sizes)

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
            `[B, W, t]`.
        """
        return self._embed_windows(
            self.pooling(self._context(inputs, training)), inputs, training
        )

    def attention_weights(self, inputs):
        """Attention over kernel sizes, `[B, W, K]`, softmaxed.

        Args:
            inputs: As for `encode_windows`.
        """
        return self.pooling(self._context(inputs), return_weights=True)[1]

    def _context(self, inputs, training=None):
        if "clip" in inputs:
            segment = ops.cast(inputs["segment"], self.variable_dtype)
            clip = self.normalization(inputs["clip"])
            clip = self.drop_features(clip, training=training)
            share = layers.clip_share(
                segment / self.clip_seconds,
                inputs["clip_mask"],
                inputs.get("first_clip"),
            )
            return self.context(clip, pooling=share)
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
        window = ops.reshape(window, shape)
        return self.context(window, mask=mask)

    def _embed_windows(self, context, inputs, training):
        window = self.window_projection(self.drop(context, training=training))
        if self.position_projection is not None:
            own = inputs["segment"][:, :, self.context_size // 2]
            duration = ops.reshape(inputs["duration"], (-1, 1, 1))
            own = ops.cast(own / duration, self.variable_dtype)
            position = ops.concatenate([own, own[..., 1:] - own[..., :1]], -1)
            window = window + self.position_projection(position)
        return window

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

    def match(self, query, window):
        """Score and offsets (`offset_unit`) of every query with every window.

        Args:
            query: `[..., Q, t]` from `encode_queries`.
            window: `[..., W, t]` from `encode_windows`.

        Returns:
            `{"score": [..., Q, W], "offset": [..., Q, W, 2]}`.
        """
        return self.head(query, window)

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
        window = self.encode_windows(inputs, training=training)  # [B, W, t]
        query = self.encode_queries(inputs["query"], training=training)
        # One product meets each query with the windows of its own video and
        # with the positive windows of the whole batch, of all replicas.
        index = inputs["positive"][:, None, None]
        positive = ops.take_along_axis(window, index, axis=1)[:, 0]
        rows, num_windows = ops.shape(window)[:2]
        positive = ops.repeat(replicas.gather(positive)[None], rows, axis=0)
        output = self.head(
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

    def build(self, input_shape):
        features = input_shape.get("clip") or input_shape["window"]
        query = tuple(input_shape["query"])
        if self.words is not None:
            query = (*query, self.word_dim)
        sentence = self.sentence.compute_output_shape(query)
        pair = (None, self.embedding_dim)
        shapes = [
            (self.normalization, features),
            (self.context, features),
            (self.pooling, (None, len(self.kernel_sizes), self.filters)),
            (self.window_projection, (None, None, self.filters)),
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
        names = inspect.signature(ACNN).parameters
        own = {n: getattr(self, n) for n in names if n != "kwargs"}
        return super().get_config() | own
