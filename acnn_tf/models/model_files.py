"""Models to `.keras` files and back: the only way in and out."""

import hashlib
import math
import os
import stat
import tempfile
import threading
import zipfile

import keras

from acnn_tf import losses, optimizers  # noqa: F401 - so that Keras knows them
from acnn_tf.files.atomic import replacing
from acnn_tf.models import (  # noqa: F401 - likewise
    acrn,
    ctrl,
    model_checks,
    weight_checks,
)
from acnn_tf.models.acnn import ACNN  # noqa: F401 - likewise

# A model of 11 million weights takes 180 MB with its optimizer's state; one
# with the 400,000 word vectors of GloVe 1.9 GB.
MAX_BYTES = 2 * 2**30

_DIGEST = b"sha256:"
_CHUNK = 2**20


class ModelFileError(ValueError):
    """A file that is no model, or not as it was saved.

    The message names the file, what was expected and found, and what to do.

    Example:

    >>> load_model("no_such_model.keras")
    Traceback (most recent call last):
    ...
    acnn_tf.models.model_files.ModelFileError: no_such_model.keras: expected...
    """


def save_model(model, path):
    """Saves a model so that a failure leaves the old file as it was.

    The file is one that `keras.saving.load_model` reads, too. Its last bytes,
    the comment of a zip file, are the SHA-256 of all bytes before them, so
    that `load_model` notices whatever happened to it.

    Args:
        model: One of `acnn_tf.models`, built.
        path: `*.keras`.

    Raises:
        ModelFileError: If `path` has another name, or its folder is not there.
        WriteError: If it cannot be written.
    """
    path = os.fspath(path)
    folder, name = os.path.split(os.path.abspath(path))
    if not name.endswith(".keras") or not os.path.isdir(folder):
        raise ModelFileError(
            f"{path}: expected a name that ends in .keras, in a folder that is "
            "there. Choose another path, or make the folder."
        )
    optimizer = getattr(model, "optimizer", None)
    variables = model.weights + (optimizer.variables if optimizer else [])
    size = sum(keras.ops.convert_to_numpy(v).nbytes for v in variables)
    with replacing(path, size=size) as partial:
        model.save(partial)
        _seal(partial)


def _seal(path):
    """Appends the digest of a zip file to it, as its comment."""
    with open(path, "r+b") as file:
        comment, start = model_checks.comment_of(file)
        if comment:
            raise ModelFileError(f"{path}: expected no comment yet")
        file.seek(start - 2)
        file.write(model_checks.DIGEST_BYTES.to_bytes(2, "little"))
        file.write(_digest(file, start))
        file.flush()
        os.fsync(file.fileno())


def _digest(file, end):
    """The digest of the bytes before `end`; leaves the file there."""
    digest = hashlib.sha256()
    file.seek(0)
    for place in range(0, end, _CHUNK):
        digest.update(file.read(min(_CHUNK, end - place)))
    return _DIGEST + digest.hexdigest().encode()


def load_model(path, *, compile=False, max_bytes=MAX_BYTES):
    """Loads a model that may be anybody's file.

    Nothing that the file names is imported or run, and no more is allocated
    than its size calls for. Before Keras sees it, a copy is checked: size and
    digest (a file that Keras saved has none, and passes by its checksums);
    the members that Keras writes and no others; settings of a model of this
    package, and objects that it can be compiled with; arrays that lie within
    the file. Weights may still be anything: whom a model is from, it does
    not tell.

    Args:
        path: `*.keras`.
        compile: Also restore optimizer and losses.
        max_bytes: Int, the largest file to load. With `compile`, up to five
            times as much memory is taken.

    Returns:
        One of `acnn_tf.models`.

    Raises:
        ModelFileError: If it is not there, or anything else is wrong with it.

    Example:

    >>> import tempfile
    >>> model = ACNN(window_lengths=(4.0,), kernel_sizes=(1,), filters=8)
    >>> model.build({"clip": (None, None, 6), "query": (None, 9)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(model, f"{folder}/model.keras")
    ...     load_model(f"{folder}/model.keras").filters
    8
    """
    path = os.fspath(path)
    try:
        # A copy, so that Keras reads what was checked, whatever happens to
        # the file meanwhile.
        with tempfile.TemporaryDirectory(prefix="acnn_tf-") as folder:
            copy = os.path.join(folder, "model.keras")
            _copy(path, copy, max_bytes)
            with open(copy, "rb") as file:
                _check(file, max_bytes)
            return keras.saving.load_model(
                copy, compile=compile, safe_mode=True
            )
    except Exception as error:  # Keras's and zipfile's are of many kinds
        reason = str(error)[:1000].strip(" .\n") or type(error).__name__
        raise ModelFileError(
            f"{path}: {reason}. Save the model again with "
            "acnn_tf.models.save_model, or copy the file again from where it "
            "was saved."
        ) from error


def _opener(path, flags):
    # A pipe would let the one who opens it wait.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _copy(path, copy, max_bytes):
    if not os.path.exists(path):
        raise ValueError("expected a .keras file, but nothing is there")
    with open(path, "rb", opener=_opener) as source:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise ValueError("expected a .keras file, found no plain file")
        with open(copy, "wb") as target:
            size = 0
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > max_bytes:
                    raise ValueError(
                        f"expected at most {max_bytes:,} bytes, found more; "
                        "give a larger `max_bytes` if you trust it"
                    )
                target.write(chunk)


def _check(file, max_bytes):
    comment, start = model_checks.comment_of(file)
    if comment and comment != _digest(file, start):
        raise ValueError(
            "expected the digest of its content at its end, found another: "
            "it is not as it was saved"
        )
    try:
        members = model_checks.read_members(file)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ValueError(f"expected a whole zip file: {error}") from error
    model_checks.check_metadata(members["metadata.json"])
    config = model_checks.check_config(members["config.json"], max_bytes)
    held = weight_checks.check_weights(members["model.weights.h5"])
    needed = _weight_bytes(config)
    if needed > held:
        raise ValueError(
            f"its settings ask for {needed:,} bytes of weights, but it holds "
            f"{held:,}"
        )


def _weight_bytes(config):
    """Bytes of the weights of a model that has not been made yet.

    In this scope Keras notes the shape of a weight and does not allocate it.
    It would do so later, for whatever else is in the list that it keeps; the
    list belongs to a thread and ends with it.
    """
    found = []

    def make():
        try:
            with keras.StatelessScope(initialize_variables=False):
                model = keras.saving.deserialize_keras_object(
                    {**config, "compile_config": None, "build_config": None},
                    safe_mode=True,
                )
                # Here and not by Keras, which makes a warning of an error.
                model.build(_tuples(config["build_config"]["input_shape"]))
                found.append(sum(map(_bytes_of, model.weights)))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _tuples(shape):
    if isinstance(shape, dict):
        return {name: _tuples(one) for name, one in shape.items()}
    return tuple(map(_tuples, shape)) if isinstance(shape, list) else shape


def _bytes_of(weight):
    dtype = keras.backend.standardize_dtype(weight.dtype)  # such as bfloat16
    bits = int(dtype.strip("abcdefghijklmnopqrstuvwxyz"))
    return math.prod(weight.shape) * bits // 8
