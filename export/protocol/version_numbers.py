"""Versions as text, in names of folders, addresses and commands."""


def version_number(text):
    """The version that a text names, or `None`.

    Versions are of 64 bits with a sign in the protocol, and not negative.
    TensorFlow Serving takes `007` for 7; here one version has one name.

    Example:

    >>> [version_number(text) for text in ("7", "007", str(2**63))]
    [7, None, None]
    """
    # Of long texts and of other scripts Python would make numbers, too.
    if len(text) > 19 or not (text.isascii() and text.isdecimal()):
        return None
    number = int(text)
    return number if number < 2**63 and str(number) == text else None
