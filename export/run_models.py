"""The model that a main is told to use: that of a run, or one without training.

Both take sentences, by their vocabulary or by an encoder, which is named or
which the model names itself.
"""

import difflib
import os

from absl import flags

import acnn_tf
from export import flag_help

flags.disclaim_key_flags()  # they are those of the main that asks for them


def define_flags():
    """Defines `--model` and `--encoder`, which `load_model` takes."""
    flags.DEFINE_string(
        "model",
        None,
        "zero_shot, in place of --workdir: likeness of frames and sentence in "
        "the space of an image-text encoder, without any training.",
    )
    flags.DEFINE_string(
        "encoder",
        None,
        "Encoder of the sentences, as clip:FOLDER, for a model that takes "
        "their vectors. Default: the one that the model names.",
    )
    flag_help.subject("Model", "model", "encoder")


def check_choice(workdir=None, model=None):
    """Refuses flags that name no model, or two, or a run that is not there.

    Raises:
        FileNotFoundError: See `check_run`.
        ValueError: Says what to give.
    """
    if model not in (None, "zero_shot"):
        raise ValueError(
            "--model can only be zero_shot here, which needs no training; any "
            f"other is that of a run: give its --workdir. Received: {model!r}"
        )
    if bool(workdir) == bool(model):
        either = "not both" if model else "to say which model"
        raise ValueError(f"Give --workdir or --model=zero_shot, {either}.")
    if workdir:
        check_run(workdir)


def check_run(workdir):
    """Refuses the folder of a run that is not there.

    Raises:
        FileNotFoundError: Names one that is called nearly so, if there is one.
    """
    if os.path.isdir(workdir):
        return
    parent, name = os.path.split(os.path.normpath(workdir))
    text = f"There is no folder {workdir}."
    if os.path.isdir(parent or "."):
        paths = (os.path.join(parent, x) for x in os.listdir(parent or "."))
        folders = [os.path.basename(x) for x in paths if os.path.isdir(x)]
        for near in difflib.get_close_matches(name, folders, 1):
            text += f" Is it {os.path.join(parent, near)}?"
    raise FileNotFoundError(text)


def load_model(
    workdir=None,
    model=None,
    encoder=None,
    features=None,
    with_sentences=True,
):
    """Loads the model of a run, or makes `acnn_tf.models.ZeroShot`.

    Args:
        workdir: Folder of a run.
        model: `"zero_shot"`, in place of `workdir`.
        encoder: Name of the encoder of sentences, for a model that takes their
            vectors. Default: the one that the model, or else the features,
            were made with.
        features: `ClipFeatures` whose clips ZeroShot will be given. It can do
            without if there is an encoder.
        with_sentences: Bool: whether sentences will have to be encoded.

    Returns:
        One of `acnn_tf.models`; with a `sentence_encoder`, if it needs one.

    Raises:
        DataError: If sentences and clips, or the sentences that the model
            learned from, are of two encoders.
        ValueError: If it is not said which model, or which encoder.
    """
    check_choice(workdir, model)
    make = acnn_tf.encoders.sentence_encoder
    if workdir:
        found = acnn_tf.models.load_model(os.path.join(workdir, "model.keras"))
        if with_sentences and encoder and found.vocabulary is not None:
            raise ValueError(
                f"{workdir} learned from words, which it needs no encoder for: "
                f"leave out --encoder={encoder}."
            )
        if with_sentences and found.vocabulary is None:
            found.sentence_encoder = make(found.query_description, encoder)
        return found
    if features is None and encoder is None:
        raise ValueError(
            "--model=zero_shot has to know what makes its vectors: give "
            "--encoder, such as clip:FOLDER."
        )
    made_by = getattr(features, "encoder", None)
    if with_sentences or encoder:
        path = getattr(features, "path", "the clips")
        sentence_encoder = make(made_by, encoder, path)
    if features is None:
        clip_dim = sentence_encoder.dim
        clip_seconds = sentence_encoder.clip_seconds
    else:
        clip_dim = features[next(iter(features))].shape[-1]
        clip_seconds = features.clip_seconds
    if encoder:
        made_by = made_by or sentence_encoder.description
    found = acnn_tf.models.ZeroShot(clip_seconds=clip_seconds, encoder=made_by)
    found.build({"clip": (None, None, clip_dim), "query": (None, clip_dim)})
    if with_sentences:
        found.sentence_encoder = sentence_encoder
    return found


def load_retriever(workdir=None, model=None, encoder=None, index=None):
    """Loads the retriever of a run, or makes one without any training.

    Args:
        workdir: Folder of a run.
        model: `"zero_shot"`, in place of `workdir`.
        encoder: Name of the encoder of the frames, and with `model` of the
            sentences too. Default: the one that the model names.
        index: Folder that keeps what is added. Default: memory.

    Returns:
        `acnn_tf.MomentRetriever`.

    Raises:
        DataError: If the encoder is not the one that the model learned from.
        ValueError: If it is not said which model, or which encoder.
    """
    check_choice(workdir, model)
    if workdir:
        return acnn_tf.MomentRetriever.load(workdir, encoder, index)
    found = load_model(model=model, encoder=encoder)
    return acnn_tf.MomentRetriever(found, found.sentence_encoder, index)
