"""The page's web application: routes, refusals and headers."""

import contextlib
import hmac
import ipaddress
import logging
import math
import os
import socket
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import anyio
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from acnn_tf.files.atomic import WriteError
from demo.engines import UnknownSentenceError
from demo.library import LibraryError
from export.protocol import json_answers
from export.protocol.errors import ServingError

_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self'; media-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_MOST_MOMENTS = 100
_LONGEST_QUERY = 1000
# Searches at a time, and how many may wait.
_SEARCHES, _WAITING = 4, 200
# Seconds without a byte, after which an upload has ended; and how many bytes a
# second it must bring all in all, after that time.
_STALLED, _SLOWEST = 60, 16 << 10
_CHUNK = 1 << 20


def make_app(library, hosts=(), token=None):
    """Returns the ASGI application.

    Args:
        library: `demo.library.Library`.
        hosts: Names, besides those of this machine for itself, that a request
            may call the page by; `"*"` is any address, but no other name.
        token: String that a request must bring, if any.
    """
    page = _Page(library)
    app = Starlette(
        routes=[
            Route("/", page.index),
            Route("/api/search", page.search),
            Route("/api/videos", page.videos, methods=["GET"]),
            Route("/api/videos", page.upload, methods=["POST"]),
            Route("/api/videos/{video_id}", page.remove, methods=["DELETE"]),
            Route("/api/videos/{video_id}/curve", page.curve),
            Route("/api/videos/{video_id}/attention", page.attention),
            Route("/media/{video_id}", page.media),
            Route("/preview/{video_id}", page.preview),
            Route("/frame/{video_id}", page.frame),
            Mount("/static", StaticFiles(directory=_STATIC, check_dir=False)),
        ],
        exception_handlers={
            HTTPException: _refused,
            LibraryError: _refused_by_library,
            UnknownSentenceError: _unknown,
            ServingError: _server_failed,
            WriteError: _disk_full,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
    )
    return _Guard(app, hosts, token)


def is_loopback(host):
    """Whether an address is one of this machine for itself."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class _Page:
    """What the routes do."""

    def __init__(self, library):
        self._library = library
        self._searching = anyio.CapacityLimiter(_SEARCHES)
        self._files = anyio.CapacityLimiter(8)
        self._frames = anyio.CapacityLimiter(2)

    async def index(self, request):
        return _file(_STATIC / "index.html", "text/html", "no-cache")

    async def search(self, request):
        params = request.query_params
        query = _query(params)
        top = _number(params, "top", 5, int, 1, _MOST_MOMENTS)
        video_ids = params.getlist("video") or None
        found = await self._find(self._library.search, query, top, video_ids)
        return JSONResponse(
            {
                "query": query,
                "unknown_words": list(found.unknown_words),
                # No score of a server is a likelihood.
                "is_mostly_known": getattr(found, "is_mostly_known", True),
                "moments": [moment._asdict() for moment in found],
            }
        )

    async def curve(self, request):
        query = _query(request.query_params)
        self._check_model()
        video_id = request.path_params["video_id"]
        return JSONResponse(
            await self._find(self._library.curve, video_id, query)
        )

    async def attention(self, request):
        params = request.query_params
        query = _query(params)
        segment = [
            _number(params, key, None, float, 0, 1e9)
            for key in ("start", "end")
        ]
        self._check_model()
        video_id = request.path_params["video_id"]
        return JSONResponse(
            await self._find(self._library.attention, video_id, query, segment)
        )

    async def _find(self, function, *arguments):
        if self._searching.statistics().tasks_waiting >= _WAITING:
            raise HTTPException(
                503, "Too many searches are waiting; try again in a moment."
            )
        return await run_sync(function, *arguments, limiter=self._searching)

    def _check_model(self):
        if not self._library.engine.has_curve:
            raise HTTPException(
                501,
                "The model is on a server, which answers with moments alone.",
            )

    async def videos(self, request):
        tag = self._library.tag
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return JSONResponse(self._library.videos(), headers=headers)

    async def upload(self, request):
        most = self._library.limits.upload_bytes
        length = request.headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal():
            raise HTTPException(400, "Content-Length must be a number.")
        _check_size(int(length), most)
        self._library.check_room(int(length))
        title = request.query_params.get("name", "")
        async with self._in_threads(self._library.receiving(title)) as upload:
            size, begin = 0, anyio.current_time()
            file = await run_sync(open, upload.path, "wb", limiter=self._files)
            try:
                stream = request.stream()
                while True:
                    latest = begin + _STALLED + size / _SLOWEST
                    wait = min(_STALLED, latest - anyio.current_time())
                    with anyio.move_on_after(wait) as waiting:
                        part = await anext(stream, None)
                    if waiting.cancelled_caught:
                        raise HTTPException(
                            408,
                            "The upload came too slowly, or stopped; try "
                            "again.",
                            headers={"connection": "close"},
                        )
                    if part is None:
                        break
                    size += len(part)
                    _check_size(size, most)
                    await run_sync(file.write, part, limiter=self._files)
            finally:
                file.close()
            if not size:
                raise HTTPException(422, "The file is empty; choose another.")
        return JSONResponse(upload.video, 201)

    @contextlib.asynccontextmanager
    async def _in_threads(self, manager):
        """A context whose begin and end do not hold up other requests."""
        entered = await run_sync(manager.__enter__, limiter=self._files)
        try:
            yield entered
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                told = type(error), error, error.__traceback__
                await run_sync(manager.__exit__, *told, limiter=self._files)
            raise
        else:
            with anyio.CancelScope(shield=True):
                await run_sync(
                    manager.__exit__, None, None, None, limiter=self._files
                )

    async def remove(self, request):
        video_id = request.path_params["video_id"]
        await run_sync(self._library.remove, video_id, limiter=self._files)
        return Response(status_code=204)

    async def media(self, request):
        path, kind = self._library.media(request.path_params["video_id"])
        return _file(path, kind)

    async def preview(self, request):
        path = self._library.preview(request.path_params["video_id"])
        return _file(path, "video/mp4")

    async def frame(self, request):
        seconds = _number(request.query_params, "t", 0.0, float, 0, 1e9)
        path = await run_sync(
            self._library.thumbnail,
            request.path_params["video_id"],
            seconds,
            limiter=self._frames,
        )
        return _file(path, "image/jpeg", "private, max-age=86400")


def _file(path, kind, cache="private, no-cache"):
    if not os.path.isfile(path):
        raise HTTPException(404, "The file is gone; start the page again.")
    return FileResponse(path, media_type=kind, headers={"cache-control": cache})


def _query(params):
    queries = params.getlist("q")
    if len(queries) != 1 or not queries[0].strip():
        raise HTTPException(
            422, "Type a sentence that says what happens in the video."
        )
    (query,) = queries
    if len(query) > _LONGEST_QUERY:
        raise HTTPException(
            422,
            f"The sentence has {len(query):,} letters, and may have "
            f"{_LONGEST_QUERY:,}; shorten it.",
        )
    if any("\ud800" <= letter <= "\udfff" for letter in query):
        raise HTTPException(422, "The sentence is not UTF-8; type it again.")
    return query


def _number(params, key, default, kind, least, most):
    text = params.get(key)
    if text is None and default is not None:
        return default
    try:
        value = kind(text)
    except (TypeError, ValueError):
        value = math.nan
    if not least <= value <= most:
        raise HTTPException(
            422, f"`{key}` must be a number from {least} to {most:g}."
        )
    return value


def _check_size(size, most):
    if size > most:
        raise HTTPException(
            413,
            f"The file has more than {most / 2**20:g} MiB, as much as is "
            "taken; make it smaller, or start the page over its folder.",
            # What is left unread would pass for the next request.
            headers={"connection": "close"},
        )


async def _refused(request, error):
    message = error.detail
    if error.status_code == 404 and message == "Not Found":
        message = "There is nothing here; the page is at /."
    if error.status_code == 405:
        message = f"{request.method} does nothing here."
    return json_answers.error(error.status_code, message, error.headers)


async def _refused_by_library(request, error):
    return json_answers.error(error.status, str(error))


async def _unknown(request, error):
    return json_answers.error(
        422,
        "The model knows none of these words; describe what happens in other "
        "words.",
    )


async def _server_failed(request, error):
    if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        message = "The server with the model does not answer; try again."
    else:
        message = f"The server with the model refuses this: {error}"
    return json_answers.error(502, message)


async def _disk_full(request, error):
    logging.warning("%s", error)
    return json_answers.error(
        507, "There is no room left on the disk for this file."
    )


async def _gone(request, error):
    return Response(status_code=400)


async def _failed(request, error):
    return json_answers.error(
        500, "The page failed here; where it was started, it says how."
    )


class _Guard:
    """Refuses requests of others, and puts headers on every answer."""

    def __init__(self, app, hosts, token):
        self._app, self._token = app, token
        self._hosts = {"127.0.0.1", "localhost", "::1", *hosts}

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        request = Request(scope)

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(request)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request):
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0], request):
            return json_answers.error(
                400,
                "The page is not called so here: open the address that was "
                "printed as it was started.",
                {"connection": "close"},
            )
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin")
            site = request.headers.get("sec-fetch-site", "same-origin")
            if origin not in (None, f"http://{hosts[0]}") or site not in (
                "same-origin",
                "none",
            ):
                return json_answers.error(
                    403,
                    "Another page may not do this: use the page itself.",
                    {"connection": "close"},
                )
        if self._token is not None:
            return self._without_token(request)
        return None

    def _is_ours(self, host, request):
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):  # as browsers leave it out
            name, port = host, "80"
        server = request.scope.get("server")
        if server and port != str(server[1]):
            return False
        name = name.lower().removeprefix("[").removesuffix("]")
        if name in self._hosts:
            return True
        if "*" in self._hosts:  # a name could be anybody's, an address not
            with contextlib.suppress(ValueError):
                return bool(ipaddress.ip_address(name))
            return name == socket.gethostname().lower()
        return False

    def _without_token(self, request):
        """What to answer, unless the token is there."""
        port = (request.scope.get("server") or (None, 0))[1]
        cookie = f"acnn_tf_{port}"
        given = request.query_params.get("token")
        if _is_same(request.cookies.get(cookie, ""), self._token):
            if given is None or request.method != "GET":
                return None
        elif given is None or not _is_same(given, self._token):
            return json_answers.error(
                401,
                "The page asks for its token: open the address that was "
                "printed as it was started.",
                {"connection": "close"},
            )
        if request.method != "GET" or request.url.path != "/":
            return None
        # Away from the address, which people copy and send.
        rest = parse_qs(request.url.query, keep_blank_values=True)
        rest.pop("token")
        location = f"/?{urlencode(rest, doseq=True)}" if rest else "/"
        response = Response(status_code=303, headers={"location": location})
        response.set_cookie(
            cookie, self._token, httponly=True, samesite="strict"
        )
        return response


def _is_same(given, token):
    return hmac.compare_digest(given.encode(), token.encode())
