"""Sentences from anywhere, as text that is safe to keep and to show."""

import re
import unicodedata

# Of a sentence, in characters; it has at most half as many words. The longest
# of the datasets has 1,070. Each character takes some hundred bytes on its way
# through words and an encoder, and a batch is as wide as its longest sentence.
MAX_CHARACTERS = 2000

# Control characters, and those that turn the direction of the text after them:
# on a terminal they would change what stands around them.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def normalize(sentence):
    r"""Writes a sentence in one way, whatever way it came.

    Each letter is one character where there is one (Unicode NFC; TensorFlow
    has no operation for it, so that it comes before `tokenize`). A control
    character, a line break or a sign that turns the direction of text becomes
    a space, which it is to `tokenize`, too.

    Args:
        sentence: String.

    Raises:
        ValueError: If it has more than `MAX_CHARACTERS`, or half of a letter
            (a lone surrogate), which is no text.

    Example:

    >>> normalize("a cafe\u0301\nis\x00open")
    'a café is open'
    """
    if len(sentence) > MAX_CHARACTERS:
        raise ValueError(
            f"a sentence may have {MAX_CHARACTERS:,} characters, found "
            f"{len(sentence):,} in {sentence[:40]!a}...; cut it, or make "
            "several of it"
        )
    if half := re.search("[\ud800-\udfff]", sentence):
        raise ValueError(
            f"expected text, found half a letter, {half[0]!a}, in "
            f"{sentence[:40]!a}; write it again in UTF-8"
        )
    return unicodedata.normalize("NFC", _CONTROLS.sub(" ", sentence))
