"""An optimizer that reads and writes the weights once a step."""

import keras


@keras.saving.register_keras_serializable(package="acnn_tf")
class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam`, with one pass over the weights a step.

        m += (1 - b1) (g - m);  v += (1 - b2) (g^2 - v)
        w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)

    Keras computes this by a dozen operations, each of which reads and writes
    all weights; with 11 million weights that takes longer than the forward
    pass. This class calls TensorFlow's one operation for all of it. Arguments,
    state and results are those of Keras. Other backends, sparse gradients
    (those of word vectors) and `amsgrad` take Keras's own update. With
    `weight_decay` this is AdamW.

    Example:

    >>> import acnn_tf, keras
    >>> weight = keras.Variable([1.0, 2.0])
    >>> optimizer = acnn_tf.optimizers.FusedAdam(learning_rate=0.5)
    >>> optimizer.apply([keras.ops.array([3.0, -4.0])], [weight])
    >>> keras.ops.convert_to_numpy(weight).round(4).tolist()
    [0.5, 2.5]

    Reference: Kingma and Ba, "Adam", ICLR 2015, algorithm 1 in the form at
    the end of its section 2; Loshchilov and Hutter, ICLR 2019, for the decay.
    """

    def update_step(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        learning_rate: keras.KerasTensor,
    ) -> None:
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        if isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        if isinstance(variable, keras.Variable):
            variable = variable.value
        step = tf.cast(self.iterations + 1, variable.dtype)
        beta_1 = tf.cast(self.beta_1, variable.dtype)
        beta_2 = tf.cast(self.beta_2, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )
