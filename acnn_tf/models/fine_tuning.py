"""A model that starts from a trained one, on other data."""

from collections.abc import Iterable

import keras
from keras import ops

from acnn_tf.models.ensemble import Ensemble
from acnn_tf.models.window_model import OF_KERAS, WindowModel, deserialize

# Settings of a model that no weight depends on.
FREE = (
    *("window_lengths", "window_overlap", "frame_rate", "clip_seconds"),
    *("dilation", "context_length", "train_words", "dropout", "clip_dropout"),
    *("consensus_iou", "decay_sigma", "encoder", "query_description"),
)


def start_from(
    trained: keras.Model, words: Iterable[str] = (), **changes
) -> keras.Model:
    """Makes a model that starts where a trained one ended, with more words.

    The new model has the settings, the weights and the scale of the clip
    features of `trained`, which stays as it is. So it gives the same answers,
    until it is trained itself. Words that `trained` does not know come after
    those that it knows. They start at random, as all words do; where there are
    word vectors for them, `set_word_vectors` of the new model sets them.

    Args:
        trained: `ACNN`, `ACRN`, `CTRL` or `Ensemble`, built.
        words: Words of the new sentences, such as
            `Vocabulary.from_sentences(sentences).words`. Those that `trained`
            knows already change nothing.
        **changes: Settings that the new model has of its own, for instance
            `window_lengths` and `dropout`. Settings that decide on the shape
            or the meaning of weights must be those of `trained`.

    Returns:
        A model of the same class: built, and not compiled.

    Raises:
        ValueError: If `trained` is no such model or not built; if there are
            words, but it takes vectors of sentences; or if weights depend on
            one of the `changes`: lists what `trained` has, and what was given.

    Example:

    >>> import acnn_tf
    >>> trained = acnn_tf.models.CTRL(vocabulary=["a", "dog"])
    >>> trained.build({"clip": (None, None, 6), "query": (None, None)})
    >>> model = acnn_tf.models.start_from(trained, ["a", "cat"], dropout=0.1)
    >>> model.vocabulary, model.dropout
    (['a', 'dog', 'cat'], 0.1)
    """
    network = trained.networks[0] if isinstance(trained, Ensemble) else trained
    if not isinstance(network, WindowModel) or not trained.built:
        raise ValueError(
            "`trained` must be ACNN, ACRN, CTRL or an Ensemble of them, with "
            f"weights. Received: {type(trained).__name__}"
            f"{'' if trained.built else ', which is not built'}"
        )
    settings = network.settings()
    words = list(dict.fromkeys(words))
    if settings["vocabulary"] is not None:
        known = set(settings["vocabulary"])
        new = [word for word in words if word not in known]
        settings["vocabulary"] = settings["vocabulary"] + new
    elif words:
        raise ValueError(
            "`trained` takes vectors of sentences, and has no words to add to. "
            f"Received: {len(words):,} words, such as {words[0]!r}"
        )
    model = _make(trained, network, settings | changes)
    now = getattr(model, "networks", [model])[0].settings()
    if differing := [
        f"{name} is {settings[name]!s:.60} in the trained model and "
        f"{now[name]!s:.60} here"
        for name in changes
        if name not in (*FREE, *OF_KERAS) and now[name] != settings[name]
    ]:
        raise ValueError(
            f"{'; '.join(differing)}. The trained weights depend on it: leave "
            "it out, or train without them."
        )
    in_frames = [one.frame_rate is not None for one in (network, model)]
    if (
        in_frames[0] != in_frames[1]
        and network.context_length is not None
        and network.context_length == model.context_length
    ):
        units = ["frames" if own else "seconds" for own in in_frames]
        raise ValueError(
            f"`context_length` is {network.context_length:g} {units[0]} in the "
            f"trained model, and windows now count in {units[1]}: give it in "
            f"{units[1]}, too."
        )
    query = (None, network.query_dim if model.vocabulary is None else None)
    model.build({"clip": (None, None, network.clip_dim), "query": query})
    for variable, old in zip(model.weights, trained.weights, strict=True):
        # The rows of new words, at the end of their table, stay as they are.
        value = ops.convert_to_numpy(variable).copy()
        value[tuple(map(slice, old.shape))] = ops.convert_to_numpy(old)
        variable.assign(value)
    return model


def _make(trained, network, settings):
    """A model of the classes of another, with other settings."""
    settings = {"dtype": trained.dtype_policy, **deserialize(settings)}
    if isinstance(trained, Ensemble):
        return Ensemble(type(network), trained.members, **settings)
    return type(network)(**settings)
