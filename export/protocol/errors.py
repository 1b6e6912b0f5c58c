"""What goes wrong between a client and a server, by gRPC's codes."""

# Of each code the HTTP status that stands for it over REST.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class ServingError(Exception):
    """What a server, or the way to it, answers instead of moments.

    Attributes:
        code: A gRPC code's name, such as `"NOT_FOUND"`, over REST too.
        message: What was expected, what came and what to do.
        http_status: Status of HTTP that says it.
    """

    def __init__(self, code, message, http_status=None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.http_status = http_status or HTTP_STATUS.get(code, 500)


def invalid(message):
    """Returns the error for a request that can never succeed."""
    return ServingError("INVALID_ARGUMENT", message)


def failed():
    """Returns the error for what should not have happened. Log it, too."""
    return ServingError("INTERNAL", "The server failed. Its log has more.")


def unreadable(error):
    """Returns the `ServingError` about outputs that cannot be read."""
    return ServingError(
        "INTERNAL", f"the outputs are not what the signature says: {error}"
    )
