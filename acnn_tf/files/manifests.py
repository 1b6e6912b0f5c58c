"""What files held when they were written, so that damage can be told.

    {"files": {"features.tfrecord": {"bytes": 4242, "records": 2,
                                     "sha256": "b5bb9d80..."}},
     "sha256": "7d865e95..."}

The manifest of a file `X` is `X.manifest.json`; that of the files of a folder
is `manifest.json` in it. The last number is of the manifest itself. A file
without a manifest is read as it is.
"""

import contextlib
import hashlib
import json
import os

from acnn_tf.files.atomic import replacing, replacing_together
from acnn_tf.files.problems import Problem

_NAME = "manifest.json"
_FIELDS = {"bytes": int, "records": int, "sha256": str}
_MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)
_REWRITE = "python -m experiments.inspect_data --write_manifests"
_REMEDY = f"remove the manifest and write it again ({_REWRITE})"


def manifest_path(path):
    """Where the manifest of a file or a folder stands, or would stand.

    Args:
        path: File or folder.

    Returns:
        String.

    Example:

    >>> manifest_path("train.jsonl")
    'train.jsonl.manifest.json'
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return os.path.join(path, _NAME)
    return f"{path}.{_NAME}"


class Manifest:
    """What a manifest says of files.

    Args:
        path: The manifest's own.
        files: Dictionary from the name of a file to a dictionary of its
            `bytes`, `records` and `sha256`.
    """

    def __init__(self, path, files):
        self.path = path
        self.files = files

    def check_names(self, folder, names):
        """Compares what a folder holds with what it should hold.

        Args:
            folder: Folder.
            names: Names of the files in it of which a manifest speaks.

        Returns:
            List of `Problem`.
        """
        names, problems = set(names), []
        for name in sorted(names ^ set(self.files)):
            found, remedy = "is missing, but", "restore it"
            if name in names:
                found, remedy = "is there, but not", "move it elsewhere"
            problems.append(
                Problem(
                    os.path.join(folder, name),
                    None,
                    f"{found} in {self.path}; {remedy}, or, if that is "
                    f"meant, {_REMEDY}",
                )
            )
        return problems

    def check(self, path, data=None, records=None):
        """Compares a file with what the manifest says of it.

        Args:
            path: File.
            data: Its bytes, where they have been read.
            records: How many records it holds, where that is known.

        Returns:
            List of `Problem`, empty if the file is as it was.
        """
        stated = self.files.get(os.path.basename(path))
        if stated is None:
            listed = ", ".join(sorted(self.files)[:3])
            message = f"is not in {self.path}, which speaks of {listed}"
            return self._changed(path, message)
        size, digest = _size_and_digest(path, data)
        if size != stated["bytes"]:
            message = (
                f"has {size:,} bytes, but {stated['bytes']:,} in {self.path}"
            )
        elif digest != stated["sha256"]:
            message = (
                f"has other bytes than when {self.path} was written (SHA-256 "
                f"{digest[:8]}..., not {stated['sha256'][:8]}...)"
            )
        elif records not in (None, stated["records"]):
            message = (
                f"holds {records:,} records, but {stated['records']:,} in "
                f"{self.path}"
            )
        else:
            return []
        return self._changed(path, message)

    def _changed(self, path, message):
        message += f"; restore it, or, if the change is meant, {_REMEDY}"
        return [Problem(path, None, message)]


def read_manifest(path, problems):
    """Reads the manifest of a file or a folder.

    Args:
        path: File or folder.
        problems: List that takes a `Problem` if the manifest is damaged.

    Returns:
        `Manifest`, or `None` where there is none, or none that can be read.
    """
    path = manifest_path(path)
    if not _exists(path):
        return None
    try:
        with open_file(path) as file:
            content = json.loads(file.read())
        files, digest = content["files"], content["sha256"]
        if digest != _digest_of(files):
            raise ValueError("its checksum is not its own")
        if not files or any(
            {k: type(v) for k, v in stated.items()} != _FIELDS
            for stated in files.values()
        ):
            raise ValueError(f"expected {', '.join(_FIELDS)} of each file")
    except _MALFORMED as error:
        message = (
            f"is a damaged manifest ({error}); restore it, or remove it, see "
            f"that its files are sound, and write it again ({_REWRITE})"
        )
        problems.append(Problem(path, None, message))
        return None
    return Manifest(path, files)


def check_file(path, records=None):
    """Compares a file with the manifest beside it, if there is one.

    Args:
        path: File.
        records: How many records it holds, where that is known.

    Returns:
        List of `Problem`, empty if there is no manifest or nothing wrong.

    Example:

    >>> check_file(__file__)
    []
    """
    path, problems = os.fspath(path), []
    manifest = read_manifest(path, problems)
    return problems if manifest is None else manifest.check(path, None, records)


def save_manifest(path, records):
    """Writes the manifest of a file, or of some files of a folder.

    Args:
        path: File or folder.
        records: Dictionary from file to the number of records in it.

    Returns:
        Path of the manifest.

    Raises:
        WriteError: If it could not be written.

    Example:

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/notes.txt"
    >>> with open(path, "w") as file:
    ...     _ = file.write("one line")
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
        _dump(files, partial)
    return manifest


@contextlib.contextmanager
def replacing_with_manifest(path, records, *, only_again=False, size=None):
    """`replacing` for a file and its manifest.

    At no moment there is a manifest of what the file holds no more. Where the
    folder has a manifest that speaks of the file, or of others of its suffix,
    it is kept up to date.

    Args:
        path: File.
        records: How many records it will hold.
        only_again: Write a manifest only if there was one.
        size: See `acnn_tf.files.atomic.replacing`.

    Yields:
        The name to write the file to.

    Raises:
        WriteError: If the file or a manifest could not be written.

    Example:

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/notes.txt"
    >>> with replacing_with_manifest(path, records=1) as partial:
    ...     with open(partial, "w") as file:
    ...         _ = file.write("one line")
    >>> sorted(os.listdir(os.path.dirname(path)))
    ['notes.txt', 'notes.txt.manifest.json']
    """
    path = os.fspath(path)
    name, folder = os.path.basename(path), os.path.dirname(path) or os.curdir
    manifests = {}
    if not only_again or os.path.exists(manifest_path(path)):
        manifests[manifest_path(path)] = {}
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


def open_file(path):
    """Opens a file to read its bytes, by TensorFlow if it is remote.

    Args:
        path: File, or address such as `s3://...`.

    Returns:
        File object.
    """
    if "://" not in path:
        # TensorFlow takes twenty times as long to hand bytes to Python.
        return open(path, "rb")
    import tensorflow as tf

    return tf.io.gfile.GFile(path, "rb")


def _exists(path):
    if "://" not in path:
        return os.path.lexists(path)
    import tensorflow as tf

    return tf.io.gfile.exists(path)


def _size_and_digest(path, data=None):
    if data is not None:
        return len(data), hashlib.sha256(data).hexdigest()
    digest, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _state(path, records):
    size, digest = _size_and_digest(path)
    return {"bytes": size, "records": records, "sha256": digest}


def _digest_of(files):
    text = json.dumps(files, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _dump(files, path):
    content = {"files": files, "sha256": _digest_of(files)}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.write("\n")
