"""TensorFlow Serving's calls over gRPC, by its official protos.

These bring TensorFlow, which takes seconds to import; hence a file apart.
"""

import grpc
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export.protocol import tensors
from export.protocol.errors import ServingError, unreadable
from export.protocol.rest_client import read_signatures, seconds_left

# TensorFlow Serving's own limit is 2 GB, that of a gRPC client 4 MB.
_MAX_BYTES = 256 * 2**20

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", _MAX_BYTES),
    ("grpc.max_receive_message_length", _MAX_BYTES),
    # The retries are `Client`'s. A channel that lost its server has to knock
    # as often as they do, or they hear of the last knock only.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class GRPCConnection:
    """The calls over gRPC, of an address `"HOST:PORT"`."""

    def __init__(self, address, model, version):
        self._model = model
        self._version = version
        self._channel = grpc.insecure_channel(address, _CHANNEL_OPTIONS)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )

    def predict(self, inputs, signature, _, deadline):
        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = signature
        protos = tensors.convert(
            "Input", inputs, lambda _, array: tensors.to_proto(array)
        )
        for name, proto in protos.items():
            request.inputs[name].CopyFrom(proto)
        response = self._call(self._predictions.Predict, request, deadline)
        try:
            return {
                name: tensors.from_proto(proto)
                for name, proto in response.outputs.items()
            }
        except ValueError as error:
            raise unreadable(error) from None

    def metadata(self, deadline):
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            metadata_field=["signature_def"]
        )
        response = self._call(
            self._predictions.GetModelMetadata, request, deadline
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        # As REST has it, so that both are read the same way.
        definitions = json_format.MessageToDict(
            signatures, preserving_proto_field_name=True
        )
        return {
            "version": response.model_spec.version.value,
            "signatures": read_signatures(definitions),
        }

    def status(self, deadline):
        request = get_model_status_pb2.GetModelStatusRequest()
        response = self._call(self._models.GetModelStatus, request, deadline)
        name_of = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            status.version: name_of(status.state)
            for status in response.model_version_status
        }

    def close(self):
        self._channel.close()

    def _call(self, method, request, deadline):
        request.model_spec.name = self._model
        if self._version is not None:
            request.model_spec.version.value = self._version
        try:
            return method(request, timeout=seconds_left(deadline))
        except grpc.RpcError as error:
            message = error.details() or "no details"
            raise ServingError(error.code().name, message) from None
