"""CLIP by keras-hub: frames and sentences in one space.

`pip install -e ".[clip]"`.
"""

import functools
import os
from collections.abc import Sequence

import keras
import numpy as np

from acnn_tf.encoders.descriptions import digest
from acnn_tf.encoders.encoder import Encoder, compiled
from acnn_tf.files.problems import DataError, fail

DEFAULT_PRESET = "clip_vit_base_patch32"
# Of the pictures that CLIP was trained with, of 1: red, green, blue.
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


class CLIP(Encoder):
    """CLIP's two towers, at unit length: their products are cosines.

    Args:
        weights: Name of a preset of keras-hub, which fetches it once, or a
            folder that `save_to_preset` made. Default:
            `"clip_vit_base_patch32"`.
        frame_rate: Frames a second. Default: 1.

    Example:

    >>> from acnn_tf.encoders.clip import CLIP
    >>> encoder = CLIP("clip_vit_base_patch32")  # doctest: +SKIP
    >>> clips = encoder.encode(frames)  # doctest: +SKIP
    >>> queries = encoder.encode_sentences(["a dog jumps"])  # doctest: +SKIP
    >>> (queries @ clips.T).argmax()  # doctest: +SKIP

    Reference: Radford et al., "Learning Transferable Visual Models From
    Natural Language Supervision", ICML 2021.
    """

    kind = "clip"

    def __init__(self, weights: str = "", frame_rate: float | None = None):
        self._preset = weights or DEFAULT_PRESET
        super().__init__(self._preset, frame_rate)
        self.backbone = _load(self._preset, "CLIPBackbone", dtype="float32")
        height, width, _ = self.backbone.vision_encoder.image_shape
        self.size = (height, width)
        self.preprocessing = (
            f"bicubic, short side {min(self.size)}, middle square; CLIP's mean "
            "and deviation"
        )
        self.dim = self.backbone.projection_dim
        self.digest = digest(self.backbone.get_weights())
        pixels = keras.Input((height, width, 3))
        vectors = self.backbone.get_vision_embeddings(pixels)
        self._vision = compiled(keras.Model(pixels, vectors))
        tokens = keras.Input((None,), dtype="int32")
        vectors = self.backbone.get_text_embeddings(tokens)
        self.text_tower = keras.Model(tokens, vectors)
        self._text = compiled(self.text_tower)

    @functools.cached_property
    def tokenizer(self) -> keras.layers.Layer:
        """keras-hub's `CLIPTokenizer`."""
        return _load(self._preset, "CLIPTokenizer")

    @property
    def num_tokens(self) -> int:
        """Int: tokens of a sentence that the text tower takes, 77."""
        return self.backbone.text_encoder.max_sequence_length

    def encode_clips(self, clips: np.ndarray) -> np.ndarray:
        return _unit(self._vision(normalize(clips[:, 0])))

    def encode_sentences(
        self, sentences: Sequence[str], batch_size: int = 64
    ) -> np.ndarray:
        """Encodes sentences into the space of the frames.

        Args:
            sentences: The sentences. CLIP takes 77 tokens of each; the rest is
                cut off.
            batch_size: Number of sentences that go through the network
                together.

        Returns:
            `float32 [Q, D]`, each row of length 1.
        """
        tokens = self._tokens(sentences)
        rows = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(tokens), batch_size):
            batch = tokens[start : start + batch_size]
            rows.append(_unit(self._text(batch)))
        return np.concatenate(rows)

    def _tokens(self, sentences):
        """Sentences as `int32 [Q, L]`: start, words, end, zeros."""
        tokenizer, length = self.tokenizer, self.num_tokens
        tokens = np.zeros((len(sentences), length), np.int32)
        for row, sentence in zip(tokens, sentences):
            words = np.asarray(tokenizer(sentence)).tolist()[: length - 2]
            words = [tokenizer.start_token_id, *words, tokenizer.end_token_id]
            row[: len(words)] = words
        return tokens


def normalize(pictures: np.ndarray) -> np.ndarray:
    """CLIP's numbers for pixels: `uint8 [..., 3]` -> `float32 [..., 3]`."""
    return (pictures / np.float32(255) - _MEAN) / _STD


def _unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def _load(preset, class_name, **settings):
    """Loads a part of CLIP from a folder, or by the name of a preset."""
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            'The encoder clip needs keras-hub: pip install -e ".[clip]"'
        ) from error
    model = getattr(keras_hub.models, class_name)
    if os.path.isdir(preset):
        try:
            return model.from_preset(preset, **settings)
        # Whatever is wrong with a file of theirs comes as it may.
        except Exception as error:
            fail(
                preset,
                f"holds no {class_name} of keras-hub, as `save_to_preset` "
                f"writes it: {error}",
                kind=DataError,
            )
    if preset not in model.presets and "://" not in preset:
        raise FileNotFoundError(
            f"{preset!r} is neither a folder nor one of keras-hub's presets: "
            f"{', '.join(model.presets)}"
        )
    try:
        return model.from_preset(preset, **settings)
    except OSError as error:
        raise FileNotFoundError(
            f"The weights of {preset} are not on this machine, and could not "
            f"be fetched from kaggle.com/models/keras/clip: {error}. Where "
            'there is a network, run `python -c "import keras_hub; '
            f"p = {preset!r}; m = keras_hub.models; "
            "m.CLIPBackbone.from_preset(p).save_to_preset('clip'); "
            "m.CLIPTokenizer.from_preset(p).save_to_preset('clip')\"`, copy "
            "the folder `clip` here, and name it in place of the preset: "
            "`clip:FOLDER`."
        ) from error
