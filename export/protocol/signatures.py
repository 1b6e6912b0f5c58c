"""One version of a model: a SavedModel whose signatures can be run."""

import os
import re

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_log_pb2

from export.protocol import tensors
from export.protocol.bodies import check_names
from export.protocol.errors import invalid

DEFAULT_SIGNATURE = "serving_default"
# TensorFlow Serving's limit too.
_MAX_WARM_UPS = 1000


class Servable:
    """A loaded SavedModel. Any thread may run it.

    Attributes:
        definitions: `SignatureDefMap`, of which `signature_def` has every
            `SignatureDef` by its name.
        unmergeable: Names of signatures whose requests must run one by one:
            a number of rows is fixed, or the outputs have others.
    """

    def __init__(self, path, version):
        self.path = path
        self.version = version
        self.definitions = _read_definitions(path)
        # The functions alone do not keep their variables alive.
        self._loaded = tf.saved_model.load(path)
        self._functions = dict(self._loaded.signatures)
        known = self.definitions.signature_def
        self._specs = {
            name: {
                key: _spec(key, info)
                for key, info in known[name].inputs.items()
            }
            for name in self._functions
        }
        self.unmergeable = {
            name for name in self._functions if _has_fixed_rows(known[name])
        }

    def dtypes(self, signature):
        """Names of the dtypes of a signature's inputs."""
        specs = self._inputs_of(signature)
        return {name: dtype for name, (dtype, _) in specs.items()}

    def _inputs_of(self, signature):
        if signature not in self._specs:
            raise ValueError(
                f"The model has no signature `{signature[:100]}`. Set "
                f"`signature_name` to one of {sorted(self._specs)}."
            )
        return self._specs[signature]

    def check(self, signature, inputs, max_rows):
        """Raises a `ValueError` unless the signature takes these inputs.

        Of each only `shape` and `dtype` are looked at: of arrays, or of what
        is no array yet, `tensors.WireTensor`. They have `max_rows` at most.
        """
        specs = self._inputs_of(signature)
        check_names(inputs, specs, f"of signature `{signature}`")
        for name, (dtype, shape) in specs.items():
            found = inputs[name]
            if tensors.dtype_name(found) != dtype:
                raise ValueError(
                    f"Input `{name}` must be {dtype}, but is "
                    f"{tensors.dtype_name(found)}. Convert it before sending."
                )
            if not _fits(found.shape, shape):
                raise ValueError(
                    f"Input `{name}` must have shape "
                    f"{tensors.format_shape(shape)}, with any size for `?`, "
                    f"but has {tensors.format_shape(found.shape)}."
                )
            if found.shape and not 1 <= found.shape[0] <= max_rows:
                raise ValueError(
                    f"Input `{name}` has {found.shape[0]} rows, where 1 to "
                    f"{max_rows} may be, --max_rows of the server. "
                    "Send the rows in several requests."
                )

    def check_outputs(self, signature, names):
        """Raises a `ValueError` unless the signature has these outputs."""
        self._inputs_of(signature)
        known = self.definitions.signature_def[signature].outputs
        for name in names:
            if name not in known:
                raise ValueError(
                    f"Signature `{signature}` has no output `{name[:100]}`. "
                    f"Choose `output_filter` from {sorted(known)}."
                )

    def run(self, signature, inputs):
        """Returns the arrays that the signature makes of checked inputs."""
        specs = self._specs[signature]
        try:
            outputs = self._functions[signature](
                **{
                    name: tf.constant(inputs[name], dtype)
                    for name, (dtype, _) in specs.items()
                }
            )
        except tf.errors.InvalidArgumentError as error:
            raise invalid(_trimmed(error.message)) from None
        return {name: _array(tensor) for name, tensor in outputs.items()}

    def warm_up(self, max_bytes):
        """Runs the requests exported with the model; returns how many."""
        path = os.path.join(
            self.path, "assets.extra", "tf_serving_warmup_requests"
        )
        if not os.path.exists(path):
            return 0
        number = 0
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            number += 1
            if number > _MAX_WARM_UPS:
                raise ValueError(
                    f"{path} has more than {_MAX_WARM_UPS} requests."
                )
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if not log.HasField("predict_log"):
                raise ValueError(
                    f"Request {number} of {path} is a "
                    f"{log.WhichOneof('log_type')}, but only predict_log can "
                    "be replayed."
                )
            request = log.predict_log.request
            signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
            inputs = tensors.convert(
                "Input",
                request.inputs,
                lambda _, proto: tensors.from_proto(proto, max_bytes),
            )
            self.check(signature, inputs, max_rows=2**31)
            self.run(signature, inputs)
        return number


def _read_definitions(path):
    """Signatures of the graph that is tagged for serving."""
    path = os.path.join(path, "saved_model.pb")
    with open(path, "rb") as file:
        content = file.read()
    try:
        graphs = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    except DecodeError:
        raise ValueError(
            f"{path} is not a SavedModel. Export it again."
        ) from None
    for graph in graphs:
        if "serve" in graph.meta_info_def.tags:
            # Copies, or the whole graph would stay in memory.
            definitions = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in graph.signature_def.items():
                definitions.signature_def[name].CopyFrom(definition)
            return definitions
    raise ValueError(f'{path} has no graph with the tag "serve".')


def _spec(name, info):
    """Dtype and shape of an input; None where the rank is unknown."""
    if info.WhichOneof("encoding") != "name":
        raise ValueError(f"Input `{name}` is no dense tensor.")
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(dim.size for dim in info.tensor_shape.dim)
    return tf.as_dtype(info.dtype).name, shape


def _has_fixed_rows(definition):
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return any(
        not info.tensor_shape.unknown_rank
        and [dim.size for dim in info.tensor_shape.dim][:1] != [-1]
        for info in infos
    )


def _fits(shape, expected):
    return expected is None or (
        len(shape) == len(expected)
        and all(e in (-1, size) for size, e in zip(shape, expected))
    )


def _array(tensor):
    # NumPy's own bytes lose trailing zeros.
    dtype = object if tensor.dtype == tf.string else None
    return np.asarray(tensor.numpy(), dtype)


def _trimmed(message):
    """What the graph complained about, without where in its source."""
    message = re.split(r"\s*\[\[?\{\{|\s*\[Op:", message)[0]
    # The longer form begins with the node and the stack of its making.
    noise = ("Graph execution error", "Detected at node", "<stack", "Node: ")
    lines = [
        line
        for line in message.splitlines()
        if line.strip() and not line.startswith((*noise, "  "))
    ]
    return "\n".join(lines)[:1000] or "The graph refused the inputs."
