"""TensorFlow Serving's services over gRPC."""

import time

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from export.protocol import tensors
from export.protocol.batching import Call
from export.protocol.errors import ServingError, invalid
from export.protocol.signatures import DEFAULT_SIGNATURE, read_inputs

# What a trailer of HTTP/2 holds for sure.
_MAX_DETAILS = 2000


def make_server(service):
    """Returns a `grpc.aio.Server` that has no port yet."""
    server = grpc.aio.server(
        # What is sent away at once has been received by then: this many
        # bodies at most. Some to spare, for who asks for the status.
        maximum_concurrent_rpcs=service.batcher.max_calls + 32,
        options=[
            ("grpc.max_receive_message_length", service.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            # Or a second server could share the port unnoticed.
            ("grpc.so_reuseport", 0),
        ],
    )
    # Bodies come as bytes: large ones are parsed off the event loop, and bad
    # ones can be answered with what is wrong.
    for name, methods in {
        "PredictionService": {
            "Predict": _predict,
            "GetModelMetadata": _metadata,
            "Classify": _unimplemented,
            "Regress": _unimplemented,
            "MultiInference": _unimplemented,
        },
        "ModelService": {
            "GetModelStatus": _status,
            "HandleReloadConfigRequest": _unimplemented,
        },
    }.items():
        handlers = {
            method: grpc.unary_unary_rpc_method_handler(
                _handler(service, function)
            )
            for method, function in methods.items()
        }
        handler = grpc.method_handlers_generic_handler(
            f"tensorflow.serving.{name}", handlers
        )
        server.add_generic_rpc_handlers([handler])
    return server


def _handler(service, function):
    async def handle(body, context):
        try:
            return await function(service, body, context)
        except ServingError as error:
            code, details = error.code, error.message[:_MAX_DETAILS]
        # Not in the clause above: gRPC keeps what `abort` raises, that would
        # keep `error`, its traceback and the version that it was about.
        await context.abort(grpc.StatusCode[code], details)

    return handle


async def _unimplemented(service, body, context):
    raise ServingError(
        "UNIMPLEMENTED",
        "This server has Predict, GetModelMetadata and GetModelStatus only.",
    )


def _parse(proto_class, body):
    try:
        return proto_class.FromString(body)
    except DecodeError:
        raise invalid(
            f"The request must be a {proto_class.__name__}, but its "
            f"{len(body)} bytes are none."
        ) from None


async def _predict(service, body, context):
    def read(body):
        request = _parse(predict_pb2.PredictRequest, body)
        servable = service.versions.find(request.model_spec)
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        servable.check_outputs(signature, request.output_filter)
        inputs = read_inputs(request.inputs, service.max_input_bytes)
        servable.check(signature, inputs)
        return Call(servable, signature, inputs, tuple(request.output_filter))

    def write(call, outputs):
        response = predict_pb2.PredictResponse()
        _fill(response.model_spec, service, call.servable, call.signature)
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tensors.to_proto(value))
        return response.SerializeToString()

    seconds = context.time_remaining()
    deadline = None if seconds is None else time.monotonic() + seconds
    return await service.answer("grpc", body, read, write, deadline)


def _fill(model_spec, service, servable, signature=""):
    model_spec.name = service.versions.model_name
    model_spec.version.value = servable.version
    model_spec.signature_name = signature


async def _metadata(service, body, context):
    request = _parse(get_model_metadata_pb2.GetModelMetadataRequest, body)
    servable = service.versions.find(request.model_spec)
    if list(request.metadata_field) != ["signature_def"]:
        raise invalid(
            '`metadata_field` must be ["signature_def"]. '
            f"Received: {list(request.metadata_field)[:8]}"
        )
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    _fill(response.model_spec, service, servable)
    response.metadata["signature_def"].Pack(servable.definitions)
    return response.SerializeToString()


async def _status(service, body, context):
    request = _parse(get_model_status_pb2.GetModelStatusRequest, body)
    return service.versions.status(request.model_spec).SerializeToString()
