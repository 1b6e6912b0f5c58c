"""Several networks, trained side by side, as one model."""

from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from acnn_tf.models.moment_model import MomentModel
from acnn_tf.models.window_model import (
    OF_KERAS,
    WindowModel,
    build,
    deserialize,
)

# More would not fit into one index and one process.
_MOST = 32


@keras.saving.register_keras_serializable(package="acnn_tf")
class Ensemble(MomentModel):
    """The mean of the scores and offsets of several networks of one kind.

    Each network has its own weights and its own loss on the same batches, as
    if it were trained alone. They differ by their first weights and by what
    dropout leaves out. Trained on few videos, their mean is more accurate than
    any of them.

    Evaluation, search and serving see one model with the methods of
    `WindowModel`: the encodings of the networks are concatenated.

    Args:
        network: Class of the networks: `ACNN`, `ACRN` or `CTRL`.
        members: M, the number of networks, from 1 to 32.
        **settings: Arguments of `network` and of `keras.Model`. If a layer is
            among them, each network gets a copy of it.

    Call arguments:
        inputs: The batch that `network` takes.

    Returns:
        What each network returns: `"score": [B, M, W]`, `"offset": [B, M, W,
        2]` and `"batch_score": [B, M, B]`.

    Example:

    >>> import keras
    >>> from acnn_tf.models import ACNN, Ensemble
    >>> model = Ensemble(ACNN, members=3, embedding_dim=8)
    >>> query = model.encode_queries(keras.ops.ones((5, 300)))
    >>> tuple(query.shape)
    (5, 24)

    Reference: Lakshminarayanan et al., "Simple and Scalable Predictive
    Uncertainty Estimation using Deep Ensembles", NeurIPS 2017.
    """

    def __init__(
        self, network: type[WindowModel], members: int = 3, **settings
    ):
        own = {k: settings.pop(k) for k in OF_KERAS if k in settings}
        super().__init__(**own)
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
            network(dtype=self.dtype_policy, **_copies(settings))
            for _ in range(members)
        ]

    def __getattr__(self, name):
        # The networks have settings, `grid` and the like in common.
        networks = vars(self).get("networks")
        if networks and (name in _COMMON or name in networks[0].arguments()):
            return getattr(networks[0], name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def adapt(self, clips: np.ndarray | Iterable[np.ndarray]) -> None:
        """Sets the mean and scale of clip features; reads them once."""
        first, *others = (network.normalization for network in self.networks)
        first.adapt(clips)
        for other in others:
            build(other, first.mean.shape)
            other.mean.assign(first.mean)
            other.scale.assign(first.scale)

    def set_word_vectors(
        self, words: Sequence[str], vectors: np.ndarray
    ) -> None:
        """Starts words of the vocabulary at given vectors, in all networks."""
        for network in self.networks:
            network.set_word_vectors(words, vectors)

    def encode_windows(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Encodes windows as the vectors of all networks, `[B, W, M * N]`."""
        return ops.concatenate(
            [n.encode_windows(inputs, training) for n in self.networks], -1
        )

    def encode_queries(
        self,
        query: np.ndarray | keras.KerasTensor,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Encodes queries as the vectors of all networks, `[Q, M * t]`."""
        return ops.concatenate(
            [n.encode_queries(query, training) for n in self.networks], -1
        )

    def attention_weights(
        self, inputs: Mapping[str, keras.KerasTensor]
    ) -> keras.KerasTensor | None:
        """Mean weights of the widths of the context, `[B, W, K]`, or `None`."""
        weights = [n.attention_weights(inputs) for n in self.networks]
        return None if weights[0] is None else sum(weights) / self.members

    def match(
        self,
        query: keras.KerasTensor,
        window: keras.KerasTensor,
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """Mean score and offsets of every query with every window."""
        return _mean(
            network.match(*own, training)
            for network, *own in self._parts(query, window)
        )

    def fold(self, query: keras.KerasTensor) -> tuple[keras.KerasTensor, ...]:
        """Folds queries `[Q, M * t]` for `score` and `locate`."""
        folded = [n.fold(own) for n, own in self._parts(query)]
        return tuple(part for one in folded for part in one)

    def score(
        self, folded: tuple[keras.KerasTensor, ...], window: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Scores `[W, Q]` of `match` alone, in the precision of `window`."""
        scores = [
            network.score(one, own)
            for one, (network, own) in self._folds(folded, window)
        ]
        return sum(scores) / self.members

    def locate(
        self,
        folded: tuple[keras.KerasTensor, ...],
        row: keras.KerasTensor,
        window: keras.KerasTensor,
    ) -> dict[str, keras.KerasTensor]:
        """`match` of folded queries, each with windows of its own."""
        return _mean(
            network.locate(one, row, own)
            for one, (network, own) in self._folds(folded, window)
        )

    def _folds(self, folded, window):
        """Each network's part of what `fold` returned, and of the windows."""
        each = len(folded) // self.members
        firsts = range(0, len(folded), each)
        own = [folded[first : first + each] for first in firsts]
        return zip(own, self._parts(window))

    def _parts(self, *encodings):
        """Each network and its parts of the encodings."""
        split = [ops.split(part, self.members, axis=-1) for part in encodings]
        return zip(self.networks, *split)

    def call(
        self,
        inputs: Mapping[str, keras.KerasTensor],
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        outputs = [n(inputs, training=training) for n in self.networks]
        return {
            name: ops.stack([output[name] for output in outputs], axis=1)
            for name in outputs[0]
        }

    def compute_loss(
        self,
        x: Mapping | None = None,
        y: Mapping | None = None,
        y_pred: dict[str, keras.KerasTensor] | None = None,
        sample_weight: Mapping | None = None,
        training: bool = True,
    ) -> keras.KerasTensor:
        """The sum of the networks' losses, each of its own outputs."""
        one = super().compute_loss
        parts = [
            {name: value[:, i] for name, value in y_pred.items()}
            for i in range(self.members)
        ]
        return sum(one(x, y, own, sample_weight, training) for own in parts)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        mean = {name: ops.mean(v, axis=1) for name, v in y_pred.items()}
        return super().compute_metrics(x, y, mean, sample_weight)

    def build(self, input_shape: Mapping[str, tuple]) -> None:
        for network in self.networks:
            if not network.built:
                network.build(input_shape)
        self.built = True

    def get_config(self) -> dict:
        network = self.networks[0]
        return {
            **super().get_config(),
            "network": keras.saving.get_registered_name(type(network)),
            "members": self.members,
            "settings": network.settings(),
        }

    @classmethod
    def from_config(cls, config: dict) -> "Ensemble":
        config = dict(config)
        network = keras.saving.get_registered_object(config.pop("network"))
        settings = config.pop("settings") | config
        return cls(network, **deserialize(settings))


# What the networks have in common besides their settings.
_COMMON = frozenset(
    ("grid", "context_size", "clip_dim", "normalization", "query_dim")
)


def _copies(settings):
    """The settings, with a new layer in place of each layer."""
    return {
        name: value.from_config(value.get_config())
        if isinstance(value, keras.layers.Layer)
        else value
        for name, value in settings.items()
    }


def _mean(outputs):
    outputs = list(outputs)
    return {
        name: sum(output[name] for output in outputs) / len(outputs)
        for name in outputs[0]
    }
