"""The folder of a corpus: one folder of an index for each of its shards."""

import os
import re

from acnn_tf.search.index_rows import IndexFileError

_NAME = re.compile(r"shard-(\d{5,})-of-(\d{5,})(\..+\.partial)?")


def shard_name(number, num_shards):
    """Name of one of the folders.

    Args:
        number: Int, from 0.
        num_shards: Int.

    Example:

    >>> shard_name(3, 16)
    'shard-00003-of-00016'
    """
    return f"shard-{number:05d}-of-{num_shards:05d}"


def find_shards(path, num_shards=None):
    """Looks for the shards of a corpus.

    Args:
        path: Folder; need not be there.
        num_shards: Int, the number that there ought to be. Default: as many as
            the names say.

    Returns:
        `(num_shards, numbers, partial)`: `None` where there are none, the
        numbers of those that are complete, and the paths of those that were
        never completed.

    Raises:
        IndexFileError: If there are shards of several divisions.
    """
    numbers, partial = set(), []
    names = sorted(os.listdir(path)) if os.path.isdir(path) else []
    for name in names:
        found = _NAME.fullmatch(name)
        if not found:
            continue
        own = int(found[2])
        if num_shards not in (None, own):
            raise IndexFileError(
                f"{path} holds {name}, but expected were shards of "
                f"{num_shards} in all: remove what does not belong there, "
                f"choose another folder, or ask for --num_shards={own}."
            )
        num_shards = own
        if found[3]:
            partial.append(os.path.join(path, name))
        else:
            numbers.add(int(found[1]))
    return num_shards, numbers, partial


def shard_folders(path):
    """The folders of a complete set of shards, in order.

    Args:
        path: Folder of the corpus.

    Returns:
        List of paths; empty where `path` holds no shards.

    Raises:
        IndexFileError: If some are missing.
    """
    num_shards, numbers, _ = find_shards(path)
    # Of a name such as shard-00001-of-99999999999 nobody wants the others.
    if num_shards is not None and len(numbers) < num_shards:
        missing = []
        for number in range(num_shards):
            if number not in numbers:
                missing.append(shard_name(number, num_shards))
            if len(missing) > 5:
                break
        names = ", ".join(missing[:5]) + (", ..." if missing[5:] else "")
        raise IndexFileError(
            f"{path} is not complete: {num_shards - len(numbers)} of "
            f"{num_shards} shards are missing ({names}). The command that "
            "made the others makes them: python -m experiments.encode_corpus "
            f"--out={path} --num_shards={num_shards}, with the same --workdir "
            "and --features."
        )
    return [
        os.path.join(path, shard_name(number, num_shards))
        for number in sorted(numbers)
    ]


def check_shard(folder, found, number, num_shards, corpus):
    """Compares what a folder says of itself with its place in a corpus.

    Args:
        folder: Path of the shard.
        found: Dictionary, see `acnn_tf.search.shards`, or `None`.
        number: Int, as its name says.
        num_shards: Likewise.
        corpus: Hex digest, of the shard before it or of what is to be encoded.

    Raises:
        IndexFileError: If they differ.
    """
    expected = {"number": number, "num_shards": num_shards, "corpus": corpus}
    if found != expected:
        raise IndexFileError(
            f"{folder} says it is {_in_words(found)}, but it should be "
            f"{_in_words(expected)}: remove that folder and run "
            "experiments.encode_corpus once more, or, for another corpus "
            "(other videos, or other durations of them), choose another "
            "folder."
        )


def _in_words(shard):
    if shard is None:
        return "no shard at all"
    return (
        f"shard {shard['number']} of {shard['num_shards']} of the corpus "
        f"{shard['corpus']!s:.12}..."
    )
