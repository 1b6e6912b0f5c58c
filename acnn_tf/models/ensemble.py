"""Several networks that are trained side by side and answer as one."""

import keras
from keras import ops

from acnn_tf.models.moment_model import MomentModel
from acnn_tf.models.window_model import WindowModel

# Settings that are the model's own and not its networks'.
_OF_KERAS = ("name", "dtype", "trainable")
# So many fit into one index and one process.
_MOST = 32


@keras.saving.register_keras_serializable(package="acnn_tf")
class Ensemble(MomentModel):
    """Networks of one kind, whose scores and offsets are averaged.

    Each has weights of its own and its own loss on the same batches, as if it
    were trained alone: they differ by where they start and by what dropout
    leaves out. On few videos the mean of some is more accurate than any of
    them, since they agree more where they are right.

    To evaluation, search and serving it is one model: the encodings of its
    networks stand side by side in one vector.

    Args:
        network: Class of the networks: `ACNN`, or a baseline.
        members: Int, how many there are.
        **settings: Those of `network`, and the arguments of `keras.Model`.

    Call arguments:
        inputs: As for `network`.

    Returns:
        What `network` returns, of each of them: `"score": [B, M, W]` and so
        on, M the members.

    Example:

    >>> from acnn_tf.models import ACNN
    >>> model = Ensemble(ACNN, members=3, window_lengths=(4.0, 8.0))
    >>> query = model.encode_queries(keras.ops.ones((5, 300)))
    >>> tuple(query.shape) == (5, 3 * model.networks[0].embedding_dim)
    True

    Reference: Lakshminarayanan et al., "Simple and Scalable Predictive
    Uncertainty Estimation using Deep Ensembles", NeurIPS 2017.
    """

    def __init__(self, network, members=3, **settings):
        own = {k: settings.pop(k) for k in _OF_KERAS if k in settings}
        super().__init__(autocast=False, **own)
        if not (isinstance(network, type) and issubclass(network, WindowModel)):
            raise ValueError(
                "`network` must be a class of models such as ACNN. "
                f"Received: {network}"
            )
        if not 1 <= members <= _MOST:
            raise ValueError(
                f"`members` must be from 1 to {_MOST}. Received: {members}"
            )
        self.members = members
        self.networks = [
            network(dtype=self.dtype_policy, **settings) for _ in range(members)
        ]

    def __getattr__(self, name):
        # What the networks have in common, such as `grid` or `vocabulary`.
        networks = vars(self).get("networks")
        if networks and (name in _COMMON or name in networks[0].arguments()):
            return getattr(networks[0], name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def adapt(self, clips):
        """As `WindowModel.adapt`; reads the clips once."""
        first, *others = (network.normalization for network in self.networks)
        first.adapt(clips)
        for other in others:
            other.build(first.mean.shape)
            other.built = True
            other.mean.assign(first.mean)
            other.scale.assign(first.scale)

    def set_word_vectors(self, words, vectors):
        """As `WindowModel.set_word_vectors`."""
        for network in self.networks:
            network.set_word_vectors(words, vectors)

    def encode_windows(self, inputs, training=None):
        """As `WindowModel.encode_windows`: `[B, W, M * N]`."""
        return ops.concatenate(
            [n.encode_windows(inputs, training) for n in self.networks], -1
        )

    def encode_queries(self, query, training=None):
        """As `WindowModel.encode_queries`: `[Q, M * t]`."""
        return ops.concatenate(
            [n.encode_queries(query, training) for n in self.networks], -1
        )

    def attention_weights(self, inputs):
        """As `WindowModel.attention_weights`: the mean of the networks'."""
        found = [n.attention_weights(inputs) for n in self.networks]
        return None if found[0] is None else sum(found) / self.members

    def match(self, query, window, training=None):
        """As `WindowModel.match`: the mean of the networks'."""
        return _mean(
            network.match(*own, training)
            for network, *own in self._parts(query, window)
        )

    def fold(self, query):
        """As `WindowModel.fold`: one network's after another's."""
        folded = [n.fold(own) for n, own in self._parts(query)]
        return tuple(part for one in folded for part in one)

    def score(self, folded, window):
        """As `WindowModel.score`: the mean of the networks'."""
        scores = [
            network.score(one, own)
            for one, (network, own) in self._folds(folded, window)
        ]
        return sum(scores) / self.members

    def locate(self, folded, row, window):
        """As `WindowModel.locate`: the mean of the networks'."""
        return _mean(
            network.locate(one, row, own)
            for one, (network, own) in self._folds(folded, window)
        )

    def _folds(self, folded, window):
        """What `fold` returned, by network, and its part of the windows."""
        each = len(folded) // self.members
        firsts = range(0, len(folded), each)
        own = [folded[first : first + each] for first in firsts]
        return zip(own, self._parts(window))

    def _parts(self, *encodings):
        """Each network, with its part of each of the encodings."""
        split = [ops.split(part, self.members, axis=-1) for part in encodings]
        return zip(self.networks, *split)

    def call(self, inputs, training=None):
        outputs = [n(inputs, training=training) for n in self.networks]
        return {
            name: ops.stack([output[name] for output in outputs], axis=1)
            for name in outputs[0]
        }

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The sum of the networks' losses: none sees another's."""
        one = super().compute_loss
        parts = [
            {name: value[:, i] for name, value in y_pred.items()}
            for i in range(self.members)
        ]
        return sum(one(x, y, own, sample_weight, training) for own in parts)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        mean = {name: ops.mean(v, axis=1) for name, v in y_pred.items()}
        return super().compute_metrics(x, y, mean, sample_weight)

    def build(self, input_shape):
        for network in self.networks:
            if not network.built:
                network.build(input_shape)
        self.built = True

    def get_config(self):
        network = self.networks[0]
        return {
            **super().get_config(),
            "network": keras.saving.get_registered_name(type(network)),
            "members": self.members,
            "settings": {n: getattr(network, n) for n in network.arguments()},
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        network = keras.saving.get_registered_object(config.pop("network"))
        return cls(network, **config.pop("settings"), **config)


# Besides the settings.
_COMMON = frozenset(
    ("grid", "context_size", "clip_dim", "normalization", "query_projection")
)


def _mean(outputs):
    outputs = list(outputs)
    return {
        name: sum(output[name] for output in outputs) / len(outputs)
        for name in outputs[0]
    }
