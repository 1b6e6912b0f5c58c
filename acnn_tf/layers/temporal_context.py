"""Multi-kernel temporal context of windows."""

from collections.abc import Callable, Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="acnn_tf")
class TemporalContext(keras.layers.Layer):
    """Describes a window together with its neighbours, at several widths.

    One 1D convolution per kernel size, centred on the window, runs over the
    windows of one length in one video:

        m_i = sum_j W_i[j] x[w + (j - (k_i - 1) / 2) * dilation] + b_i

    The windows may come in three ways, which give the same numbers:

    - a sequence of windows is convolved;
    - windows that bring their context along are multiplied tap by tap;
    - clips are projected tap by tap and then pooled into windows, since
      pooling is as linear as convolving. Windows that overlap then share the
      projection, which is the costly part.

    Models encode and train on whole videos by the third way, and train on
    pairs of a window and a query by the second. Neighbours that do not exist
    count as zeros.

    Args:
        kernel_sizes: How many windows each kernel sees, odd numbers.
        filters: Width of each kernel's output.
        dilation: Steps between the windows that a kernel sees in a
            sequence. Defaults to 1.
        activation: Activation of the outputs. Defaults to none.

    Call arguments:
        window: `[B, W, D]`, the windows of one length in order, or
            `[B, W, C, D]`, every window with its `C = max(kernel_sizes)`
            context windows, itself in the middle; or clips, see `pooling`.
        mask: bool, `window`'s shape without the last axis; `True` = real.
        pooling: `[B, W, C, T]`, the share of each clip in each context window
            (`acnn_tf.layers.clip_share`), zeros where there is no such window.
            With it, `window` is clips, `[B, T, D]`.

    Returns:
        `[B, W, K, filters]`, K in the order of `kernel_sizes`.

    Example:

    >>> import acnn_tf, keras
    >>> layer = acnn_tf.layers.TemporalContext(kernel_sizes=(1, 3), filters=8)
    >>> tuple(layer(keras.ops.ones((2, 5, 4))).shape)
    (2, 5, 2, 8)

    Reference: paper, section 3.2 and Figure 4.
    """

    def __init__(
        self,
        kernel_sizes: Sequence[int],
        filters: int,
        dilation: int = 1,
        activation: str | Callable | None = None,
        **kwargs,
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
    def context_size(self) -> int:
        """Windows that the largest kernel sees."""
        return max(self.kernel_sizes)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        width = input_shape[-1]
        if len(input_shape) == 4 and input_shape[-2] != self.context_size:
            raise ValueError(
                "The context axis of `window` must hold "
                f"max(kernel_sizes) = {self.context_size} windows. "
                f"Received shape: {tuple(input_shape)}"
            )
        # One variable for each tap: slices of one large variable would cost a
        # copy, and their gradients another.
        self.kernels = [
            [
                self.add_weight(
                    name=f"kernel_{size}_{tap}",
                    shape=(width, self.filters),
                    # Glorot's rule for the kernel as a whole.
                    initializer=keras.initializers.VarianceScaling(
                        1 / size, mode="fan_avg", distribution="uniform"
                    ),
                )
                for tap in range(size)
            ]
            for size in self.kernel_sizes
        ]
        self.biases = [
            self.add_weight(
                name=f"bias_{size}", shape=(self.filters,), initializer="zeros"
            )
            for size in self.kernel_sizes
        ]

    def call(
        self,
        window: keras.KerasTensor,
        mask: keras.KerasTensor | None = None,
        pooling: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        if len(window.shape) == 4:
            outputs = self._multiply(window, mask)
        else:
            if mask is not None:
                window = ops.where(
                    ops.expand_dims(mask, -1), window, ops.zeros_like(window)
                )
            if pooling is None:
                outputs = self._convolve(window)
            else:
                outputs = self._project_then_pool(window, pooling)
        outputs = [out + bias for out, bias in zip(outputs, self.biases)]
        return self.activation(ops.stack(outputs, axis=-2))

    def _first(self, size):
        """Index of the first of the `size` windows amid the context."""
        return (self.context_size - size) // 2

    def _multiply(self, window, mask):
        """`[B, W, C, D]` to a list of `[B, W, filters]`, tap by tap.

        The mask is applied to the products, which are smaller than the
        windows.
        """
        _, num_windows, _, width = ops.shape(window)

        def places(array, width):
            return [
                ops.reshape(array[:, :, place], (-1, width))
                for place in range(self.context_size)
            ]

        window = places(window, width)
        if mask is not None:
            mask = places(mask, 1)
        outputs = []
        for taps in self.kernels:
            out = 0.0
            for place, tap in enumerate(taps, self._first(len(taps))):
                product = ops.matmul(window[place], tap)
                if mask is not None:
                    product = ops.where(mask[place], product, 0.0)
                out += product
            outputs.append(ops.reshape(out, (-1, num_windows, self.filters)))
        return outputs

    def _project_then_pool(self, clip, pooling):
        """`[B, T, D]` to a list of `[B, W, filters]`.

        Pooling, shifting and adding up the taps is one product, of
        `[W, k_i * T]` and `[k_i * T, filters]`.
        """
        _, num_clips, width = ops.shape(clip)
        num_windows = ops.shape(pooling)[1]
        clip = ops.reshape(clip, (-1, width))
        shape = (-1, num_clips, self.filters)
        outputs = []
        for size, taps in zip(self.kernel_sizes, self.kernels):
            projected = ops.stack(
                [ops.reshape(ops.matmul(clip, tap), shape) for tap in taps],
                axis=1,
            )  # [B, k, T, F]
            rows = size * num_clips
            projected = ops.reshape(projected, (-1, rows, self.filters))
            first = self._first(size)
            share = pooling[:, :, first : first + size]
            share = ops.reshape(share, (-1, num_windows, rows))
            outputs.append(ops.matmul(share, projected))
        return outputs

    def _convolve(self, window):
        """`[B, W, D]` to a list of `[B, W, filters]`."""
        return [
            ops.conv(
                window,
                ops.stack([ops.cast(tap, window.dtype) for tap in taps]),
                padding="same",
                data_format="channels_last",
                dilation_rate=self.dilation,
            )
            for taps in self.kernels
        ]

    def compute_mask(
        self, window: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> None:
        return None

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:2], len(self.kernel_sizes), self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "kernel_sizes": self.kernel_sizes,
            "filters": self.filters,
            "dilation": self.dilation,
            "activation": keras.activations.serialize(self.activation),
        }
