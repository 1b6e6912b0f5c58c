"""Runs the signatures of a SavedModel through TensorFlow's C API.

What TensorFlow Serving stands on: what fails here cannot run there.
`run_saved_model.c` is the program; here it is built and spoken to.
"""

import io
import math
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

SOURCE = Path(__file__).with_name("run_saved_model.c")
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")


def why_not():
    """Returns why the program cannot be built here, None where it can."""
    if shutil.which("gcc") is None:
        return "no gcc, which builds tests/run_saved_model.c"
    folder = Path(tf.sysconfig.get_lib())
    missing = [name for name in LIBRARIES if not (folder / name).exists()]
    return f"{folder} has no {', '.join(missing)}" if missing else None


def build(folder):
    """Compiles the program against the TensorFlow of this interpreter.

    Args:
        folder: Where to put it.

    Returns:
        Path of the program.

    Raises:
        RuntimeError: If gcc has anything to say: its words.
    """
    program = Path(folder) / "run_saved_model"
    libraries = tf.sysconfig.get_lib()
    done = subprocess.run(
        [
            "gcc",
            "-std=c11",
            "-O1",
            *("-Wall", "-Wextra", "-Werror"),
            # As a system's headers: their warnings are not ours.
            *("-isystem", tf.sysconfig.get_include()),
            str(SOURCE),
            *("-o", str(program)),
            f"-L{libraries}",
            *(f"-l:{name}" for name in LIBRARIES),
            f"-Wl,-rpath,{libraries}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{SOURCE.name} does not compile:\n{done.stderr}")
    return program


def read_signatures(saved_model):
    """Returns signature name -> `SignatureDef` of a SavedModel's folder."""
    path = Path(saved_model) / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in message.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return dict(graph.signature_def)
    raise ValueError(f'{path} has no graph with the tag "serve"')


def run(program, saved_model, requests, *, timeout=60):
    """Loads a SavedModel once and runs requests one after another.

    Nothing is converted on the way: an input of a wrong type is TensorFlow's
    to refuse, as it would be in Serving.

    Args:
        program: What `build` returned.
        saved_model: Folder of the SavedModel.
        requests: List of pairs (signature, {input name: array}). Strings are
            lists, or arrays, of str or bytes.
        timeout: Float, seconds that all may take.

    Returns:
        For each request a dictionary from output name to array; strings come
        as arrays of bytes.

    Raises:
        RuntimeError: If TensorFlow reports an error: its message.
        ValueError: If there is no such signature, or it has no such input.
    """
    signatures = read_signatures(saved_model)
    names = [
        sorted(_signature(signatures, name).outputs) for name, _ in requests
    ]
    with tempfile.TemporaryDirectory() as folder:
        request_file = Path(folder) / "requests"
        response_file = Path(folder) / "responses"
        with open(request_file, "wb") as file:
            file.write(struct.pack("<I", len(requests)))
            for (name, inputs), outputs in zip(requests, names):
                _write_request(file, signatures[name], inputs, outputs)
        done = subprocess.run(
            [program, saved_model, request_file, response_file],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            # What precedes the mark is TensorFlow's chatter.
            mark = "run_saved_model: error: "
            message = done.stderr.partition(mark)[2].strip()
            raise RuntimeError(message or f"exit code {done.returncode}")
        file = io.BytesIO(response_file.read_bytes())
    return [{name: _read_tensor(file) for name in outs} for outs in names]


def _signature(signatures, name):
    if name not in signatures:
        raise ValueError(
            f"no signature {name!r}: the SavedModel has {sorted(signatures)}"
        )
    return signatures[name]


def _write_request(file, signature, inputs, outputs):
    file.write(struct.pack("<I", len(inputs)))
    for name, value in inputs.items():
        if name not in signature.inputs:
            raise ValueError(
                f"no input {name!r}: the signature takes "
                f"{sorted(signature.inputs)}"
            )
        _write_text(file, signature.inputs[name].name)
        _write_tensor(file, value)
    file.write(struct.pack("<I", len(outputs)))
    for name in outputs:
        _write_text(file, signature.outputs[name].name)


def _write_text(file, text):
    data = text.encode()
    file.write(struct.pack("<I", len(data)) + data)


def _write_tensor(file, value):
    # Of a list, objects: NumPy's own strings drop zero bytes at their end.
    is_array = isinstance(value, (np.ndarray, np.generic))
    array = value if is_array else np.asarray(value, dtype=object)
    if not is_array and not isinstance(next(array.flat, ""), (str, bytes)):
        array = np.asarray(value)
    if array.dtype.kind in "USO":
        dtype = tf.string
    else:
        dtype = tf.as_dtype(array.dtype)
    file.write(struct.pack("<II", dtype.as_datatype_enum, array.ndim))
    file.write(struct.pack(f"<{array.ndim}q", *array.shape))
    if dtype == tf.string:
        for item in array.flat:
            data = item.encode() if isinstance(item, str) else bytes(item)
            file.write(struct.pack("<Q", len(data)) + data)
    else:
        data = array.tobytes()
        file.write(struct.pack("<Q", len(data)) + data)


def _read_tensor(file):
    def unpack(form):
        return struct.unpack(form, file.read(struct.calcsize(form)))

    code, rank = unpack("<II")
    shape = unpack(f"<{rank}q")
    dtype = tf.as_dtype(code)
    if dtype == tf.string:
        items = [file.read(unpack("<Q")[0]) for _ in range(math.prod(shape))]
        array = np.empty(len(items), dtype=object)
        array[:] = items
    else:
        array = np.frombuffer(file.read(unpack("<Q")[0]), dtype.as_numpy_dtype)
    return array.reshape(shape)
