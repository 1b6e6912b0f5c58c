"""Requests that a server answers before it takes others."""

import tempfile

import tensorflow as tf

from acnn_tf import servable

FILE = "tf_serving_warmup_requests"


def files(model_name, model, index=None):
    """The warm-up requests of a servable, one for each signature.

    The first request of a graph is slow: operations are placed and memory is
    found. TensorFlow Serving reads `assets.extra/tf_serving_warmup_requests`
    when it loads a version, and answers what it holds before the version
    counts as available.

    Args:
        model_name: Its name on the server.
        model: One of `acnn_tf.models`.
        index: As for `acnn_tf.servable.export`.

    Returns:
        Dictionary from the name of the file to its bytes: what `export` takes
        as `assets_extra`.
    """
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "Warm-up requests need the protos of TensorFlow Serving: "
            "pip install 'acnn_tf[serving]'."
        ) from error
    inputs = servable.example_inputs(model)
    if index is None:
        del inputs["search"]
    with tempfile.NamedTemporaryFile() as file:
        with tf.io.TFRecordWriter(file.name) as writer:
            for signature, arrays in inputs.items():
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                for name, array in arrays.items():
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
                writer.write(log.SerializeToString())
        return {FILE: file.read()}
