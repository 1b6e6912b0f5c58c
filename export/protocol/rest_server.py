"""TensorFlow Serving's REST interface, as an ASGI application."""

import asyncio
import json

import prometheus_client
from absl import logging
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis import model_pb2

from export.protocol import bodies, json_answers
from export.protocol.answers import LARGE_BODY
from export.protocol.batching import Call
from export.protocol.errors import ServingError, failed, invalid
from export.protocol.signatures import DEFAULT_SIGNATURE
from export.protocol.version_numbers import version_number

_METRICS_PATH = "/monitoring/prometheus/metrics"


def make_app(service):
    """Returns the Starlette application."""
    routes = [
        Route(_METRICS_PATH, _handler(service, _metrics)),
    ]
    for version in ("", "/versions/{version}"):
        path = "/v1/models/{name}" + version
        # Before the status, whose name would take in the `:predict`.
        routes += [
            Route(
                path + ":{method}",
                _handler(service, _call),
                methods=["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"],
            ),
            Route(path + "/metadata", _handler(service, _metadata)),
            Route(path, _handler(service, _status)),
        ]
    return Starlette(
        routes=routes, exception_handlers={HTTPException: _http_error}
    )


async def close_idle(connections, seconds):
    """Closes those of uvicorn's connections that have long had no request.

    uvicorn itself waits for ever for the headers of a request, and for a
    client to take its answer. Here no connection stays twice so long.
    """
    before = {}
    while True:
        await asyncio.sleep(seconds)
        for connection in list(connections):
            request = connection.cycle
            is_over = request is None or request.response_complete
            if is_over and before.get(connection, before) is request:
                connection.transport.abort()
        before = {one: one.cycle for one in connections}


def _handler(service, function):
    async def handle(request):
        try:
            return await function(service, request)
        except ServingError as error:
            # Its traceback has the body, and leads back to it by its task.
            error.with_traceback(None).__context__ = None
            # What is left unread of a body would pass for the next request.
            is_unread = error.http_status in (413, 415)
            headers = {"connection": "close"} if is_unread else None
            return json_answers.error(error.http_status, error.message, headers)
        except HTTPException as error:
            return await _http_error(request, error)
        except Exception:
            logging.exception("A request failed.")
            return json_answers.error(failed().http_status, failed().message)

    return handle


async def _http_error(request, error):
    hint = ""
    if error.status_code in (404, 405):
        path = request.url.path[:200]
        hint = f": {request.method} {path}."
    return json_answers.error(
        error.status_code, error.detail + hint, error.headers
    )


async def _metrics(service, request):
    return Response(
        prometheus_client.generate_latest(service.metrics.registry),
        media_type=prometheus_client.CONTENT_TYPE_LATEST,
    )


async def _call(service, request):
    if request.method != "POST":
        raise HTTPException(405, headers={"allow": "POST"})
    method = request.path_params["method"]
    if method != "predict":
        raise ServingError(
            "UNIMPLEMENTED",
            f"There is no `:{method[:100]}` here, only `:predict`.",
        )
    return await _predict(service, request)


def _model_spec(request):
    params = request.path_params
    spec = model_pb2.ModelSpec(name=params["name"])
    if "version" in params:
        version = version_number(params["version"])
        if version is None:
            raise invalid(
                "The version in the path must be an integer below 2**63 "
                f"without leading zeros. Received: {params['version'][:30]!a}"
            )
        spec.version.value = version
    return spec


async def _predict(service, request):
    service.batcher.check_not_full()
    spec = _model_spec(request)
    by_row = False

    def read(body):
        nonlocal by_row
        parsed = bodies.parse_json(body, service.max_body_bytes)
        servable = service.versions.find(spec)
        signature = parsed.get("signature_name", DEFAULT_SIGNATURE)
        if not isinstance(signature, str):
            raise ValueError("`signature_name` must be a string.")
        signature = signature or DEFAULT_SIGNATURE
        dtypes = servable.dtypes(signature)
        inputs, by_row = bodies.inputs_from_json(parsed, dtypes)
        servable.check(signature, inputs, service.max_rows)
        return Call(servable, signature, inputs)

    def write(call, outputs):
        answer = bodies.outputs_to_json(outputs, by_row, service.max_body_bytes)
        return json.dumps(answer).encode()

    answer = await _unless_left(service, request, read, write)
    return Response(answer, media_type="application/json")


async def _unless_left(service, request, read, write):
    """The answer of the service, which stops if the client goes."""
    is_received = asyncio.Event()

    async def receive():
        body = await _receive(service, request)
        is_received.set()
        return body

    async def left():
        await is_received.wait()
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, left = map(
        asyncio.ensure_future,
        (service.answer("rest", receive, read, write), left()),
    )
    try:
        await asyncio.wait([answer, left], return_when="FIRST_COMPLETED")
        if answer.done():
            return answer.result()
        raise _gone()
    finally:
        answer.cancel()
        left.cancel()
        del answer  # whose error has this frame in its traceback


def _gone():
    return ServingError("CANCELLED", "The client has gone.")


async def _receive(service, request):
    """The body of a request."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise ServingError(
            "INVALID_ARGUMENT",
            f"The body has Content-Encoding: {encoding[:30]}. Send it as it "
            "is, without one.",
            http_status=415,
        )
    length = request.headers.get("content-length", "")
    size = int(length) if length else None  # which HTTP has checked
    if size is not None and size <= LARGE_BODY:
        body = await _read_body(request, LARGE_BODY)
    elif size is None or size <= service.max_body_bytes:
        async with service.room.arriving():
            body = await _read_body(request, service.max_body_bytes)
    else:
        body = None
    if body is None:
        raise ServingError(
            "RESOURCE_EXHAUSTED",
            f"The body has more than {service.max_body_bytes} bytes, "
            "--max_body_mb of the server. Send smaller parts.",
            http_status=413,
        )
    if not body:
        raise invalid(
            'The body is empty. Send JSON such as {"instances": [...]}.'
        )
    return body


async def _read_body(request, max_bytes):
    """The body; `None` where it has more bytes."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > max_bytes:
                return None
    except ClientDisconnect:
        raise _gone() from None
    return body


async def _status(service, request):
    response = service.versions.status(_model_spec(request))
    return json_answers.JSON(_to_dict(response))


async def _metadata(service, request):
    servable = service.versions.find(_model_spec(request))
    spec = {
        "name": service.versions.model_name,
        "signature_name": "",
        "version": str(servable.version),
    }
    metadata = {"signature_def": _to_dict(servable.definitions)}
    return json_answers.JSON({"model_spec": spec, "metadata": metadata})


def _to_dict(message):
    """A message for JSON with all its fields, as TensorFlow Serving has it."""
    names = {"preserving_proto_field_name": True}
    try:
        return json_format.MessageToDict(
            message, always_print_fields_with_no_presence=True, **names
        )
    except TypeError:  # before protobuf 5.26
        return json_format.MessageToDict(
            message, including_default_value_fields=True, **names
        )
