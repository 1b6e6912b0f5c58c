"""One version of a model: a SavedModel whose signatures can be run."""

import os
import re

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from export.protocol import tensors

DEFAULT_SIGNATURE = "serving_default"
# TensorFlow Serving's limit too.
_MAX_WARM_UPS = 1000


class ServingError(Exception):
    """A request that is not answered, and why.

    Args:
        code: A `grpc.StatusCode`.
        message: What was expected, what came and what to do.
    """

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def invalid(message):
    """Returns the error for a request that can never succeed."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


class Servable:
    """A loaded SavedModel. Any thread may run it.

    Args:
        path: Folder of the SavedModel.
        version: Integer, the folder's name.

    Attributes:
        signature_defs: Every `SignatureDef` by its name.
        unmergeable: Names of signatures whose requests must run one by one:
            a number of rows is fixed, or the outputs have others.
    """

    def __init__(self, path, version):
        self.path = path
        self.version = version
        self.signature_defs = _read_signature_defs(path)
        # The functions alone do not keep their variables alive.
        self._loaded = tf.saved_model.load(path)
        self._functions = dict(self._loaded.signatures)
        self._specs = {
            name: {
                key: _spec(key, info)
                for key, info in self.signature_defs[name].inputs.items()
            }
            for name in self._functions
        }
        self.unmergeable = {
            name
            for name in self._functions
            if _has_fixed_rows(self.signature_defs[name])
        }

    def dtypes(self, signature):
        """Names of the dtypes of a signature's inputs."""
        return {
            k: dtype for k, (dtype, _) in self._inputs_of(signature).items()
        }

    def _inputs_of(self, signature):
        if signature not in self._specs:
            raise invalid(
                f"The model has no signature `{signature}`. Set "
                f"`signature_name` to one of {sorted(self._specs)}."
            )
        return self._specs[signature]

    def check(self, signature, inputs):
        """Raises a `ServingError` unless the signature takes these arrays."""
        specs = self._inputs_of(signature)
        if inputs.keys() != specs.keys():
            missing = sorted(specs.keys() - inputs.keys())
            unknown = sorted(inputs.keys() - specs.keys())
            raise invalid(
                f"The inputs of signature `{signature}` are {sorted(specs)}. "
                f"Missing: {missing}. Unknown: {unknown[:8]}."
            )
        for name, (dtype, shape) in specs.items():
            array = inputs[name]
            found = tensors.dtype_name(array)
            if found != dtype:
                raise invalid(
                    f"Input `{name}` must be {dtype}, but is {found}. "
                    "Convert it before sending."
                )
            if not _fits(array.shape, shape):
                raise invalid(
                    f"Input `{name}` must have shape "
                    f"{tensors.format_shape(shape)}, with any size for `?`, "
                    f"but has {tensors.format_shape(array.shape)}."
                )

    def check_outputs(self, signature, names):
        """Raises a `ServingError` unless the signature has these outputs."""
        self._inputs_of(signature)
        known = self.signature_defs[signature].outputs
        for name in names:
            if name not in known:
                raise invalid(
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
        """Runs the requests that were exported with the model.

        Returns:
            How many there were.
        """
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
            inputs = read_inputs(request.inputs, max_bytes)
            self.check(signature, inputs)
            self.run(signature, inputs)
        return number


def read_inputs(protos, max_bytes):
    """Returns the arrays of a request's TensorProtos by their names."""
    inputs = {}
    for name, proto in protos.items():
        try:
            inputs[name] = tensors.from_proto(proto, max_bytes)
        except ValueError as error:
            raise invalid(f"Input `{name[:100]}` is {error}") from None
    return inputs


def _read_signature_defs(path):
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
            # A copy, or the whole graph would stay in memory.
            return {
                name: meta_graph_pb2.SignatureDef.FromString(
                    definition.SerializeToString()
                )
                for name, definition in graph.signature_def.items()
            }
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
    value = tensor.numpy()
    # NumPy's own bytes lose trailing zeros.
    return (
        np.array(value, object)
        if tensor.dtype == tf.string
        else np.asarray(value)
    )


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
