"""The training step of all models, on one replica or several."""

import contextlib
import functools
import inspect
import json
import os
import typing
from collections.abc import Mapping, Sequence

import keras

from acnn_tf import replicas
from acnn_tf.encoders import descriptions

if typing.TYPE_CHECKING:  # it imports TensorFlow
    from acnn_tf.data.sentences import ReadSentences


class MomentModel(keras.Model):
    """A `keras.Model` whose `fit` does the same on one replica and on many.

    Under a `tf.distribute` strategy each replica takes some rows of a batch.
    The gradient of this class is that of the whole batch on one replica,
    whether or not the number of replicas divides it:

        gradient = sum_r d/dw sum_{i in r} L_i / B,    B = sum_r b_r

    It is clipped after the sum. Metrics are summed over the replicas at each
    step, so that every replica logs those of the whole batch.

    Keras 3.15 falls short of that in four places, for which there are
    workarounds here and nowhere else:

    - `_maybe_symbolic_build` hands the values of all replicas to a function
      that takes tensors;
    - `_make_function` reduces scalar logs over an axis, which
      `MultiWorkerMirroredStrategy` refuses;
    - a step gives each replica's mean the same weight, however many rows it
      has;
    - optimizers clip each replica's gradient before the sum.

    One replica takes Keras's own step. Keras makes the variables of losses and
    optimizer within the step, so that TensorFlow traces it twice; here they
    are made before it. `tests/test_distribution.py` fails when Keras has
    mended one of these.

    Example:

    >>> strategy = tf.distribute.MirroredStrategy()  # doctest: +SKIP
    >>> with strategy.scope():  # doctest: +SKIP
    ...     model = ACNN(...)
    ...     model.compile(...)
    >>> model.fit(batches.distribute(strategy).dataset, ...)  # doctest: +SKIP
    """

    # An encoder with `encode_sentences`, for models that take vectors of
    # sentences; set where it is at hand, never saved.
    sentence_encoder = None

    def __init__(self, **kwargs):
        # Autocast would round seconds to half precision.
        super().__init__(autocast=False, **kwargs)
        if self.variable_dtype in ("float16", "bfloat16"):
            raise ValueError(
                f"Seconds do not fit {self.variable_dtype}. For half precision "
                "leave `keras.config.floatx` at 'float32', and give "
                f"`dtype='mixed_{self.variable_dtype}'`. "
                f"Received: dtype={self.dtype_policy.name!r}"
            )

    @classmethod
    def arguments(cls) -> dict[str, object]:
        """Arguments of the constructor and their defaults, as a dictionary.

        The model's own arguments come first, then those of `WindowModel`, if
        it is one.
        """
        return {
            name: parameter.default
            for owner in cls.__mro__[: cls.__mro__.index(MomentModel)]
            if "__init__" in vars(owner)
            for name, parameter in inspect.signature(owner).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }

    def encode_sentences(self, sentences: Sequence[str]) -> keras.KerasTensor:
        """Encodes sentences: `encode_queries` of what `read_sentences` returns.

        Args:
            sentences: List of strings, `[Q]`.

        Returns:
            `[Q, t]`.
        """
        return self.encode_queries(self.read_sentences(sentences).queries)

    def read_sentences(self, sentences: Sequence[str]) -> "ReadSentences":
        """What `encode_queries` takes, from sentences.

        By the vocabulary; or by the `sentence_encoder`, where the model takes
        vectors of sentences and one was set.

        Args:
            sentences: List of strings, `[Q]`.

        Returns:
            `acnn_tf.data.sentences.ReadSentences`.

        Raises:
            ValueError: If the model takes vectors of sentences, and has no
                `sentence_encoder` to make them.
        """
        if self.vocabulary is not None:
            return self._words_by_id.read(sentences)
        if self.sentence_encoder is None:
            raise ValueError(
                "This model takes vectors of sentences, not words. Set its "
                "`sentence_encoder`, or encode them as those that it was "
                f"trained on, for `encode_queries`. Received: {sentences!r:.60}"
            )
        from acnn_tf.data.sentences import encode

        return encode(sentences, self.sentence_encoder)

    @functools.cached_property
    def _words_by_id(self):
        from acnn_tf.data.sentences import Vocabulary

        return Vocabulary(self.vocabulary)

    def save(
        self, filepath: str | os.PathLike, *args: object, **kwargs: object
    ) -> None:
        """`keras.Model.save`, to a `.keras` file."""
        if not os.fspath(filepath).endswith(".keras"):
            raise ValueError(
                "`filepath` must end in .keras; HDF5 could not be loaded again."
                f" Received: {os.fspath(filepath)}"
            )
        return super().save(filepath, *args, **kwargs)

    def export(
        self, filepath: str | os.PathLike, *args: object, **kwargs: object
    ) -> typing.NoReturn:
        """Refused: Keras's export has no sentences, nor videos of any length.

        Raises:
            ValueError: Always; says what exports this model.
        """
        raise ValueError(
            "Write `acnn_tf.servable.export(model, path)`, which serves "
            "sentences and videos of any length and is verified; Keras's own "
            f"export would not. Received: {filepath}"
        )

    def train_step(self, *args, **kwargs):
        context = replicas.replica_context()
        if context is None:
            return super().train_step(*args, **kwargs)
        return self._train_step_of_replica(context, *args)

    def _train_step_of_replica(self, context, data):
        import tensorflow as tf

        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        rows = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float32)
        share = rows / context.all_reduce("SUM", rows)
        with self._summed_metrics(context, share):
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                # Keras: the mean over these rows, divided by the replicas.
                loss = self._compute_loss(
                    x=x,
                    y=y,
                    y_pred=y_pred,
                    sample_weight=sample_weight,
                    training=True,
                )
                loss *= context.num_replicas_in_sync
                scaled = self.optimizer.scale_loss(loss * share)
            self._loss_tracker.update_state(loss, sample_weight=rows)
            gradients = tape.gradient(scaled, self.trainable_weights)
            gradients = context.all_reduce("SUM", gradients)
            with _summed_already(self.optimizer):
                self.optimizer.apply_gradients(
                    zip(gradients, self.trainable_weights)
                )
            self.compute_metrics(x, y, y_pred, sample_weight)
        return self.get_metrics_result()

    @contextlib.contextmanager
    def _summed_metrics(self, context, share):
        """Adds what each replica adds to the metrics in a step to all replicas.

        Keras keeps the metrics of replicas apart until they are read, which
        all of them must do at once. A checkpoint is written by one of them.
        """
        import tensorflow as tf

        # Each output's loss counts once a step, not once a row.
        once = [v for m in self._compile_loss.metrics for v in m.variables]
        once = {id(variable) for variable in once}
        variables = [variable.value for variable in self.metrics_variables]
        before = [tf.identity(variable) for variable in variables]
        for variable in variables:
            variable.assign(tf.zeros_like(variable))
        yield
        added = [
            tf.reshape(v, (-1,)) * (share if id(m) in once else 1.0)
            for v, m in zip(variables, self.metrics_variables)
        ]
        added = context.all_reduce("SUM", tf.concat(added, axis=0))
        added = tf.split(added, [v.shape.num_elements() for v in variables])
        for variable, old, new in zip(variables, before, added):
            variable.assign(old + tf.reshape(new, variable.shape))

    def _make_function(self, step_function, **kwargs):
        # Other backends of Keras have no strategy.
        strategy = getattr(self, "distribute_strategy", None)
        if strategy is None or strategy.num_replicas_in_sync == 1:
            return super()._make_function(step_function, **kwargs)
        import tensorflow as tf

        if self.steps_per_execution > 1 or self.run_eagerly:
            raise ValueError(
                "Several replicas need `steps_per_execution=1` and "
                "`run_eagerly=False`. Received: "
                f"{self.steps_per_execution}, {self.run_eagerly}"
            )

        @tf.function(reduce_retracing=True, jit_compile=self.jit_compile)
        def step(iterator):
            logs = strategy.run(step_function, args=(next(iterator),))
            # The same on all of them.
            return tf.nest.map_structure(
                lambda log: strategy.experimental_local_results(log)[0], logs
            )

        return step

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is not None and self._distribute_strategy is None:
            if self.built:
                spec = iterator._distributed_dataset.element_spec
                self._symbolic_build(data_batch=spec)
            return
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            import tensorflow as tf

            _, _, batches = next(iter(iterator))
            data_batch = tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0],
                next(batches),
            )
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)


def description_text(name: str, description: Mapping | None) -> str:
    """A description of an encoder, or `None`, as text.

    Keras would make a dictionary and lists of its own of it.
    """
    if description is not None:
        try:
            description = descriptions.checked(description)
        except ValueError as error:
            raise ValueError(f"`{name}`: {error}") from None
    return json.dumps(description)


@contextlib.contextmanager
def _summed_already(optimizer):
    """Keeps an optimizer from summing the gradients of replicas again."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    own = vars(optimizer)
    own["_all_reduce_sum_gradients"] = lambda pairs: pairs
    try:
        yield
    finally:
        # Replicas are threads that wait for each other within the update.
        own.pop("_all_reduce_sum_gradients", None)
