"""The flags of a model, one for each argument of its constructor.

A flag that is not given leaves the constructor's default alone, and one that
the chosen model does not have is refused.
"""

import functools
import typing

import numpy as np
from absl import flags

import acnn_tf

# Value of --model -> class in `acnn_tf.models`, and what it settles.
MODELS = {
    "acnn": ("ACNN", {}),
    "acnn_mean": (
        "ACNN",
        {"context_pooling": "mean", "scorer_activation": None},
    ),
    "acnn_concat": (
        "ACNN",
        {"context_pooling": "concat", "scorer_activation": None},
    ),
    "acrn": ("ACRN", {}),
    "ctrl": ("CTRL", {}),
}


def several(kind):
    """A kind of values, as a list or as text with commas between them."""
    return lambda values: tuple(
        map(kind, values.split(",") if isinstance(values, str) else values)
    )


def or_none(kind):
    """A kind of value that may also be `None`, or `none` as text."""
    return lambda value: None if str(value).lower() == "none" else kind(value)


ints, floats = several(int), several(float)


class Argument(typing.NamedTuple):
    """An argument of constructors that has a flag of its own name.

    Attributes:
        kind: Function that makes its value of what a flag or a caller gives.
        default: The constructor's.
        models: Values of --model that have it.
        help: What it is, for `--help`.
    """

    kind: typing.Callable
    default: object
    models: tuple[str, ...]
    help: str


_ALL = tuple(MODELS)
_ACNN = ("acnn", "acnn_mean", "acnn_concat")
ARGUMENTS = {
    "kernel_sizes": Argument(
        ints, (1, 3, 5), _ACNN, "Odd widths of the context, in windows."
    ),
    "filters": Argument(
        int, 256, _ACNN, "Number of filters of each width of the context."
    ),
    "context_activation": Argument(
        or_none(str), None, _ACNN, "Activation of the context, or `none`."
    ),
    "scorer_activation": Argument(
        or_none(str),
        "tanh",
        ("acnn",),
        "Activation of the attention's scorer, or `none`; the paper's is relu.",
    ),
    "first_order_query": Argument(
        bool,
        True,
        _ACNN,
        "Keep the query's vector in the cross feature; the paper does not.",
    ),
    "context_size": Argument(
        int,
        3,
        ("acrn", "ctrl"),
        "Odd number of context windows, the window itself included.",
    ),
    "memory_activation": Argument(
        or_none(str),
        "tanh",
        ("acrn",),
        "Activation in the attention over context windows, or `none`.",
    ),
    "pool_size": Argument(
        int,
        2,
        ("acrn",),
        "Numbers of a vector that are averaged into one before the cross "
        "feature; divides --embedding_dim.",
    ),
    "dilation": Argument(
        int,
        None,
        _ALL,
        "Steps between the windows of a context; `none` is 1 / (1 - "
        "--overlap), which makes them adjacent.",
    ),
    "embedding_dim": Argument(
        int,
        128,
        _ALL,
        "Width of the vectors in which windows and queries meet.",
    ),
    "hidden_dim": Argument(
        or_none(int),
        256,
        _ALL,
        "Units of the head's hidden layer; the paper's is `none`.",
    ),
    "position_features": Argument(
        bool, True, _ALL, "Tell the model where in its video a window lies."
    ),
    "query_encoder": Argument(
        str, "gru", _ALL, "How words become one vector: `gru` or `mean`."
    ),
    "query_units": Argument(
        int, 128, _ALL, "Units of the GRU over words, in each direction."
    ),
    "word_dim": Argument(int, 300, _ALL, "Width of the word vectors."),
    "train_words": Argument(
        bool, True, _ALL, "Let training change the word vectors."
    ),
    "dropout": Argument(
        float,
        0.3,
        _ALL,
        "Dropout rate of query vectors, window vectors and the hidden layer.",
    ),
    "clip_dropout": Argument(
        float,
        0.3,
        _ALL,
        "Share of the clip features that training leaves out, the same ones in "
        "all clips of a video.",
    ),
    "offset_unit": Argument(
        str,
        "window_lengths",
        _ALL,
        "Unit of the offsets: `seconds`, `frames` or `window_lengths`.",
    ),
    "consensus_iou": Argument(
        or_none(floats),
        (0.5,),
        _ALL,
        "Search lets windows support each other whose shifted segments have "
        "more than this IoU, or the average over several such; `none` ranks by "
        "the scores alone, as the papers do.",
    ),
    "decay_sigma": Argument(
        or_none(float),
        None,
        _ALL,
        "Search lowers the scores of windows that overlap with better ones, "
        "the smaller this is the more; `none` leaves them.",
    ),
}

flags.DEFINE_enum(
    "model",
    None,
    list(MODELS),
    "Which model to train: ACNN; ACNN with the mean over its widths of "
    "context, or with all of them side by side, in place of attention; or one "
    "of the models that it is compared with, ACRN and CTRL. Default: acnn.",
)
flags.DEFINE_integer(
    "members",
    None,
    "Number of networks that are trained side by side and answer as one "
    "model. Default: 1.",
    lower_bound=1,
)
flags.DEFINE_string(
    "word_vectors",
    None,
    "Text file of GloVe vectors. Default: word vectors are learned.",
)
flags.DEFINE_list(
    "window_seconds",
    None,
    "Lengths of the windows in seconds, such as 3,6,12. Default: "
    "3,4.5,6,8,10.5,14,19.",
)
flags.DEFINE_list(
    "window_frames",
    None,
    "Lengths of the windows in frames, in place of --window_seconds.",
)
flags.DEFINE_float(
    "frame_rate",
    None,
    "Frames per second, for --window_frames. Default: 29.4, that of TACoS.",
)
flags.DEFINE_float(
    "overlap",
    None,
    "Share that a window has in common with the next one. Default: 0.8.",
)


def _help(argument):
    default = argument.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    text = f"{argument.help} Default: {str(default).lower()}."
    if argument.models != _ALL:
        text += f" For --model={' or '.join(argument.models)}."
    return text


_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    ints: flags.DEFINE_list,
}
for _name, _argument in ARGUMENTS.items():
    _define = _DEFINE.get(_argument.kind, flags.DEFINE_string)
    _define(_name, None, _help(_argument))


def make_model(split, model="acnn", members=1, word_vectors=None, **settings):
    """Makes the model for a training split.

    Args:
        split: `experiments.splits.Split`: its clips and words, or sentence
            vectors, are what the model takes.
        model: One of `MODELS`.
        members: Int, networks that answer as one.
        word_vectors: Path of a text file of GloVe vectors, or `None`.
        **settings: See `constructor_arguments`.

    Returns:
        A model of `acnn_tf.models`.

    Raises:
        ValueError: If settings are not those of the model, or do not fit each
            other.
    """
    arguments = constructor_arguments(model, **settings)
    make = getattr(acnn_tf.models, MODELS[model][0])
    if members > 1:
        make = functools.partial(acnn_tf.models.Ensemble, make, members)
    arguments["clip_seconds"] = split.features.clip_seconds
    if split.sentence_vectors is not None:
        if word_vectors:
            raise ValueError(
                "Give --word_vectors or --sentence_vectors, not both."
            )
        return make(**arguments)
    words = acnn_tf.data.Vocabulary.from_sentences(
        [moment.query for moment in split.moments]
    ).words
    if not word_vectors:
        return make(vocabulary=words, **arguments)
    # Common words besides: others will ask with words that these do not.
    known, vectors = acnn_tf.data.read_glove(word_vectors, words)
    common = acnn_tf.data.read_glove(word_vectors, max_words=20_000)
    there = set(words)
    new = [i for i, word in enumerate(common[0]) if word not in there]
    new_words = [common[0][i] for i in new]
    vectors = np.concatenate([vectors, common[1][new]])
    arguments["word_dim"] = vectors.shape[1]
    network = make(vocabulary=words + new_words, **arguments)
    network.set_word_vectors(known + new_words, vectors)
    return network


def constructor_arguments(
    model="acnn",
    *,
    members=1,
    word_vectors=None,
    window_seconds=None,
    window_frames=None,
    frame_rate=29.4,
    overlap=None,
    **settings,
):
    """The arguments of the constructor of a model, from the values of flags.

    Args:
        model: One of `MODELS`.
        members: For `make_model`, as these are no arguments of a network.
        word_vectors: For `make_model`.
        window_seconds: Lengths of the windows in seconds, or `None`.
        window_frames: Lengths of the windows in frames, or `None`.
        frame_rate: Frames per second, for `window_frames`.
        overlap: Share that neighbouring windows have in common.
        **settings: Some of `ARGUMENTS`, as values or as flags have them, such
            as `"none"` for `None`.

    Returns:
        Dictionary.

    Raises:
        ValueError: If the model does not have a setting, or a value is none
            that it may have.

    Example:

    >>> constructor_arguments("ctrl", overlap=0.5, hidden_dim="none")
    {'hidden_dim': None, 'window_overlap': 0.5}
    """
    if window_seconds and window_frames:
        raise ValueError("Give --window_seconds or --window_frames, not both.")
    arguments = dict(MODELS[model][1])
    known = [n for n, argument in ARGUMENTS.items() if model in argument.models]
    for name, value in settings.items():
        if name not in known:
            raise ValueError(
                f"--{name} is no setting of --model={model}. Leave it "
                f"out: that model has --{', --'.join(known)}."
            )
        arguments[name] = _converted(name, ARGUMENTS[name].kind, value)
    if overlap is not None:
        arguments["window_overlap"] = overlap
    if window_seconds:
        arguments["window_lengths"] = _converted(
            "window_seconds", floats, window_seconds
        )
    if window_frames:
        arguments["window_lengths"] = _converted(
            "window_frames", ints, window_frames
        )
        arguments["frame_rate"] = frame_rate
    return arguments


def _converted(name, kind, value):
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"--{name}: {error}") from None
