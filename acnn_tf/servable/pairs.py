"""Joins neighbouring symbols again and again, in a graph."""

from collections.abc import Callable, Mapping

import tensorflow as tf

# Symbols are below it: code points, and ids of tokens.
_BASE = 2**21
# More than the number of pairs.
_NO_RANK = 2**30


def pair_table(
    pairs: Mapping[tuple[int, int], tuple[int, int]],
) -> tf.lookup.StaticHashTable:
    """Makes the table of pairs for `join`.

    Args:
        pairs: Dictionary from `(left, right)` to `(rank, joined)`, integers.
    """
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant([a * _BASE + b for a, b in pairs], tf.int64),
            tf.constant([a * _BASE + b for a, b in pairs.values()], tf.int64),
        ),
        _NO_RANK * _BASE,
    )


def join(
    symbols: tf.RaggedTensor,
    left_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    table: tf.lookup.StaticHashTable,
) -> tf.RaggedTensor:
    """Joins pairs of symbols, in each row one at a time, until none is left.

    Of the pairs in a row that the table has, the one of the lowest rank comes
    first, and of several the leftmost.

    Args:
        symbols: Ragged int64 `[R, (n)]`.
        left_of: Function that takes int64 `[N]`, the symbols of all rows, and
            the row of each, and returns for each the place of the symbol that
            it may be joined to, -1 where there is none.
        table: Of `pair_table`.

    Returns:
        Ragged int64 `[R, (m)]`.
    """
    num_rows = symbols.nrows()

    def step(symbols, row, _):
        count = tf.size(symbols, tf.int64)
        left = left_of(symbols, row)
        before = tf.gather(symbols, tf.maximum(left, 0))
        found = tf.where(
            left < 0, _NO_RANK * _BASE, table.lookup(before * _BASE + symbols)
        )
        order = found // _BASE * count + tf.range(count)
        first = tf.math.unsorted_segment_min(order, row, num_rows)
        first = tf.boolean_mask(first, first < _NO_RANK * count)
        right = (first % tf.maximum(count, 1))[:, None]
        symbols = tf.tensor_scatter_nd_update(
            symbols,
            tf.gather_nd(left, right)[:, None],
            tf.gather_nd(found, right) % _BASE,
        )
        stays = tf.tensor_scatter_nd_update(
            tf.ones_like(row, tf.bool), right, tf.zeros_like(first, tf.bool)
        )
        return (
            tf.boolean_mask(symbols, stays),
            tf.boolean_mask(row, stays),
            tf.size(first) > 0,
        )

    symbols, row, _ = tf.while_loop(
        lambda symbols, row, joined: joined,
        step,
        (symbols.flat_values, symbols.value_rowids(), True),
        (tf.TensorShape([None]), tf.TensorShape([None]), tf.TensorShape([])),
    )
    return tf.RaggedTensor.from_value_rowids(symbols, row, num_rows)


def just_before(symbols: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """Returns the symbol before each one in its row: `left_of` for `join`."""
    place = tf.range(tf.size(symbols, tf.int64))
    same_row = tf.roll(row, 1, 0) == row
    return tf.where(same_row & (place > 0), place - 1, -1)
