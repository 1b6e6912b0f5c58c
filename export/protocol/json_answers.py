"""JSON that answers a request over HTTP."""

import json

from starlette.responses import JSONResponse


class JSON(JSONResponse):
    """In ASCII: a message may quote half a surrogate pair."""

    def render(self, content):
        return json.dumps(content).encode()


def error(status, message, headers=None):
    """Returns the response that says what is wrong."""
    return JSON({"error": message}, status, headers)
