"""Multi-kernel temporal context of windows."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="acnn_tf")
class TemporalContext(keras.layers.Layer):
    """Describes a window together with its neighbours, at several widths.

    One 1D convolution per kernel size, centred on the window, runs over the
    windows of one length in one video:

        m_i = sum_j W_i[j] x[w + (j - (k_i - 1) / 2) * dilation] + b_i

    Three ways in, with the same numbers. A sequence of windows is convolved as
    it is. Windows that bring their context along need no others. And since
    pooling clips into windows is as linear as convolving them, clips can be
    projected first, once per kernel tap, and pooled afterwards: windows that
    overlap then share the costly part. Neighbours that do not exist count as
    zeros.

    Args:
        kernel_sizes: Sequence of odd ints, windows that each kernel sees.
        filters: Int, width of each kernel's output.
        dilation: Int, steps between the windows that a kernel sees in a
            sequence. Defaults to 1.
        activation: Activation of the outputs. Defaults to none.

    Call arguments:
        window: `[B, W, D]`, the windows of one length in order, or
            `[B, W, C, D]`, every window with its `C = max(kernel_sizes)`
            context windows, itself in the middle; or clips, see `pooling`.
        mask: bool, `window`'s shape without the last axis; `True` = real.
        pooling: `[B, W, C, T]`: `window` is then clips, `[B, T, D]`, and this
            the share of each of them in each context window; a row of zeros
            where there is no such window.

    Returns:
        `[B, W, K, filters]`, K in the order of `kernel_sizes`.

    Example:

    >>> layer = TemporalContext(kernel_sizes=(1, 3), filters=8)
    >>> tuple(layer(keras.ops.ones((2, 5, 4))).shape)
    (2, 5, 2, 8)

    Reference: paper, section 3.2 and Figure 4.
    """

    def __init__(
        self, kernel_sizes, filters, dilation=1, activation=None, **kwargs
    ):
        super().__init__(**kwargs)
        kernel_sizes = tuple(int(size) for size in kernel_sizes)
        if not kernel_sizes or any(s < 1 or s % 2 == 0 for s in kernel_sizes):
            raise ValueError(
                "`kernel_sizes` must be odd and positive. "
                f"Received: {kernel_sizes}"
            )
        if len(set(kernel_sizes)) != len(kernel_sizes):
            raise ValueError(
                "`kernel_sizes` must differ from one another. "
                f"Received: {kernel_sizes}"
            )
        if filters < 1:
            raise ValueError(f"`filters` must be positive. Received: {filters}")
        if dilation < 1:
            raise ValueError(
                f"`dilation` must be at least 1. Received: {dilation}"
            )
        self.kernel_sizes = kernel_sizes
        self.filters = filters
        self.dilation = dilation
        self.activation = keras.activations.get(activation)
        self.supports_masking = True

    @property
    def context_size(self):
        """Windows that the largest kernel sees."""
        return max(self.kernel_sizes)

    def build(self, input_shape):
        width = input_shape[-1]
        if len(input_shape) == 4 and input_shape[-2] != self.context_size:
            raise ValueError(
                "The context axis of `window` must hold "
                f"max(kernel_sizes) = {self.context_size} windows. "
                f"Received shape: {tuple(input_shape)}"
            )
        self.kernels = [
            self.add_weight(
                name=f"kernel_{size}",
                shape=(size, width, self.filters),
                initializer="glorot_uniform",
            )
            for size in self.kernel_sizes
        ]
        self.biases = [
            self.add_weight(
                name=f"bias_{size}", shape=(self.filters,), initializer="zeros"
            )
            for size in self.kernel_sizes
        ]

    def call(self, window, mask=None, pooling=None):
        if mask is not None:
            window = ops.where(
                ops.expand_dims(mask, -1), window, ops.zeros_like(window)
            )
        if pooling is not None:
            outputs = self._project_then_pool(window, pooling)
        elif len(window.shape) == 3:
            outputs = self._convolve(self._gather_context(window))
        else:
            outputs = self._convolve(window)
        outputs = [out + bias for out, bias in zip(outputs, self.biases)]
        return self.activation(ops.stack(outputs, axis=-2))

    def _taps(self, context, size):
        """The `size` windows in the middle of the context axis, the third."""
        first = (self.context_size - size) // 2
        return context[:, :, first : first + size]

    def _convolve(self, window):
        """`[B, W, C, D]` to a list of `[B, W, filters]`."""
        _, num_windows, _, width = ops.shape(window)
        return [
            ops.matmul(
                ops.reshape(
                    self._taps(window, size), (-1, num_windows, size * width)
                ),
                ops.reshape(kernel, (size * width, self.filters)),
            )
            for size, kernel in zip(self.kernel_sizes, self.kernels)
        ]

    def _project_then_pool(self, clip, pooling):
        """The same from clips: pooling, shifting and adding in one product.

        That product is `[W, k_i * T]` times `[k_i * T, filters]`.
        """
        _, num_clips, width = ops.shape(clip)
        num_windows = ops.shape(pooling)[1]
        outputs = []
        for size, kernel in zip(self.kernel_sizes, self.kernels):
            taps = ops.transpose(kernel, (1, 0, 2))  # [D, k, F]
            projected = ops.matmul(
                clip, ops.reshape(taps, (width, size * self.filters))
            )
            projected = ops.reshape(
                projected, (-1, num_clips, size, self.filters)
            )
            projected = ops.reshape(
                ops.transpose(projected, (0, 2, 1, 3)),
                (-1, size * num_clips, self.filters),
            )
            share = ops.reshape(
                self._taps(pooling, size), (-1, num_windows, size * num_clips)
            )
            outputs.append(ops.matmul(share, projected))
        return outputs

    def _gather_context(self, window):
        """`[B, W, D]` -> `[B, W, C, D]`, zeros beyond the ends."""
        reach = self.context_size // 2 * self.dilation
        num_windows = ops.shape(window)[1]
        padded = ops.pad(window, ((0, 0), (reach, reach), (0, 0)))
        return ops.stack(
            [
                padded[:, first : first + num_windows]
                for first in range(0, 2 * reach + 1, self.dilation)
            ],
            axis=2,
        )

    def compute_mask(self, window, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], len(self.kernel_sizes), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_sizes": self.kernel_sizes,
            "filters": self.filters,
            "dilation": self.dilation,
            "activation": keras.activations.serialize(self.activation),
        }
