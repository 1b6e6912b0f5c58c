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
    """
    program = Path(folder) / "run_saved_model"
    libraries = tf.sysconfig.get_lib()
    done = subprocess.run(
        [
            *("gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"),
            # As a system's headers: their warnings are not ours.
            *("-isystem", tf.sysconfig.get_include()),
            *(str(SOURCE), "-o", str(program), f"-L{libraries}"),
            *(f"-l:{name}" for name in LIBRARIES),
            f"-Wl,-rpath,{libraries}",
            # Where it is there, it takes a third of the time.
            *(["-fuse-ld=gold"] if shutil.which("ld.gold") else []),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{SOURCE} does not compile:\n{done.stderr}"
    return program


def run(program, saved_model, requests):
    """Loads a SavedModel once and runs requests one after another.

    Nothing is converted on the way: an input of a wrong type is TensorFlow's
    to refuse, as it would be in Serving.

    Args:
        program: What `build` returned.
        saved_model: Folder of the SavedModel.
        requests: List of pairs (signature, {input name: array}); strings are
            arrays of objects.

    Returns:
        For each request a dictionary from output name to array; strings come
        as arrays of bytes.

    Raises:
        RuntimeError: If TensorFlow reports an error: its message.
    """
    saved = (Path(saved_model) / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(saved).meta_graphs
    signatures = graph.signature_def
    with tempfile.TemporaryDirectory() as folder:
        request_file = Path(folder) / "requests"
        response_file = Path(folder) / "responses"
        with open(request_file, "wb") as file:
            file.write(struct.pack("<I", len(requests)))
            for name, inputs in requests:
                _write_request(file, signatures[name], inputs)
        done = subprocess.run(
            [program, saved_model, request_file, response_file],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
        if done.returncode:
            # What precedes the mark is TensorFlow's chatter.
            mark = "run_saved_model: error: "
            message = done.stderr.partition(mark)[2].strip()
            raise RuntimeError(message or f"exit code {done.returncode}")
        file = io.BytesIO(response_file.read_bytes())
    return [
        {key: _read_tensor(file) for key in sorted(signatures[name].outputs)}
        for name, _ in requests
    ]


def _write_request(file, signature, inputs):
    file.write(struct.pack("<I", len(inputs)))
    for name, array in inputs.items():
        _write_text(file, signature.inputs[name].name)
        _write_tensor(file, array)
    file.write(struct.pack("<I", len(signature.outputs)))
    for name in sorted(signature.outputs):
        _write_text(file, signature.outputs[name].name)


def _write_text(file, text):
    data = text.encode()
    file.write(struct.pack("<I", len(data)) + data)


def _write_tensor(file, array):
    dtype = tf.as_dtype(array.dtype)  # of objects tf.string
    file.write(struct.pack("<II", dtype.as_datatype_enum, array.ndim))
    file.write(struct.pack(f"<{array.ndim}q", *array.shape))
    if dtype == tf.string:
        items = [item.encode() for item in array.flat]
    else:
        items = [array.tobytes()]
    for data in items:
        file.write(struct.pack("<Q", len(data)) + data)


def _read_tensor(file):
    def unpack(form):
        return struct.unpack(form, file.read(struct.calcsize(form)))

    code, rank = unpack("<II")
    shape = unpack(f"<{rank}q")
    dtype = tf.as_dtype(code)
    if dtype == tf.string:
        items = [file.read(*unpack("<Q")) for _ in range(math.prod(shape))]
        return np.array(items, object).reshape(shape)
    data = file.read(*unpack("<Q"))
    return np.frombuffer(data, dtype.as_numpy_dtype).reshape(shape)
