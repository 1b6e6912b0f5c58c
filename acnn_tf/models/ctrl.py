"""The cross-modal temporal regression localizer."""

from collections.abc import Mapping

import keras
from keras import ops

from acnn_tf import layers
from acnn_tf.data.windows import odd_size
from acnn_tf.models.window_model import WindowModel, build


@keras.saving.register_keras_serializable(package="acnn_tf")
class CTRL(WindowModel):
    """Compares a window and the means of its context to a query by entries.

    Windows: the mean of the context windows before, the window itself, and the
    mean of those after are projected, `v = W [before, own, after] + b`.
    Queries: words -> `QueryEncoder` -> `q`. Pairs: `ElementwiseHead` on
    `[v * q, v + q, v, q]`.

    The paper sends `[v, q]` through a fully connected layer before it joins
    product and sum. Here, as in the authors' code, it joins unchanged, since
    the perceptron begins with such a layer. Their code also scales `v` and `q`
    to unit length, which neither the paper says nor this model does. The paper
    counts clips of context; here it is windows as long as the window itself.
    The GRU and the places of windows are not the paper's.

    Args:
        context_size: Odd number C of context windows, the window itself
            included: `(C - 1) / 2` before and after it.
        **kwargs: Arguments of `WindowModel`, such as `window_lengths`.

    Example:

    >>> import acnn_tf, keras
    >>> model = acnn_tf.models.CTRL(window_lengths=(4.0, 8.0), embedding_dim=8)
    >>> query = model.encode_queries(keras.ops.ones((5, 300)))
    >>> tuple(model.match(query, keras.ops.ones((3, 8)))["score"].shape)
    (5, 3)

    Reference: Gao et al., "TALL: Temporal Activity Localization via Language
    Query", ICCV 2017, section 3.
    """

    def __init__(self, context_size: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.context_size = odd_size(context_size)
        # A convolution over the three of them is the projection of all three.
        self.context = layers.TemporalContext(
            (3,), self.embedding_dim, name="context", dtype=self.dtype_policy
        )
        self._add_query_layers()
        self.head = layers.ElementwiseHead(
            self.hidden_dim, self.dropout, name="head", dtype=self.dtype_policy
        )

    def encode_windows(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Encodes the windows of videos as vectors `[B, W, t]`."""
        features, mask, share = self._features(inputs, training)
        if share is None:
            window = self.context(_sides(features, mask))
        else:
            # Means of windows are means of clips: shares take the mean.
            mask = ops.any(share > 0, axis=-1)
            window = self.context(features, pooling=_sides(share, mask))
        window = self.drop(window[:, :, 0], training=training)  # one kernel
        own = inputs["segment"][:, :, self.context_size // 2]
        return self._placed(window, own, inputs["duration"])

    def _build_windows(self, clip_dim):
        build(self.context, (None, None, clip_dim))


def _sides(context, mask):
    """The mean before each window, the window, and the mean after it.

    Of `[B, W, C, X]`, where bool `[B, W, C]` is true, `[B, W, 3, X]`: zeros
    where no context window is real.
    """
    mask = ops.cast(mask, context.dtype)[..., None]
    middle = context.shape[2] // 2

    def mean(part):
        total = ops.sum(context[:, :, part] * mask[:, :, part], axis=2)
        count = ops.sum(mask[:, :, part], axis=2)
        return total / ops.maximum(count, 1)

    parts = (slice(middle), slice(middle, middle + 1), slice(middle + 1, None))
    return ops.stack(list(map(mean, parts)), axis=2)
