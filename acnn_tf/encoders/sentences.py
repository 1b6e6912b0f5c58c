"""Encoders of sentences, and whether one is that of a model."""

from acnn_tf.encoders.descriptions import shown
from acnn_tf.encoders.encoder import Encoder, make, make_described
from acnn_tf.files.problems import DataError, fail


def sentence_encoder(
    description: dict | None,
    name: str | None = None,
    whose: str = "the model",
) -> Encoder:
    """Makes the encoder of the sentences that a model learned from.

    Args:
        description: Description of this encoder: `model.query_description`.
            `None` if it is not known.
        name: Name of the encoder, as for `acnn_tf.encoders.make`. Default: the
            name in the description, which holds no folder.
        whose: What has this description, for messages.

    Returns:
        An encoder with `encode_sentences`.

    Raises:
        DataError: If the encoder has other weights than the description says.
        ValueError: If there is neither a name nor a description, if the
            encoder encodes no sentences, or if there is no such encoder.

    Example:

    >>> from acnn_tf.encoders import sentence_encoder
    >>> sentence_encoder(None, "pixels")
    Traceback (most recent call last):
    ...
    ValueError: pixels encodes no sentences: ...
    """
    if not (name or description):
        raise ValueError(
            f"Sentences have to be encoded, and {whose} does not say by which "
            "encoder: name it, such as clip:FOLDER."
        )
    encoder = make(name) if name else make_described(description, whose)
    if not hasattr(encoder, "encode_sentences"):
        raise ValueError(
            f"{encoder.name} encodes no sentences: name an encoder of pictures "
            "and sentences, such as clip:FOLDER."
        )
    check_space(encoder.description, description, whose)
    return encoder


def check_space(
    made_by: dict | None, other: dict | None, whose: str = "the model"
) -> None:
    """Refuses sentences and clips that different encoders made.

    Kind and weights are compared; the frame rate is not, as sentences have
    none. If one of the two descriptions is not known, nothing is compared.

    Args:
        made_by: Description of the encoder of the sentences, see
            `acnn_tf.encoders.descriptions`.
        other: Description of the encoder that must have made them.
        whose: What `other` describes, for the message.

    Raises:
        DataError: If the two descriptions differ.

    Example:

    >>> from acnn_tf.encoders import check_space
    >>> b32 = {"encoder": "clip", "name": "clip:b32", "weights": "sha256:1"}
    >>> l14 = {"encoder": "clip", "name": "clip:l14", "weights": "sha256:2"}
    >>> check_space(b32, l14, "clips.hdf5")
    Traceback (most recent call last):
    ...
    acnn_tf.files.problems.DataError: clips.hdf5: made by clip:l14 (sha256:2...
    """
    if made_by is None or other is None:
        return
    if any(
        made_by.get(key) != other.get(key) for key in ("encoder", "weights")
    ):
        fail(
            whose,
            f"made by {_named(other)}, the sentences would be encoded by "
            f"{_named(made_by)}; name the encoder that made it",
            kind=DataError,
        )


def _named(description):
    weights = description.get("weights")
    digits = f" ({shown(weights)})" if weights else ""
    return shown(description.get("name")) + digits
