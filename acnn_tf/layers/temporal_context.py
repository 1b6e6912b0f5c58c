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
        # One variable a tap: slices of a larger one cost a copy, and their
        # gradients another.
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

    def call(self, window, mask=None, pooling=None):
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
        """Where the `size` windows in the middle of the context start."""
        return (self.context_size - size) // 2

    def _multiply(self, window, mask):
        """`[B, W, C, D]` to a list of `[B, W, filters]`: a product each tap.

        Products with windows that are not there are set to zero, which is
        less to write than the windows themselves.
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
        """The same from clips: pooling, shifting and adding in one product.

        That product is `[W, k_i * T]` times `[k_i * T, filters]`.
        """
        _, num_clips, width = ops.shape(clip)
        num_windows = ops.shape(pooling)[1]
        clip = ops.reshape(clip, (-1, width))
        outputs = []
        for size, taps in zip(self.kernel_sizes, self.kernels):
            projected = ops.stack(
                [
                    ops.reshape(
                        ops.matmul(clip, tap), (-1, num_clips, self.filters)
                    )
                    for tap in taps
                ],
                axis=1,
            )  # [B, k, T, F]
            projected = ops.reshape(
                projected, (-1, size * num_clips, self.filters)
            )
            first = self._first(size)
            share = ops.reshape(
                pooling[:, :, first : first + size],
                (-1, num_windows, size * num_clips),
            )
            outputs.append(ops.matmul(share, projected))
        return outputs

    def _convolve(self, window):
        """`[B, W, D]` to a list of `[B, W, filters]`, by minimal filtering.

        Windows `dilation` apart are neighbours, so they are laid out as rows
        of `dilation`, and two rows of outputs are made together: with their
        sums and differences, three taps take 4 products in place of 6, and
        two taps 3 in place of 4. For kernels of 1, 3, 5 and 7 that is 11.5
        products a window and not 16.

        Reference: Winograd, "Arithmetic Complexity of Computations", 1980,
        chapter IV; for networks, Lavin and Gray, CVPR 2016.
        """
        _, num_windows, width = ops.shape(window)
        reach = 2 * -(-(self.context_size // 2) // 2)  # rows, an even number
        num_pairs = -(-num_windows // (2 * self.dilation))
        end = (2 * num_pairs + reach) * self.dilation - num_windows
        padded = ops.pad(window, ((0, 0), (reach * self.dilation, end), (0, 0)))
        rows = ops.unstack(
            ops.reshape(
                padded, (-1, num_pairs + reach, 2, self.dilation, width)
            ),
            2,
            axis=2,
        )

        def row(hop):
            """Windows `hop` rows after the first output of each pair."""
            pair, which = divmod(hop + reach, 2)
            chosen = rows[which][:, pair : pair + num_pairs]
            return ops.reshape(chosen, (-1, width))

        outputs = []
        for size, taps in zip(self.kernel_sizes, self.kernels):
            if size == 1:
                out = ops.matmul(ops.reshape(window, (-1, width)), taps[0])
                shape = (-1, num_windows, self.filters)
                outputs.append(ops.reshape(out, shape))
                continue
            pairs, hop = [], -(size // 2)
            for count in _groups(size):
                filtered = _three_taps if count == 3 else _two_taps
                inputs = [row(hop + i) for i in range(count + 1)]
                pairs.append(filtered(inputs, taps[:count]))
                taps, hop = taps[count:], hop + count
            shape = (-1, num_pairs, self.dilation, self.filters)
            out = ops.stack(
                [ops.reshape(sum(parts), shape) for parts in zip(*pairs)],
                axis=2,
            )
            out = ops.reshape(
                out, (-1, 2 * num_pairs * self.dilation, self.filters)
            )
            outputs.append(out[:, :num_windows])
        return outputs

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


def _groups(size):
    """A kernel's taps in threes, with twos for what threes leave."""
    twos = -size % 3
    return [3] * ((size - 2 * twos) // 3) + [2] * twos


def _two_taps(x, g):
    """`x0 g0 + x1 g1` and `x1 g0 + x2 g1`."""
    middle = ops.matmul(x[1], g[0] + g[1])
    return (
        ops.matmul(x[0] - x[1], g[0]) + middle,
        ops.matmul(x[2] - x[1], g[1]) + middle,
    )


def _three_taps(x, g):
    """`x0 g0 + x1 g1 + x2 g2` and `x1 g0 + x2 g1 + x3 g2`."""
    ends = (g[0] + g[2]) / 2
    plus = ops.matmul(x[1] + x[2], ends + g[1] / 2)
    minus = ops.matmul(x[2] - x[1], ends - g[1] / 2)
    return (
        ops.matmul(x[0] - x[2], g[0]) + plus + minus,
        plus - minus - ops.matmul(x[1] - x[3], g[2]),
    )
