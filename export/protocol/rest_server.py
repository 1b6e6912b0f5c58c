"""TensorFlow Serving's REST interface, as an ASGI application."""

import json

import prometheus_client
from absl import logging
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from tensorflow_serving.apis import model_pb2

from export.protocol import bodies
from export.protocol.batching import Call
from export.protocol.errors import HTTP_STATUS, ServingError, invalid
from export.protocol.signatures import DEFAULT_SIGNATURE

_METRICS_PATH = "/monitoring/prometheus/metrics"
_INDEX = """\
The model {name}, by TensorFlow Serving's protocol. This is not TensorFlow
Serving itself.

GET  /v1/models/{name}               which versions there are
GET  /v1/models/{name}/metadata      signatures, inputs, outputs
POST /v1/models/{name}:predict       {{"instances": [...]}}, {{"inputs": ...}}
     /v1/models/{name}/versions/N... the same of one version
GET  {metrics}   for Prometheus
"""


def make_app(service):
    """Returns the Starlette application."""
    routes = [
        Route("/", _handler(service, _index)),
        Route(_METRICS_PATH, _handler(service, _metrics)),
    ]
    for version in ("", "/versions/{version:int}", "/labels/{label}"):
        path = "/v1/models/{name}" + version
        # Before the status, whose name would take in the `:predict`.
        routes += [
            Route(
                path + ":predict", _handler(service, _predict), methods=["POST"]
            ),
            Route(
                path + ":{method:str}",
                _handler(service, _unimplemented),
                methods=["POST"],
            ),
            Route(path + "/metadata", _handler(service, _metadata)),
            Route(path, _handler(service, _status)),
        ]
    return Starlette(
        routes=routes, exception_handlers={HTTPException: _http_error}
    )


def _handler(service, function):
    async def handle(request):
        try:
            return await function(service, request)
        except ServingError as error:
            return _error(HTTP_STATUS[error.code], error.message)
        except HTTPException as error:
            return await _http_error(request, error)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            logging.exception("%s %s failed.", request.method, request.url.path)
            return _error(500, "The server failed. Its log has more.")

    return handle


async def _http_error(request, error):
    hint = ""
    if error.status_code in (404, 405):
        hint = f": {request.method} {request.url.path}. GET / lists what is."
    return _error(error.status_code, error.detail + hint, error.headers)


def _error(status, message, headers=None):
    return _JSON({"error": message}, status, headers)


class _JSON(JSONResponse):
    """In ASCII: a message may quote half a surrogate pair."""

    def render(self, content):
        return json.dumps(content).encode()


async def _index(service, request):
    return PlainTextResponse(
        _INDEX.format(name=service.versions.model_name, metrics=_METRICS_PATH)
    )


async def _metrics(service, request):
    return Response(
        prometheus_client.generate_latest(service.metrics.registry),
        media_type=prometheus_client.CONTENT_TYPE_LATEST,
    )


async def _unimplemented(service, request):
    raise ServingError(
        "UNIMPLEMENTED",
        f"There is no `:{request.path_params['method'][:100]}` here, only "
        "`:predict`.",
    )


def _model_spec(request):
    params = request.path_params
    spec = model_pb2.ModelSpec(name=params["name"])
    if "version" in params:
        if params["version"] >= 2**63:
            raise invalid("The version in the path must be below 2**63.")
        spec.version.value = params["version"]
    if "label" in params:
        spec.version_label = params["label"]
    return spec


async def _predict(service, request):
    service.batcher.check_not_full()
    spec = _model_spec(request)
    body = await _read_body(request, service.max_body_bytes)
    by_row = False

    def read(body):
        nonlocal by_row
        parsed = bodies.parse_json(body)
        servable = service.versions.find(spec)
        signature = parsed.get("signature_name", DEFAULT_SIGNATURE)
        if not isinstance(signature, str):
            raise ValueError("`signature_name` must be a string.")
        signature = signature or DEFAULT_SIGNATURE
        dtypes = servable.dtypes(signature)
        inputs, by_row = bodies.inputs_from_json(parsed, dtypes)
        servable.check(signature, inputs)
        return Call(servable, signature, inputs)

    def write(call, outputs):
        return json.dumps(bodies.outputs_to_json(outputs, by_row)).encode()

    answer = await service.answer("rest", body, read, write)
    return Response(answer, media_type="application/json")


async def _read_body(request, max_bytes):
    length = request.headers.get("content-length", "0")
    parts, size = [], int(length) if length.isdecimal() else 0
    if size <= max_bytes:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > max_bytes:
                break
            parts.append(part)
    if size > max_bytes:
        # What is left unread would pass for the next request.
        raise HTTPException(
            413,
            f"The body has more than {max_bytes} bytes, --max_body_mb of the "
            "server. Send smaller parts.",
            headers={"connection": "close"},
        )
    if not size:
        raise invalid(
            'The body is empty. Send JSON such as {"instances": [...]}.'
        )
    return b"".join(parts)


async def _status(service, request):
    response = service.versions.status(_model_spec(request))
    return _JSON(_to_dict(response))


async def _metadata(service, request):
    servable = service.versions.find(_model_spec(request))
    spec = {
        "name": service.versions.model_name,
        "signature_name": "",
        "version": str(servable.version),
    }
    metadata = {"signature_def": _to_dict(servable.definitions)}
    return _JSON({"model_spec": spec, "metadata": metadata})


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
