"""The flags of a model, one for each argument of its constructor.

A flag that is not given leaves the constructor's default alone, and one that
the chosen model does not have is refused.
"""

import functools
import sys
import typing

import numpy as np
from absl import flags

import acnn_tf
from acnn_tf.data.windows import check_clips
from experiments import argument_flags
from export import flag_help

# Value of --model -> class in `acnn_tf.models`, and what it settles.
MODELS = {
    "acnn": ("ACNN", {}),
    "acnn_mean": (
        "ACNN",
        {
            "context_pooling": "mean",
            "scorer_activation": None,
            "own_scorers": False,
        },
    ),
    "acnn_concat": (
        "ACNN",
        {
            "context_pooling": "concat",
            "scorer_activation": None,
            "own_scorers": False,
        },
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


def activations(names):
    """Names of activations: one, `None`, or several with commas between."""
    names = [names] if names is None else several(str)(names)
    names = tuple(map(or_none(str), names))
    return names[0] if len(names) == 1 else names


ints, floats = several(int), several(float)


class Argument(typing.NamedTuple):
    """An argument of constructors that has a flag of its own name."""

    kind: typing.Callable  # of what a flag or a caller gives
    default: object  # the constructor's
    help: str
    models: tuple[str, ...]  # values of --model that have it


_ALL = tuple(MODELS)
_TABLE = {
    ("acnn", "acnn_mean", "acnn_concat"): {
        "kernel_sizes": (ints, (1, 3, 5), "Odd widths of context, in windows."),
        "filters": (int, 256, "Number of filters of each width of context."),
        "context_activation": (
            or_none(str),
            None,
            "Activation of the context, such as relu, or none.",
        ),
        "first_order_query": (
            bool,
            True,
            "Keep the query's vector in the cross feature; the paper does not.",
        ),
        "project_first": (
            bool,
            False,
            "Project windows before the convolutions, as in the authors' code, "
            "rather than after the pooling; --filters is then --embedding_dim.",
        ),
        "unit_length": (
            bool,
            False,
            "Scale window and query vectors to unit length, as in the authors' "
            "code.",
        ),
        "cross_pool_size": (
            int,
            1,
            "Numbers of a vector that are averaged into one in the outer "
            "product; 16 in the authors' code.",
        ),
    },
    ("acnn",): {
        "scorer_activation": (
            activations,
            "tanh",
            "Activation of the attention, several with commas, or none; the "
            "paper's is relu, that of the authors' code relu,tanh.",
        ),
        "own_scorers": (
            bool,
            False,
            "Give each width of context a scorer of its own, as in the "
            "authors' code.",
        ),
    },
    ("acrn", "ctrl"): {
        "context_size": (int, 3, "Odd number of windows of a context."),
    },
    ("acrn",): {
        "memory_activation": (
            or_none(str),
            "tanh",
            "Activation in the attention over context windows, or none.",
        ),
        "pool_size": (
            int,
            2,
            "Numbers of a vector that are averaged into one before the cross "
            "feature; divides --embedding_dim.",
        ),
    },
    _ALL: {
        "dilation": (
            or_none(int),
            None,
            "Steps between the windows of a context; none makes them adjacent.",
        ),
        "context_length": (
            or_none(float),
            None,
            "Length of the windows of a context, adjacent to the window, in "
            "the unit of the windows; 128 frames in the code of the paper. "
            "none: of the window's own length, by --dilation.",
        ),
        "embedding_dim": (int, 128, "Width of window and query vectors."),
        "hidden_dim": (
            or_none(int),
            256,
            "Units of the head's hidden layer, or none, as in the paper.",
        ),
        "position_features": (
            bool,
            True,
            "Tell where a window lies in its video.",
        ),
        "query_encoder": (
            str,
            "gru",
            "How words are encoded: gru or mean; or an encoder of whole "
            "sentences, as clip:FOLDER.",
        ),
        "query_units": (int, 128, "Units of the GRU in each direction."),
        "word_dim": (int, 300, "Width of the word vectors."),
        "train_words": (bool, True, "Let training change the word vectors."),
        "dropout": (float, 0.3, "Dropout rate of query and window vectors."),
        "clip_dropout": (
            float,
            0.3,
            "Share of the clip features that training leaves out of a video.",
        ),
        "offset_unit": (
            str,
            "window_lengths",
            "Unit of the offsets: seconds, frames or window_lengths.",
        ),
        "consensus_iou": (
            or_none(floats),
            (0.5,),
            "Search lets windows support each other whose shifted segments "
            "have more than this IoU, or the average over several such; none "
            "ranks by the scores alone, as the papers do.",
        ),
        "decay_sigma": (
            or_none(float),
            None,
            "Search lowers the scores of windows that overlap with better "
            "ones, the smaller this is the more; none leaves them.",
        ),
    },
}
ARGUMENTS = {
    name: Argument(*row, models)
    for models, rows in _TABLE.items()
    for name, row in rows.items()
}


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
flag_help.subject("Model", *ARGUMENTS)


def encodes_sentences(query_encoder):
    """Whether a value of --query_encoder names an encoder of sentences."""
    return query_encoder not in (None, "gru", "mean")


def make_model(
    split,
    model: typing.Literal[*MODELS] = "acnn",
    members=1,
    word_vectors=None,
    trained=None,
    **settings,
):
    """Makes the model that fits the clips and the words of a `Split`.

    The arguments are explained by the flags of their names, and checked by
    `constructor_arguments`. Where an encoder makes vectors of sentences, they
    must be in the `Split`: see `splits.encode_sentences`. With a `trained`
    model it starts from that one, see `acnn_tf.models.start_from`.
    """
    arguments = constructor_arguments(model, **settings)
    if encodes_sentences(arguments.get("query_encoder")):
        del arguments["query_encoder"]  # of words, which there are none of
    make = getattr(acnn_tf.models, MODELS[model][0])
    if members > 1:
        make = functools.partial(acnn_tf.models.Ensemble, make, members)
    arguments["clip_seconds"] = split.features.clip_seconds
    arguments["encoder"] = split.features.encoder
    if trained is not None:
        of_flags = model, members, word_vectors, arguments
        return _start_from(trained, split, *of_flags)
    if split.sentence_vectors is not None:
        if word_vectors:
            raise ValueError(
                "--word_vectors are for words, but sentences come as vectors: "
                "leave it out, or --sentence_vectors or --query_encoder."
            )
        described = getattr(split.sentence_vectors, "description", None)
        return make(query_description=described, **arguments)
    words = acnn_tf.data.Vocabulary.from_sentences(
        [moment.query for moment in split.moments]
    ).words
    if not word_vectors:
        return make(vocabulary=words, **arguments)
    # Common words besides: others will ask with words that these do not.
    words, named, vectors = _words_with_vectors(word_vectors, words)
    arguments["word_dim"] = vectors.shape[1]
    network = make(vocabulary=words, **arguments)
    network.set_word_vectors(named, vectors)
    return network


def _words_with_vectors(path, words, known=frozenset()):
    """New words, those of sentences and common ones, with their vectors.

    Others will ask with words that these sentences do not have. Words that a
    model has `known` before are left out.

    Returns `(new, named, vectors)`: the new words; those of them that the file
    has; and the vectors of these.
    """
    asked, vectors = acnn_tf.data.read_glove(path, words)
    new = [word for word in words if word not in known]
    print(
        f"{path} has {len({*asked} - known):,} of the {len(new):,} words of "
        "the sentences; the others start at random.",
        file=sys.stderr,
    )
    common, more = acnn_tf.data.read_glove(path, max_words=20_000)
    table = dict(zip(common, more)) | dict(zip(asked, vectors))
    there = {*words, *known}
    new += [word for word in common if word not in there]
    named = [word for word in new if word in table]
    vectors = np.reshape([table[w] for w in named], (-1, vectors.shape[1]))
    return new, named, vectors


argument_flags.define(
    make_model,
    "Model",
    model="Model to train: ACNN; ACNN with the mean of its widths of context, "
    "or all of them, in place of attention; or a baseline.",
    members="Networks that are trained side by side and answer as one.",
    word_vectors="GloVe text file; without it, words are learned.",
)


def constructor_arguments(
    model="acnn",
    *,
    members=1,
    word_vectors=None,
    window_seconds: list | None = None,
    window_frames: list | None = None,
    frame_rate=29.4,
    overlap: float | None = None,
    **settings,
):
    """The arguments of a model's constructor, from the values of flags.

    They are explained by the flags of their names; `members` and
    `word_vectors` are for `make_model` alone.

    Raises:
        ValueError: Names a flag that the model does not have, or whose value
            is not of its kind.

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


def _start_from(trained, split, model, members, word_vectors, arguments):
    """`make_model`, from a trained model."""
    own = _name_of(trained), _members_of(trained)
    if own != (model, members):
        raise ValueError(
            "The model of --init_from is of --model={} and --members={}, not "
            "of --model={} and --members={}: leave these flags out.".format(
                *own, model, members
            )
        )
    for argument in MODELS[model][1]:  # they are as they are in `trained`
        del arguments[argument]
    if "window_lengths" in arguments:  # seconds, unless there is a frame rate
        arguments.setdefault("frame_rate", None)
    path = split.features.path
    acnn_tf.encoders.check(arguments["encoder"], trained.encoder, path)
    if trained.encoder is not None:
        del arguments["encoder"]
    video = split.moments[0].video_id
    clips = split.features[video]
    check_clips(trained, clips, video, path=path)
    if split.sentence_vectors is not None or trained.vocabulary is None:
        _check_sentence_vectors(trained, split, word_vectors)
        return acnn_tf.models.start_from(trained, **arguments)
    known = set(trained.vocabulary)
    sentences = [moment.query for moment in split.moments]
    words = acnn_tf.data.Vocabulary.from_sentences(sentences).words
    new = [word for word in words if word not in known]
    print(
        f"The model of --init_from has {len(words) - len(new):,} of the "
        f"{len(words):,} words of the sentences; {len(new):,} are added.",
        file=sys.stderr,
    )
    if not word_vectors:
        return acnn_tf.models.start_from(trained, new, **arguments)
    new, named, vectors = _words_with_vectors(word_vectors, words, known)
    if vectors.shape[1] != trained.word_dim:
        raise ValueError(
            f"{word_vectors} has {vectors.shape[1]} numbers for a word, the "
            f"model of --init_from {trained.word_dim}: leave --word_vectors "
            "out, and new words start at random."
        )
    network = acnn_tf.models.start_from(trained, new, **arguments)
    network.set_word_vectors(named, vectors)
    return network


def _check_sentence_vectors(trained, split, word_vectors):
    """Refuses vectors of sentences that are not as a trained model's were."""
    vectors, described = split.sentence_vectors, trained.query_description
    name = (described or {}).get("name", "an encoder that it does not name")
    if trained.vocabulary is not None or vectors is None:
        takes = f"vectors of sentences of {trained.query_dim} numbers by {name}"
        gives = "sentences come as words"
        if trained.vocabulary is not None:
            takes, gives = "words", "sentences come as vectors"
        raise ValueError(
            f"The model of --init_from takes {takes}, but {gives}: give "
            "--sentence_vectors or --query_encoder as that model was trained."
        )
    if word_vectors:
        raise ValueError(
            "--word_vectors are for words, but the model of --init_from takes "
            "vectors of sentences: leave it out."
        )
    width = len(vectors[split.moments[0].query_id])
    made_by = getattr(vectors, "description", None)
    differs = None
    if None not in (made_by, described):
        between = "those that the model of --init_from learned from"
        differs = acnn_tf.encoders.difference(made_by, described, between)
    if width != trained.query_dim and not differs:
        differs = (
            f"have {width} numbers, those that the model of --init_from "
            f"learned from {trained.query_dim}"
        )
    if differs:
        raise ValueError(f"The vectors of sentences: {differs}.")


argument_flags.define(
    constructor_arguments,
    "Windows",
    window_seconds="Lengths of windows in seconds. Default: "
    "3,4.5,6,8,10.5,14,19.",
    window_frames="Lengths of windows in frames.",
    frame_rate="Frames per second, with --window_frames; that of TACoS.",
    overlap="Share that a window has in common with the next. Default: 0.8.",
)


def defaults(model=None, window_frames=None, trained=None):
    """What flags leave where they are not given, by their names.

    With a `trained` model to start from, they leave its settings.
    """
    named = argument_flags.defaults(make_model)
    if trained is not None:
        named |= {"model": _name_of(trained), "members": _members_of(trained)}
    model = named["model"] = model or named["model"]
    own = getattr(acnn_tf.models, MODELS[model][0]).arguments()
    known = {n: a.default for n, a in ARGUMENTS.items() if model in a.models}
    if trained is not None:
        own |= {n: getattr(trained, n) for n in own if hasattr(trained, n)}
        known = {name: own[name] for name in known}
    windows = {"window_seconds": own["window_lengths"]}
    if own["frame_rate"] is not None:
        frames = tuple(map(int, own["window_lengths"]))
        windows = {"window_frames": frames, "frame_rate": own["frame_rate"]}
    elif window_frames:
        windows = argument_flags.defaults(constructor_arguments)
    windows["overlap"] = own["window_overlap"]
    return windows | named | known


def _name_of(trained):
    """The value of --model for a model of `acnn_tf.models`."""
    network = getattr(trained, "networks", [trained])[0]
    for name, (cls, settled) in MODELS.items():
        if type(network).__name__ == cls:
            arguments = network.arguments() | settled
            pooling = "context_pooling"
            if getattr(network, pooling, None) == arguments.get(pooling):
                return name
    raise ValueError(
        f"The model of --init_from, {type(network).__name__}, is none of "
        f"--model, which are {', '.join(MODELS)}. In Python, "
        "acnn_tf.models.start_from takes models with layers of your own."
    )


def _members_of(trained):
    """The value of --members for a model of `acnn_tf.models`."""
    return getattr(trained, "members", 1)


def _converted(name, kind, value):
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"--{name}: {error}") from None
