"""Runs the signatures of a SavedModel through TensorFlow's C API.

    python -m tests.c_runner LIBRARY SAVED_MODEL

loads that library, and no module of TensorFlow. What TensorFlow Serving stands
on: the graph tagged "serve" is read, its init op run, and tensors are fed and
fetched by name. What fails here cannot run there, such as an operation that
exists in Python only. Requests come pickled from stdin, and answers go so to
stdout; their tensors are serialized.
"""

import ctypes
import functools
import pickle
import subprocess
import sys
from pathlib import Path


class Output(ctypes.Structure):
    """TF_Output: an operation, and which of its outputs."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def main(library, saved_model):
    """Frees nothing: the process ends soon."""
    library = ctypes.CDLL(library)

    def call(name, *arguments):
        """Calls a function whose whole numbers are as wide as pointers."""
        function = getattr(library, name)
        function.restype = ctypes.c_void_p
        return function(
            *(
                ctypes.c_void_p(x) if isinstance(x, int) else x
                for x in arguments
            )
        )

    status, graph = call("TF_NewStatus"), call("TF_NewGraph")

    def checked(name, *arguments):
        found = call(name, *arguments, status)
        if call("TF_GetCode", status):
            message = ctypes.string_at(call("TF_Message", status))
            sys.exit(message.decode(errors="replace"))
        return found

    def output(name):
        operation, _, index = name.partition(":")
        operation = call("TF_GraphOperationByName", graph, operation.encode())
        return Output(operation, int(index))

    @functools.cache
    def serialized(name):
        made = f"{name.replace(':', '_')}_serialized".encode()
        made = call("TF_NewOperation", graph, b"SerializeTensor", made)
        call("TF_AddInput", made, output(name))
        return Output(checked("TF_FinishOperation", made), 0)

    def tensor(proto):
        found = call("TF_AllocateTensor", 1, None, 0, 4)  # of another type
        buffer = call("TF_NewBufferFromString", proto, len(proto))
        checked("TF_TensorFromProto", buffer, found)
        return found

    def content(tensor):
        text = call("TF_TensorData", tensor)
        start = call("TF_StringGetDataPointer", text)
        return ctypes.string_at(start, call("TF_StringGetSize", text))

    session = checked(
        "TF_LoadSessionFromSavedModel",
        *(call("TF_NewSessionOptions"), None, saved_model.encode()),
        *((ctypes.c_char_p * 1)(b"serve"), 1, graph, None),
    )

    def run(inputs, outputs):
        count, fetched = len(inputs), (ctypes.c_void_p * len(outputs))()
        checked(
            "TF_SessionRun",
            *(session, None, (Output * count)(*map(output, inputs))),
            *((ctypes.c_void_p * count)(*map(tensor, inputs.values())), count),
            *((Output * len(outputs))(*outputs), fetched),
            *(len(outputs), None, 0, None),
        )
        return [content(found) for found in fetched]

    # Operations are added before the first run, which prepares the graph.
    requests = [
        (inputs, [*map(serialized, names)])
        for inputs, names in pickle.load(sys.stdin.buffer)
    ]
    return [run(*request) for request in requests]


def run(saved_model, requests):
    """Runs requests, pairs of a signature and its inputs, one after another.

    Returns for each a dictionary from output name to array. Skips a test where
    TensorFlow brings no library.
    """
    import pytest
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    library = Path(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2")
    if not library.exists():
        pytest.skip(f"{library} is not there")
    saved = Path(saved_model, "saved_model.pb").read_bytes()
    (meta,) = saved_model_pb2.SavedModel.FromString(saved).meta_graphs
    asked = []
    for name, arrays in requests:
        signature = meta.signature_def[name]
        inputs = {
            signature.inputs[key].name: tf.make_tensor_proto(
                array
            ).SerializeToString()
            for key, array in arrays.items()
        }
        asked.append((inputs, [o.name for o in signature.outputs.values()]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.c_runner", library, saved_model],
        cwd=Path(__file__).resolve().parents[1],
        input=pickle.dumps(asked),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [
        {
            key: tf.make_ndarray(tensor_pb2.TensorProto.FromString(content))
            for key, content in zip(meta.signature_def[name].outputs, answer)
        }
        for (name, _), answer in zip(requests, pickle.loads(done.stdout))
    ]


if __name__ == "__main__":
    answers = main(*sys.argv[1:])
    assert not {"keras", "tensorflow"} & set(sys.modules)
    sys.stdout.buffer.write(pickle.dumps(answers))
