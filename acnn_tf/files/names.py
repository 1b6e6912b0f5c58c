"""Ids that become names of files, and text that names several."""

import hashlib
import os

# As most file systems have it, in bytes.
_LONGEST = 255
# What parts paths on some system, and the sign that says "escaped".
_SPECIAL = frozenset('/\\:*?"<>|%')


def file_name(name: str, suffix: str = "") -> str:
    """The name of the file that belongs to an id, whatever the id is.

    It is a name within a folder, never a path, and different ids have different
    names. Most ids stay as they are. Characters that separate folders, that
    cannot be seen, and a dot or space at either end are written as `%` and
    their bytes. The end of a name that is too long is replaced by the SHA-256
    of the whole name.

    Args:
        name: The id, such as that of a query from somebody's file.
        suffix: What follows the name, such as `".png"`.

    Returns:
        The name of the file.

    Example:

    >>> from acnn_tf.files.names import file_name
    >>> file_name("s13-d21", ".png"), file_name("../a b", ".png")
    ('s13-d21.png', '%2E.%2Fa b.png')
    """
    ends = {0, len(name) - 1}
    parts = [
        letter
        if letter.isprintable()
        and letter not in _SPECIAL
        and not (letter in ". " and place in ends)
        else _escaped(letter)
        for place, letter in enumerate(name)
    ]
    found = "".join(parts) or "%"
    if len((found + suffix).encode()) > _LONGEST:
        # A "%" and no number after it, as nowhere else.
        suffix = f"%~{hashlib.sha256(_bytes(name)).hexdigest()}{suffix}"
        room = _LONGEST - len(suffix.encode())
        found = found.encode()[:room].decode(errors="ignore")
    return found + suffix


def paths_of(path: str | os.PathLike) -> list[str]:
    """The paths of `"a.pkl,b.pkl"`, or the one path that it is.

    Example:

    >>> from acnn_tf.files.names import paths_of
    >>> paths_of("a.pkl,b.pkl"), paths_of("a.pkl")
    (['a.pkl', 'b.pkl'], ['a.pkl'])
    """
    path = os.fspath(path)
    return [path] if os.path.exists(path) else path.split(",")


def array_of(path: str | os.PathLike) -> tuple[str, str | None]:
    """`(FOLDER, NAME)` of `"FOLDER:NAME"`, or the path and `None`.

    Example:

    >>> from acnn_tf.files.names import array_of
    >>> array_of("/:features"), array_of("a.npz")
    (('/', 'features'), ('a.npz', None))
    """
    path = os.fspath(path)
    folder, colon, name = path.rpartition(":")
    if colon and not os.path.exists(path) and os.path.isdir(folder):
        return folder, name
    return path, None


def check_file_name(name: str, suffix: str = "") -> None:
    """Raises a `ValueError` unless a file may have this very name."""
    if file_name(name, suffix) != name + suffix:
        raise ValueError(
            f"{name!a:.100} cannot be the name of a file: expected 1 to "
            f"{_LONGEST - len(suffix.encode())} bytes of visible letters, "
            'none of /\\:*?"<>|% and no dot or space at an end. Choose another '
            "name."
        )


def _escaped(letter):
    return "".join(f"%{byte:02X}" for byte in _bytes(letter))


def _bytes(text):
    # Half a letter, of a name that is not UTF-8, is written too.
    return text.encode("utf-8", "surrogatepass")
