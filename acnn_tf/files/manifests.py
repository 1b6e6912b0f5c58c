"""What files held when they were written, so that damage can be told.

    {"files": {"features.tfrecord": {"bytes": 4242, "records": 2,
                                     "sha256": "b5bb9d80..."}}}

The manifest of a file `X` is `X.manifest.json`; that of the files of a folder
is `manifest.json` in it. A file without a manifest is read as it is.
"""

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

from acnn_tf.files.atomic import replacing, replacing_together
from acnn_tf.files.names import array_of, paths_of
from acnn_tf.files.problems import Problem

_NAME = "manifest.json"
_FIELDS = {"bytes": int, "records": int, "sha256": str}
_MALFORMED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)
_REWRITE = "python -m experiments.inspect_data --write_manifests"


def manifest_path(path: str | os.PathLike) -> str:
    """Where the manifest of a file or a folder stands, or would stand."""
    path = os.fspath(path)
    if os.path.isdir(path):
        return os.path.join(path, _NAME)
    return f"{path}.{_NAME}"


class Manifest:
    """What a manifest says of files.

    `files` has, by their names, their `bytes`, `records` and `sha256`. The
    `remedy` says what to do about a file that is not as it says; by default,
    to restore it, or to write the manifest again.
    """

    def __init__(
        self, path: str, files: dict[str, dict], remedy: str | None = None
    ):
        self.path = path
        self.files = files
        self._remedy = remedy

    def check_names(self, folder: str, names: Iterable[str]) -> list[Problem]:
        """Compares the names of a folder's files with those listed.

        Returns a list of `Problem`.
        """
        names, problems = set(names), []
        for name in sorted(names ^ set(self.files)):
            found, remedy = "is missing, but in", "restore it"
            if name in names:
                found, remedy = "is there, but not in", "move it elsewhere"
            path = os.path.join(folder, name)
            problems.append(self._problem(path, f"{found} {self.path}", remedy))
        return problems

    def check(
        self,
        path: str,
        data: bytes | None = None,
        records: int | None = None,
        *,
        verify: bool = True,
    ) -> list[Problem]:
        """Compares a file with what is said of it: a list of `Problem`.

        Its bytes (`data`) and its `records` are given where they are known.
        Only to `verify` takes reading the file: that compares its SHA-256.
        """
        stated = self.files.get(os.path.basename(path))
        message = None
        if stated is None:
            listed = ", ".join(sorted(self.files)[:3]) or "no file"
            message = f"is not in {self.path}, which speaks of {listed}"
        elif (size := _size(path, data)) != stated["bytes"]:
            message = (
                f"has {size:,} bytes, but {stated['bytes']:,} in {self.path}"
            )
        elif verify and (digest := _digest(path, data)) != stated["sha256"]:
            message = (
                f"has other bytes than when {self.path} was written (SHA-256 "
                f"{digest[:8]}..., not {stated['sha256'][:8]}...)"
            )
        elif records not in (None, stated["records"]):
            message = (
                f"holds {records:,} records, but {stated['records']:,} in "
                f"{self.path}"
            )
        return [] if message is None else [self._problem(path, message)]

    def _problem(self, path, message, remedy="restore it"):
        remedy = self._remedy or (
            f"{remedy}, or, if that is meant, remove the manifest and write it "
            f"again ({_REWRITE})"
        )
        return Problem(path, None, f"{message}; {remedy}")


def read_manifest(
    path: str | os.PathLike, problems: list[Problem], remedy: str | None = None
) -> Manifest | None:
    """Reads the manifest of a file or a folder.

    Args:
        path: The file or the folder.
        problems: A list to which a `Problem` is added if the manifest is
            damaged.
        remedy: What to do about a file that is not as the manifest says.
            Default: to restore it, or to write the manifest again.

    Returns:
        The manifest, or `None` if there is none or it is damaged.
    """
    path = manifest_path(path)
    if not _exists(path):
        return None
    try:
        with open_file(path) as file:
            files = json.loads(file.read())["files"]
        if any(
            {k: type(v) for k, v in stated.items()} != _FIELDS
            or max(stated["bytes"], stated["records"]) >= 2**63
            for stated in files.values()
        ):
            raise ValueError(f"expected {', '.join(_FIELDS)} of each file")
    except _MALFORMED as error:
        remedy = remedy or (
            "restore it, or remove it, see that its files are sound, and "
            f"write it again ({_REWRITE})"
        )
        message = f"is a damaged manifest ({error!s:.80}); {remedy}"
        problems.append(Problem(path, None, message))
        return None
    return Manifest(path, files, remedy)


def check_file(
    path: str | os.PathLike, records: int | None = None
) -> list[Problem]:
    """Compares a file with the manifest beside it.

    Args:
        path: The file.
        records: Number of records in it, if it is known.

    Returns:
        The problems. There are none if there is no manifest.
    """
    path, problems = os.fspath(path), []
    manifest = read_manifest(path, problems)
    return problems if manifest is None else manifest.check(path, None, records)


def save_manifest(
    path: str | os.PathLike,
    records: Mapping[str, int],
    others: Mapping[str, dict] | None = None,
) -> str:
    """Writes the manifest of a file, or of some files of a folder.

    Args:
        path: The file or the folder.
        records: Path of each file -> number of records in it.
        others: More files of the folder, as of `Manifest.files`. They are not
            read again.

    Returns:
        The path of the manifest.

    Example:

    >>> import tempfile
    >>> from acnn_tf.files.manifests import check_file, save_manifest
    >>> path = tempfile.mkdtemp() + "/notes.txt"
    >>> with open(path, "w") as file:
    ...     _ = file.write("all of it")
    >>> _ = save_manifest(path, {path: 1})
    >>> check_file(path)
    []
    """
    manifest = manifest_path(path)
    files = {
        os.path.basename(file): _state(os.fspath(file), number)
        for file, number in records.items()
    }
    with replacing(manifest) as partial:
        _dump({**(others or {}), **files}, partial)
    return manifest


@contextlib.contextmanager
def replacing_with_manifest(
    path: str | os.PathLike, records: int, *, size: int | None = None
) -> Iterator[str]:
    """`replacing` for a file of so many records, and its manifest.

    At no moment there is a manifest of what the file holds no more. Where the
    folder has a manifest that speaks of the file, or of others of its suffix,
    it is kept up to date.
    """
    path = os.fspath(path)
    name, folder = os.path.basename(path), os.path.dirname(path) or os.curdir
    manifests = {manifest_path(path): {}}
    # Whether it is damaged, or no manifest of ours, will tell who reads it.
    others = read_manifest(folder, [])
    suffixes = {os.path.splitext(n)[1] for n in others.files} if others else ()
    if os.path.splitext(name)[1] in suffixes:
        manifests[others.path] = others.files
    with replacing_together([path, *manifests], size=size) as partials:
        yield partials[0]
        stated = {name: _state(partials[0], records)}
        for partial, files in zip(partials[1:], manifests.values()):
            _dump({**files, **stated}, partial)


def open_file(path: str) -> BinaryIO:
    """Opens a file to read its bytes, by TensorFlow if it is remote.

    What is no regular file is an `OSError`: a pipe could make its reader wait
    forever.
    """
    if "://" in path:
        import tensorflow as tf

        return tf.io.gfile.GFile(path, "rb")

    # TensorFlow takes twenty times as long to hand bytes to Python.
    def opener(path, flags):
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", path)
    return file


def _exists(path):
    if "://" not in path:
        return os.path.lexists(path)
    import tensorflow as tf

    return tf.io.gfile.exists(path)


def _size(path, data=None):
    if data is not None:
        return len(data)
    with open_file(path) as file:
        file.seek(0, os.SEEK_END)
        return file.tell()


def digest(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, or of the names and digests of a folder's files.

    Args:
        path: File or folder, or several with commas between, see `paths_of`:
            then it is the SHA-256 of their digests.

    Returns:
        64 hexadecimal digits.

    Example:

    >>> import tempfile
    >>> from acnn_tf.files.manifests import digest
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     digest(file.name)[:8]
    'e3b0c442'
    """
    path, *others = paths_of(path)
    if others:
        inside = [digest(one) for one in (path, *others)]
        return _digest(path, json.dumps(inside).encode())
    path, array = array_of(path)
    if array is not None:
        return _digest(path, json.dumps([array, digest(path)]).encode())
    if not os.path.isdir(path):
        return _digest(path)
    names = sorted(os.listdir(path))
    inside = [(n, digest(os.path.join(path, n))) for n in names]
    return _digest(path, json.dumps(inside).encode())


def _digest(path, data=None):
    if data is not None:
        return hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _state(path, records):
    return {"bytes": _size(path), "records": records, "sha256": _digest(path)}


def _dump(files, path):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=1, sort_keys=True)
        file.write("\n")
