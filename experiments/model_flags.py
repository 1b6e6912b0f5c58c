"""The model, by flags: which, and one for each argument of its constructor.

Names, defaults and help are those of the constructors; a flag that is not
given leaves its default alone, and one that a model does not have is refused.
"""

import functools
import inspect
import re

import numpy as np
from absl import flags

from acnn_tf.data import sentences
from acnn_tf.models import ACNN, ACRN, CTRL, Ensemble
from acnn_tf.models.window_model import WindowModel

FLAGS = flags.FLAGS

# Names of models -> their class, and the arguments that make them.
_NO_ATTENTION = {"scorer_activation": None}
MODELS = {
    "acnn": (ACNN, {}),
    "acnn_mean": (ACNN, {"context_pooling": "mean", **_NO_ATTENTION}),
    "acnn_concat": (ACNN, {"context_pooling": "concat", **_NO_ATTENTION}),
    "acrn": (ACRN, {}),
    "ctrl": (CTRL, {}),
}
# What the data say, or what has a name of its own.
_OTHERWISE = (
    "window_lengths",
    "window_overlap",
    "frame_rate",
    "clip_seconds",
    "vocabulary",
    "context_pooling",
)
_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
}
# Arguments whose default does not tell their type.
_TYPES = {"dilation": int}
# What may also be `none`.
_OPTIONAL = {
    "hidden_dim": int,
    "scorer_activation": str,
    "context_activation": str,
    "memory_activation": str,
    "consensus_iou": lambda value: tuple(map(float, value.split(","))),
    "decay_sigma": float,
}

flags.DEFINE_list("window_seconds", None, "Lengths of the windows, in seconds.")
flags.DEFINE_list("window_frames", None, "Lengths of the windows, in frames.")
flags.DEFINE_float(
    "frame_rate", 29.4, "Frames per second, with --window_frames."
)
flags.DEFINE_float("overlap", None, "Share that neighbouring windows share.")

flags.DEFINE_string(
    "word_vectors", None, "GloVe text file; without it, words are learned."
)


flags.DEFINE_enum(
    "model",
    "acnn",
    list(MODELS),
    "Network to train: acnn, the same with the mean of its contexts, or all of "
    "them, in place of attention, or a baseline.",
)


flags.DEFINE_integer(
    "members",
    1,
    "Networks that are trained side by side and answer as one.",
    lower_bound=1,
)


def _descriptions():
    """Argument -> what the docstrings say of it."""
    found = {}
    for owner in (WindowModel, *(model for model, _ in MODELS.values())):
        text = inspect.getdoc(owner).split("Args:\n")[1].split("\n\n")[0]
        entries = re.findall(
            r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE
        )
        found |= {name: " ".join(words.split()) for name, words in entries}
    return found


def model_settings(name):
    """What flags can set of a model: dictionary from name to default.

    Args:
        name: One of `MODELS`.
    """
    model, fixed = MODELS[name]
    return {
        argument: default
        for argument, default in model.arguments().items()
        if argument not in fixed and argument not in _OTHERWISE
    }


def _define():
    about = _descriptions()
    owners = {}
    for model in MODELS:
        for name, default in model_settings(model).items():
            owners.setdefault(name, (default, []))[1].append(model)
    for name, (default, models) in owners.items():
        kind = str if name in _OPTIONAL else _TYPES.get(name, type(default))
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        text = f"{about[name]} Default: {default}."
        if len(models) < len(MODELS):
            text += f" Of {', '.join(models)}."
        _DEFINE[kind](name, None, text)


_define()


def _numbers(name, kind):
    try:
        return tuple(map(kind, FLAGS[name].value))
    except ValueError as error:
        raise ValueError(f"--{name}: {error}") from None


def _optional(name, value):
    if value.lower() == "none":
        return None
    try:
        return _OPTIONAL[name](value)
    except ValueError as error:
        raise ValueError(f"--{name}: {error}") from None


def model_arguments():
    """Constructor arguments that were given as flags."""
    _, arguments = MODELS[FLAGS.model]
    arguments = dict(arguments)
    known = model_settings(FLAGS.model)
    for name in dict.fromkeys(
        n for model in MODELS for n in model_settings(model)
    ):
        value = FLAGS[name].value
        if value is None:
            continue
        if name not in known:
            raise ValueError(
                f"--{name} is no setting of --model={FLAGS.model}. Leave it "
                f"out: that model has --{', --'.join(known)}."
            )
        if isinstance(value, list):
            value = _numbers(name, int)
        if name in _OPTIONAL:
            value = _optional(name, value)
        arguments[name] = value
    if FLAGS.overlap is not None:
        arguments["window_overlap"] = FLAGS.overlap
    if FLAGS.window_seconds and FLAGS.window_frames:
        raise ValueError("Give --window_seconds or --window_frames, not both.")
    if FLAGS.window_seconds:
        arguments["window_lengths"] = _numbers("window_seconds", float)
    if FLAGS.window_frames:
        arguments["window_lengths"] = _numbers("window_frames", int)
        arguments["frame_rate"] = FLAGS.frame_rate
    return arguments


def make_model(train):
    """The model that the flags and the training split call for."""
    arguments = model_arguments()
    make, _ = MODELS[FLAGS.model]
    if FLAGS.members > 1:
        make = functools.partial(Ensemble, make, FLAGS.members)
    if train.sentence_vectors is not None:
        if FLAGS.word_vectors:
            raise ValueError(
                "Give --word_vectors or --sentence_vectors, not both."
            )
        return make(clip_seconds=train.features.clip_seconds, **arguments)
    words = sentences.Vocabulary.from_sentences(
        [moment.query for moment in train.moments]
    ).words
    known = None
    if FLAGS.word_vectors:
        # Common words besides: others will ask with words that these do not.
        known, vectors = sentences.read_glove(FLAGS.word_vectors, words)
        common = sentences.read_glove(FLAGS.word_vectors, max_words=20_000)
        new = [i for i, w in enumerate(common[0]) if w not in set(words)]
        known = known + [common[0][i] for i in new]
        vectors = np.concatenate([vectors, common[1][new]])
        words = words + [common[0][i] for i in new]
        arguments["word_dim"] = vectors.shape[1]
    model = make(
        clip_seconds=train.features.clip_seconds,
        vocabulary=words,
        **arguments,
    )
    if known is not None:
        model.set_word_vectors(known, vectors)
    return model
