"""A small model with a signature for every kind of trouble, and requests."""

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from export.protocol.tensors import to_proto

X = np.array([[1, 2, 3], [0.1, -5, 7]], np.float32)


def function(*specs):
    return tf.function(
        input_signature=[
            tf.TensorSpec(shape, dtype, name) for name, shape, dtype in specs
        ]
    )


class Model(tf.Module):
    """y = factor * x, and a signature for every kind of trouble."""

    def __init__(self, factor):
        super().__init__()
        self.factor = tf.Variable(float(factor))

    @function(("x", [None, 3], tf.float32))
    def scale(self, x):
        return {"y": self.factor * x}

    @function(("a", [None], tf.int32), ("b", [None, 2], tf.float32))
    def add(self, a, b):
        return {"sum": tf.cast(a, tf.float32)[:, None] + b, "a": a}

    @function(("s", [None], tf.string))
    def text(self, s):
        return {"twice": s + s, "s_bytes": s}

    @function(("x", [None], tf.float32))
    def root(self, x):
        with tf.control_dependencies(
            [
                tf.debugging.Assert(
                    tf.reduce_all(x >= 0), ["x must not be negative:", x]
                )
            ]
        ):
            return {"y": tf.sqrt(x), "rows": tf.fill(tf.shape(x), tf.size(x))}

    @function(("x", [None], tf.float32))
    def total(self, x):
        return {"y": tf.reduce_sum(x)}

    @function(("x", [None, None], tf.float32))
    def norm(self, x):
        return {"y": tf.reduce_sum(x * x, axis=1)}

    @function(("steps", [], tf.int32))
    def slow(self, steps):
        (_, y) = tf.while_loop(
            lambda i, y: i < steps,
            lambda i, y: (i + 1, tf.sin(y)),
            (0, 1.0),
            parallel_iterations=1,
        )
        return {"y": y}


def save(folder, version, factor, warm_up=None):
    model = Model(factor)
    path = folder / str(version)
    # Under another name until it is whole.
    hidden = folder / f"{version}.part"
    names = ("add", "text", "root", "total", "norm", "slow")
    signatures = {name: getattr(model, name) for name in names}
    tf.saved_model.save(
        model, hidden, signatures | {"serving_default": model.scale}
    )
    if warm_up is not None:
        (hidden / "assets.extra").mkdir()
        file = hidden / "assets.extra" / "tf_serving_warmup_requests"
        with tf.io.TFRecordWriter(str(file)) as writer:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(warm_up)
            writer.write(log.SerializeToString())
    hidden.rename(path)
    return path


def request(signature="", **inputs):
    found = predict_pb2.PredictRequest()
    found.model_spec.name = "acnn"
    found.model_spec.signature_name = signature
    for name, value in inputs.items():
        found.inputs[name].CopyFrom(to_proto(value))
    return found
