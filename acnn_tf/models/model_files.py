"""Saves models to `.keras` files, and loads files that may be anybody's."""

import io
import json
import math
import os
import shutil
import tempfile
import zipfile
from concurrent import futures

import h5py
import keras
import numpy as np

from acnn_tf import layers, losses, optimizers  # noqa: F401 - registered
from acnn_tf.files.atomic import replacing
from acnn_tf.files.hdf5_checks import PlainFile
from acnn_tf.files.problems import FeatureError
from acnn_tf.models.acnn import ACNN
from acnn_tf.models.acrn import ACRN
from acnn_tf.models.ctrl import CTRL
from acnn_tf.models.ensemble import Ensemble
from acnn_tf.models.window_model import DESCRIPTIONS, OF_KERAS
from acnn_tf.models.zero_shot import ZeroShot

# A model of 11 million weights takes 180 MB with its optimizer's state; one
# with the 400,000 word vectors of GloVe 1.9 GB.
MAX_BYTES = 2 * 2**30

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = [_CONFIG, "metadata.json", _WEIGHTS]
# zipfile reads the list of members whole.
_LIST_BYTES = 4096
# Settings are 3 kB, and a vocabulary 10 bytes a word. JSON takes up to 30 times
# as many bytes in memory: "[[],[],[]]".
_CONFIG_BYTES = 16 * 2**20
_JSON_EXPANSION = 32
# Each tap of a kernel is a weight that takes its time, and each window of a
# context an input. The paper's model has 16 taps.
_TAPS = 1000

_NETWORKS = {f"acnn_tf>{one.__name__}": one for one in (ACNN, ACRN, CTRL)}
_MODELS = _NETWORKS | {"acnn_tf>ZeroShot": ZeroShot}
_LAYERS = {
    f"acnn_tf>{name}": one
    for name, one in vars(layers).items()
    if isinstance(one, type)
}


class ModelFileError(ValueError):
    """A file that is no model, or not as it was saved.

    The message names the file, what was expected and found, and what to do.

    Example:

    >>> import acnn_tf
    >>> acnn_tf.models.load_model("no_such_model.keras")
    Traceback (most recent call last):
    ...
    acnn_tf.models.model_files.ModelFileError: no_such_model.keras: expected...
    """


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Saves a model so that a failure leaves the old file as it was.

    `keras.saving.load_model` reads the file, too, with the optimizer and the
    losses, after `import acnn_tf.models`.

    Args:
        model: One of `acnn_tf.models`, built.
        path: `*.keras`.

    Raises:
        ModelFileError: If the name of `path` does not end in `.keras`, or its
            folder does not exist.
        WriteError: If it cannot be written.

    See `load_model` for an example.
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
    with replacing(path, size=_num_bytes(variables)) as partial:
        model.save(partial)


def load_model(
    path: str | os.PathLike, *, max_bytes: int = MAX_BYTES
) -> keras.Model:
    """Loads a model from a file that may be anybody's.

    The file says which model of this package to construct, with which
    settings and weights. Keras deserialises none of its objects, nothing that
    it names is imported or run, and no weight is allocated which the file
    does not hold. The weights may still be anything: the file does not tell
    whom a model is from.

    Optimizer and losses are left out. For those, or for a model with a layer
    of your own, use `keras.saving.load_model` on a file that you trust.

    Args:
        path: `*.keras`.
        max_bytes: Size of the largest file to load.

    Returns:
        One of `acnn_tf.models`, not compiled.

    Raises:
        ModelFileError: If there is no such file, or anything is wrong with it.

    Example:

    >>> import acnn_tf, tempfile
    >>> model = acnn_tf.models.ACNN(filters=8)
    >>> model.build({"clip": (None, None, 6), "query": (None, 9)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     acnn_tf.models.save_model(model, f"{folder}/model.keras")
    ...     acnn_tf.models.load_model(f"{folder}/model.keras").filters
    8
    """
    path = os.fspath(path)
    try:
        with tempfile.TemporaryDirectory(prefix="acnn_tf-") as folder:
            weights = os.path.join(folder, _WEIGHTS)
            config = _unpack(path, weights, max_bytes)
            held, needed = _stored_bytes(weights), _needed_bytes(config)
            if needed > held:
                raise ValueError(
                    f"its settings ask for {needed:,} bytes of weights, but "
                    f"it holds {held:,}"
                )
            model = _make(config)
            model.load_weights(weights)
            return model
    except ModelFileError as error:  # says what to do, but not of which file
        raise ModelFileError(f"{path}: {error}") from None
    except Exception as error:  # Keras's, h5py's and zipfile's are many kinds
        reason = str(error)[:1000].strip(" .\n")
        if not isinstance(error, ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise ModelFileError(
            f"{path}: {reason}. Save the model again with "
            "acnn_tf.models.save_model, or copy the file again from where it "
            "was saved."
        ) from error


def _unpack(path, weights, max_bytes):
    """Copies the weights to a file, and returns what `config.json` holds.

    Keras stores the members as they are, so they are no larger than the file.
    """
    if not os.path.isfile(path):  # a pipe would let its reader wait
        if os.path.exists(path):
            raise ValueError("expected a .keras file, but no plain file")
        raise ModelFileError(
            "expected a .keras file, but nothing is there. Name another file "
            "or, if it is that of a run, train the run for an epoch."
        )
    if (size := os.path.getsize(path)) > max_bytes:
        raise ModelFileError(
            f"expected at most {max_bytes:,} bytes, found {size:,}. Give a "
            "larger `max_bytes` if you trust it."
        )
    with open(path, "rb") as file:
        data = file.read(size)
    end = data.rfind(b"PK\5\6")  # where zipfile finds the list, too
    if (
        end < 0
        or int.from_bytes(data[end + 12 : end + 16], "little") > _LIST_BYTES
        or b"PK\6\7" in data[max(end - 20, 0) : end]  # another, of 64 bits
    ):
        raise ValueError(
            "expected a .keras file, which is a zip file of three members, "
            "found another: it was cut short, or is no model"
        )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        names = sorted(info.orig_filename for info in infos)
        if names != _MEMBERS:
            raise ValueError(
                f"expected the members {', '.join(_MEMBERS)}, found "
                f"{names!a:.200}"
            )
        for info in infos:
            kind = info.external_attr >> 28  # 8: a file, of Unix; 0: unsaid
            if info.compress_type != zipfile.ZIP_STORED or kind not in (0, 8):
                raise ValueError(
                    f"expected {info.filename} as a plain file that is not "
                    "compressed, found another kind"
                )
        config = archive.read(_CONFIG)
        with archive.open(_WEIGHTS) as source, open(weights, "wb") as target:
            shutil.copyfileobj(source, target)
    if len(config) > min(_CONFIG_BYTES, max_bytes // _JSON_EXPANSION):
        raise ValueError(f"{_CONFIG} is too large, {len(config):,} bytes")
    config = json.loads(config, parse_constant=_refuse_constant)
    if not isinstance(config, dict):
        raise ValueError(f"expected an object in {_CONFIG}")
    return config


def _refuse_constant(text):
    raise ValueError(f"expected JSON in {_CONFIG}, found {text}")


def _make(config):
    """The model that `config.json` describes, built."""
    settings = dict(config.get("config", {}))
    network, members = config.get("registered_name"), None
    if network == "acnn_tf>Ensemble":
        network, members = settings.pop("network"), settings.pop("members")
        settings = {**settings.pop("settings"), **settings}
    known = _MODELS if members is None else _NETWORKS
    if network not in known:
        raise ValueError(
            f"expected a model of acnn_tf in {_CONFIG}, found {network!a:.100}"
        )
    make = known[network]
    unknown = settings.keys() - make.arguments().keys() - set(OF_KERAS)
    if unknown:
        raise ValueError(
            f"expected settings of {network} in {_CONFIG}, found "
            f"{sorted(unknown)!a:.200}"
        )
    sizes = [*settings.get("kernel_sizes", ()), settings.get("context_size", 0)]
    if (taps := sum(sizes) * (members or 1)) > _TAPS:
        raise ValueError(
            f"expected at most {_TAPS:,} context windows, or taps of all "
            f"kernels, in {_CONFIG}, found {taps:,}"
        )
    settings = {name: _setting(name, one) for name, one in settings.items()}
    if members is None:
        model = make(**settings)
    else:
        model = Ensemble(make, members, **settings)
    shapes = config["build_config"]["input_shape"]
    model.build({name: tuple(shape) for name, shape in shapes.items()})
    return model


def _setting(name, value):
    """A setting: plain values, a layer of ours, or the dtype by its name.

    Descriptions of encoders are objects of plain values, which models check.
    """
    if name in DESCRIPTIONS:
        return value
    if name == "dtype" and isinstance(value, dict):
        return keras.DTypePolicy(value["config"]["name"])
    if isinstance(value, dict):
        kind = value.get("registered_name") or value.get("class_name")
        if name == "context_pooling" and kind in _LAYERS:
            settings = value["config"].items()
            return _LAYERS[kind](**{n: _setting(n, one) for n, one in settings})
        raise ModelFileError(
            f"its {name} is {kind!a:.100}; expected plain values, or as "
            "context_pooling a layer of acnn_tf.layers. A layer of your own is "
            "read by keras.saving.load_model: import what registers it, and "
            "use that on a file that you trust."
        )
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, (str, int, float, type(None))):
            raise ValueError(
                f"expected text, numbers or a list of them as {name} in "
                f"{_CONFIG}, found {one!a:.100}"
            )
    return value


def _needed_bytes(config):
    """Bytes of the weights of a model, none of which is allocated.

    In its scope Keras notes the shape of each weight, to allocate it later.
    Its list of what to allocate belongs to the thread and ends with it.
    """

    def count():
        with keras.StatelessScope(initialize_variables=False):
            return _num_bytes(_make(config).weights)

    with futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(count).result()


def _num_bytes(variables):
    return sum(
        math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in variables
    )


def _stored_bytes(path):
    """Bytes of the arrays of an HDF5 file, each plain and within the file."""
    size = os.path.getsize(path)
    with h5py.File(path, "r") as file:
        try:
            total = PlainFile(file, _WEIGHTS).check_all()
        except FeatureError as error:
            reason, *_ = str(error).split(";")  # then what to do with features
            raise ValueError(reason) from error
        file.visititems(_check_attributes)
    if total > size:
        raise ValueError(
            f"{_WEIGHTS} has {size:,} bytes and declares {total:,} of arrays"
        )
    return total


def _check_attributes(name, item):
    """Refuses lists of texts, which may hold one long text many times."""
    for attribute in map(item.attrs.get_id, item.attrs):
        is_text = attribute.get_type().get_class() == h5py.h5t.STRING
        if not is_text or attribute.shape != ():
            raise ValueError(
                f"expected text as attributes of {name!a:.60} in {_WEIGHTS}, "
                "found another type"
            )
