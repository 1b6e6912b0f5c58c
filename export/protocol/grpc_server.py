"""TensorFlow Serving's services over gRPC."""

import time

import grpc
from absl import logging
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from export.protocol import tensors, wire
from export.protocol.answers import LARGE_BODY
from export.protocol.batching import Call
from export.protocol.errors import ServingError, failed, invalid
from export.protocol.signatures import DEFAULT_SIGNATURE

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
            # What is not asked for yet is not received: 64 KiB of each request.
            ("grpc.http2.bdp_probe", 0),
            # Or a second server could share the port unnoticed.
            ("grpc.so_reuseport", 0),
        ],
    )
    for name, methods in {
        "PredictionService": {
            "Predict": _predict,
            "GetModelMetadata": _metadata,
        },
        "ModelService": {
            "GetModelStatus": _status,
        },
    }.items():
        handlers = {
            # One message comes, as of a unary method. But it is received, into
            # memory, when it is asked for, and it comes as bytes.
            method: grpc.stream_unary_rpc_method_handler(
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
    async def handle(_, context):
        try:
            return await function(service, context)
        except ServingError as error:
            code, details = error.code, error.message[:_MAX_DETAILS]
        except Exception:
            logging.exception("A request failed.")
            code, details = failed().code, failed().message
        # Not in the clauses above: gRPC keeps what `abort` raises, that would
        # keep `error`, its traceback and the version that it was about.
        await context.abort(grpc.StatusCode[code], details)

    return handle


async def _receive(service, context):
    async with service.room.arriving():
        body = await context.read()
    if body is grpc.aio.EOF:
        raise invalid("The request has no message.")
    return body


async def _read(service, context, proto_class):
    """The message of a request that has to be small."""
    async with service.limited():
        body = await _receive(service, context)
    if len(body) > LARGE_BODY:
        raise invalid(
            f"A {proto_class.__name__} has up to {LARGE_BODY} bytes, not "
            f"{len(body)}."
        )
    return _parse(proto_class, body)


def _parse(proto_class, body):
    try:
        return proto_class.FromString(body)
    except DecodeError:
        raise invalid(
            f"The request must have a {proto_class.__name__}, but these "
            f"{len(body)} bytes are none."
        ) from None


async def _predict(service, context):
    def read(body):
        try:
            request = wire.fields(body)
            model_spec = bytes(wire.joined(request.get(1, [b""])))
            if len(model_spec) > LARGE_BODY:
                raise ValueError("its `model_spec` is too large.")
            output_filter = [_text(name) for name in request.get(3, [])]
            messages = dict(map(_entry, request.get(2, [])))
        except ValueError as error:
            raise invalid(
                f"The request must be a PredictRequest, but {error}"
            ) from None
        model_spec = _parse(model_pb2.ModelSpec, model_spec)
        servable = service.versions.find(model_spec)
        signature = model_spec.signature_name or DEFAULT_SIGNATURE
        servable.check_outputs(signature, output_filter)
        found = tensors.convert(
            "Input", messages, lambda _, message: tensors.WireTensor(message)
        )
        servable.check(signature, found, service.max_rows)
        inputs = tensors.convert(
            "Input", found, lambda _, one: one.array(service.max_body_bytes)
        )
        return Call(servable, signature, inputs, tuple(output_filter))

    def write(call, outputs):
        response = predict_pb2.PredictResponse()
        _fill(response.model_spec, service, call.servable, call.signature)
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tensors.to_proto(value))
        return response.SerializeToString()

    seconds = context.time_remaining()
    deadline = None if seconds is None else time.monotonic() + seconds
    return await service.answer(
        "grpc", lambda: _receive(service, context), read, write, deadline
    )


def _entry(message):
    """Name and TensorProto of an entry of a map."""
    found = wire.fields(message)
    name = _text(found.get(1, [b""])[-1])
    return name, wire.joined(found.get(2, [b""]))


def _text(view):
    try:
        return bytes(view).decode()
    except UnicodeDecodeError:
        raise ValueError("a name in it is not UTF-8.") from None


def _fill(model_spec, service, servable, signature=""):
    model_spec.name = service.versions.model_name
    model_spec.version.value = servable.version
    model_spec.signature_name = signature


async def _metadata(service, context):
    proto_class = get_model_metadata_pb2.GetModelMetadataRequest
    request = await _read(service, context, proto_class)
    servable = service.versions.find(request.model_spec)
    if list(request.metadata_field) != ["signature_def"]:
        raise invalid(
            '`metadata_field` must be ["signature_def"]. '
            f"Received: {str(list(request.metadata_field))[:200]}"
        )
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    _fill(response.model_spec, service, servable)
    response.metadata["signature_def"].Pack(servable.definitions)
    return response.SerializeToString()


async def _status(service, context):
    proto_class = get_model_status_pb2.GetModelStatusRequest
    request = await _read(service, context, proto_class)
    return service.versions.status(request.model_spec).SerializeToString()
