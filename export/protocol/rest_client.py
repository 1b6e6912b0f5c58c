"""TensorFlow Serving's calls over REST, and what they share with gRPC's.

`RESTConnection` and `GRPCConnection` have the same methods: `predict`, given
arrays and what `metadata` tells of the outputs, `metadata`, `status`, `close`.
They ask once, until a deadline on `time.monotonic`, and fail with a
`ServingError` whose code does not depend on the way. `client.py` is for use.
"""

import json
import time
import urllib.parse

import requests
import urllib3

from export.protocol import tensors
from export.protocol.errors import HTTP_STATUS, ServingError, unreadable

_CODES = {status: code for code, status in HTTP_STATUS.items()}
_CODES |= {408: "DEADLINE_EXCEEDED", 413: "RESOURCE_EXHAUSTED"}


class RESTConnection:
    """The calls over REST, of an address `"http://HOST:PORT"`."""

    def __init__(self, address, model, version):
        self._url = f"{address}/v1/models/{urllib.parse.quote(model, safe='')}"
        if version is not None:
            self._url += f"/versions/{version}"
        self._session = requests.Session()

    def predict(self, inputs, signature, infos, deadline):
        columns = tensors.convert(
            "Input", inputs, lambda _, array: tensors.to_json(array)
        )
        request = {"signature_name": signature, "inputs": columns}
        body = json.dumps(request).encode()
        found = self._call("POST", ":predict", deadline, "outputs", body)
        outputs = found["outputs"]
        try:
            # JSON has neither types nor, of a single output, its name.
            if len(infos) == 1:
                outputs = dict.fromkeys(infos, outputs)
            return {
                name: tensors.from_json(value, infos[name]["dtype"])
                for name, value in outputs.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise unreadable(error) from None

    def metadata(self, deadline):
        found = self._call("GET", "/metadata", deadline, "metadata")
        definitions = found["metadata"]["signature_def"]
        return {
            "version": int(found["model_spec"]["version"]),
            "signatures": read_signatures(definitions),
        }

    def status(self, deadline):
        key = "model_version_status"
        found = self._call("GET", "", deadline, key)[key]
        return {int(status["version"]): status["state"] for status in found}

    def close(self):
        self._session.close()

    def _call(self, method, path, deadline, key, body=None):
        """Returns the JSON object of an answer, which must have the `key`."""
        try:
            response = self._session.request(
                method,
                self._url + path,
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=urllib3.Timeout(total=seconds_left(deadline)),
            )
        except requests.RequestException as error:
            # To requests, what stalls half-way is no `Timeout`.
            is_late = isinstance(error, requests.Timeout)
            if is_late or time.monotonic() >= deadline:
                code = "DEADLINE_EXCEEDED"
            elif isinstance(error, requests.ConnectionError):
                code = "UNAVAILABLE"
            else:
                code = "UNKNOWN"
            raise ServingError(code, str(error)) from None
        try:
            found = json.loads(response.content)
        except ValueError:
            found = None
        found = found if isinstance(found, dict) else {}
        if response.status_code == 200 and key in found:
            return found
        code = _CODES.get(response.status_code, "UNKNOWN")
        # Without it, a proxy or another server has answered.
        message = found.get("error") or (
            f"expected JSON with {key!r} from {response.url}, found HTTP "
            f"status {response.status_code}: {response.text[:200]!r}"
        )
        raise ServingError(code, message)


def seconds_left(deadline):
    """Returns the seconds until a deadline; a little where it has passed."""
    return max(deadline - time.monotonic(), 0.001)


def read_signatures(definitions):
    """Makes of a `SignatureDefMap` in JSON what `Client.metadata` returns."""

    def read(infos):
        return {
            name: {
                "dtype": _dtype_name(info),
                "shape": _shape(info.get("tensor_shape", {})),
            }
            for name, info in infos.items()
        }

    return {
        name: {
            "inputs": read(definition.get("inputs", {})),
            "outputs": read(definition.get("outputs", {})),
        }
        for name, definition in definitions.get("signature_def", {}).items()
        # TensorFlow's own, for loading.
        if not name.startswith("__")
    }


def _dtype_name(info):
    """NumPy's word for the dtype: `"float32"` rather than `DT_FLOAT`."""
    name = info.get("dtype", "DT_INVALID").removeprefix("DT_").lower()
    words = {"float": "float32", "double": "float64", "half": "float16"}
    return words.get(name, name)


def _shape(proto):
    if proto.get("unknown_rank"):
        return None
    sizes = [int(dim.get("size", 0)) for dim in proto.get("dim", [])]
    return [None if size < 0 else size for size in sizes]
