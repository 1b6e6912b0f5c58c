"""The page's library and its answers, over HTTP, and what it refuses."""

import asyncio
import contextlib
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import requests
import uvicorn

from acnn_tf.data.video import VideoError
from acnn_tf.encoders.pixels import Pixels
from acnn_tf.files.atomic import write_text
from acnn_tf.files.problems import DataError
from acnn_tf.models import save_model
from acnn_tf.retriever import MomentRetriever
from demo import app, decoding, engines
from demo.app import is_loopback, make_app
from demo.decoding import Decoder
from demo.engines import ModelEngine, ServerEngine
from demo.library import Library, Limits, read_truth
from export.client import FoundMoment, FoundMoments
from export.protocol.errors import ServingError
from tests import small_acnn
from tests.processes import Started, run_module
from tests.test_retriever import write_scene
from tests.video_files import write

pytestmark = pytest.mark.slow
SENTENCE = "a person opens the door"
LIMITS = Limits(upload_bytes=200_000, seconds=30, videos=3)
POLICY = "content-security-policy"


class Counting(Pixels):
    """Counts the videos that it encodes."""

    count = 0

    def encode(self, *arguments):
        self.count += 1
        return super().encode(*arguments)


@pytest.fixture(scope="module")
def model():
    return small_acnn.make_model(
        clip_dim=130, clip_seconds=0.5, encoder=Pixels().description
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two videos and an avi file, by their ids."""
    folder = tmp_path_factory.mktemp("videos")
    paths = {name: folder / f"{name}.mp4" for name in ("a b", "c")}
    for seed, path in enumerate(paths.values()):
        write_scene(path, seed, 8 + 2 * seed)
    paths["old"] = folder / "old.avi"
    write(paths["old"], codec="mpeg4")
    return {name: str(path) for name, path in paths.items()}


@contextlib.contextmanager
def running(library):
    """The work of a library."""
    library.start()
    try:
        yield library
    finally:
        library.close()
        for thread in library._threads:
            thread.join()


@contextlib.contextmanager
def serving(app):
    """The address of an application, for requests of other threads."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve([listener]))
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class Page:
    """A running page, and ways to ask it."""

    def __init__(self, address, library, folder):
        self.address, self.library, self.folder = address, library, folder
        self.get = self._caller("get")
        self.post = self._caller("post")
        self.delete = self._caller("delete")

    def _caller(self, method):
        call = getattr(requests, method)
        return lambda path, **given: call(
            self.address + path, timeout=30, allow_redirects=False, **given
        )

    def videos(self):
        listed = self.get("/api/videos").json()["videos"]
        return {video["video_id"]: video for video in listed}

    def wait(self, is_done):
        end = time.monotonic() + 60
        while not is_done(self.videos()):
            assert time.monotonic() < end, self.videos()
            time.sleep(0.02)

    def wait_until_ready(self):
        self.wait(lambda videos: {v["state"] for v in videos.values()} == READY)

    def files(self):
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and "index" not in path.parts
        }


READY = {"ready"}


@pytest.fixture(scope="module")
def page(model, videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    engine = ModelEngine(MomentRetriever(model, "pixels", folder / "index"))
    truth = {
        "c": [
            {"query": "a zebra", "start": 1.0, "end": 3.0},
            {"query": SENTENCE, "start": 8.0, "end": 99.0},
            {"query": SENTENCE, "start": 50.0, "end": 60.0},
        ]
    }
    library = Library(engine, folder, videos, truth, LIMITS)
    with running(library), serving(make_app(library)) as address:
        found = Page(address, library, folder)
        found.wait_until_ready()
        yield found


def test_a_search_answers_what_predict_prints(page):
    plain = page.library.engine._retriever
    for wanted in (None, ["c"], ["c", "old"]):
        given = {"q": f"{SENTENCE}, zebra", "top": 7}
        answer = page.get(
            "/api/search", params=given | ({"video": wanted} if wanted else {})
        )
        assert answer.headers["content-type"] == "application/json"
        found = answer.json()
        assert list(found) == [
            *("query", "unknown_words", "is_mostly_known", "moments")
        ]
        assert found["is_mostly_known"] is True
        assert found["query"] == given["q"]
        assert found["unknown_words"] == ["zebra"]
        expected = plain.search(given["q"], 7, video_ids=wanted)
        moments = [FoundMoment(**moment) for moment in found["moments"]]
        small_acnn.assert_alike([moments], [expected])
    found = page.get("/api/search", params={"q": "a zebra"}).json()
    assert found["is_mostly_known"] is False


def test_what_cannot_be_searched_for_is_told(page, subtests):
    for status, query in (
        (422, ""),
        (422, "q=+"),
        (422, "q=xyzzy"),
        (422, "q=%21"),
        (422, "q=a&q=the"),
        (422, "q=" + 1001 * "a"),
        (422, "q=a&top=0"),
        (422, "q=a&top=101"),
        (422, "q=a&top=x"),
        (404, "q=a&video=nothing"),
    ):
        with subtests.test(query):
            answer = page.get(f"/api/search?{query}")
            assert answer.status_code == status
            assert list(answer.json()) == ["error"]
            assert answer.json()["error"].endswith((".", "!"))
    for path in ("/api/videos/x/curve?q=a", "/media/x", "/frame/x", "/nothing"):
        assert page.get(path).status_code == 404
    assert page.get("/frame/c?t=nan").status_code == 422
    assert page.post("/api/search").status_code == 405


def test_the_library_is_told_once_and_then_as_unchanged(page):
    answer = page.get("/api/videos")
    found = answer.json()
    assert [v["video_id"] for v in found["videos"]] == ["a b", "c", "old"]
    assert found["limits"] == {
        "upload_bytes": 200_000,
        "seconds": 30,
        "videos": 3,
    }
    # Of which the model knows all words.
    assert found["examples"] == [SENTENCE]
    assert found["words"]["some"][:2] == ["person", "opens"]
    assert (found["calibrated"], found["has_curve"]) == (False, True)
    about = found["videos"][1]
    duration = about["duration"]
    assert duration == pytest.approx(10, abs=0.1)
    # Known moments end with their video.
    assert about["truth"] == [
        {"query": "a zebra", "start": 1.0, "end": 3.0},
        {"query": SENTENCE, "start": 8.0, "end": duration},
    ]
    assert (about["width"], about["height"]) == (48, 36)
    tag = answer.headers["etag"]
    again = page.get("/api/videos", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_the_curve_is_highest_where_the_best_moment_is(page):
    params = {"q": SENTENCE, "top": 1, "video": "c"}
    (best,) = page.get("/api/search", params=params).json()["moments"]
    found = page.get("/api/videos/c/curve", params={"q": SENTENCE}).json()
    times, scores = np.array(found["times"]), np.array(found["scores"])
    np.testing.assert_allclose(times, np.arange(20) / 2 + 0.25)
    inside = (times >= best["start"]) & (times < best["end"])
    np.testing.assert_allclose(scores[inside], best["score"], atol=1e-4)
    assert (scores <= best["score"] + 1e-4).all()
    assert scores.min() < scores.max()


def test_attention_is_that_of_the_window_that_became_the_moment(page):
    params = {"q": SENTENCE, "top": 1, "video": "c"}
    (best,) = page.get("/api/search", params=params).json()["moments"]
    where = {"q": SENTENCE, "start": best["start"], "end": best["end"]}
    found = page.get("/api/videos/c/attention", params=where).json()
    assert found["kernel_sizes"] == [1, 3]
    assert sum(found["weights"]) == pytest.approx(1, abs=1e-5)
    start, end = found["window"]
    assert end - start in (2.0, 4.0, 7.0)
    where.pop("end")
    assert page.get("/api/videos/c/attention", params=where).status_code == 422


def test_media_are_sent_in_parts_and_named_by_what_they_are(page, videos):
    with open(videos["c"], "rb") as file:
        data = file.read()
    whole = page.get("/media/c")
    assert (whole.content, whole.status_code) == (data, 200)
    assert whole.headers["content-type"] == "video/mp4"
    part = page.get("/media/c", headers={"range": "bytes=10-19"})
    assert (part.content, part.status_code) == (data[10:20], 206)
    past = page.get("/media/c", headers={"range": f"bytes={len(data)}-"})
    assert past.status_code == 416
    assert page.videos()["a b"]["media"] == "/media/a%20b"
    assert page.get("/media/a%20b").status_code == 200
    frame = page.get("/frame/c?t=99")
    assert frame.headers["content-type"] == "image/jpeg"
    assert frame.content.startswith(b"\xff\xd8")
    assert "private" in frame.headers["cache-control"]


def test_what_browsers_do_not_play_gets_a_preview(page, videos):
    page.wait(lambda v: v["old"]["preview"]["state"] == "ready")
    about = page.videos()["old"]
    assert about["media"] == "/preview/old"
    preview = page.get("/preview/old")
    assert preview.headers["content-type"] == "video/mp4"
    path = page.folder / "preview.mp4"
    path.write_bytes(preview.content)
    decoder = Decoder(1)
    try:
        probed = decoder.probe(str(path))
    finally:
        decoder.close()
    path.unlink()
    assert probed["is_playable"]
    assert probed["duration"] == pytest.approx(about["duration"], abs=0.05)
    assert page.videos()["c"]["preview"] is None
    assert page.get("/preview/c").status_code == 404


def raw(page, request):
    """The status and the headers of an answer to these very bytes."""
    host, port = page.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, dict(answer.getheaders())


def test_only_the_page_itself_is_answered(page, subtests):
    port = page.address.rpartition(":")[2]
    own = f"127.0.0.1:{port}"
    for status, method, headers in (
        (200, "GET", f"Host: {own}"),
        (200, "GET", f"Host: LOCALHOST:{port}"),
        (200, "GET", f"Host: [::1]:{port}"),
        (400, "GET", "Host: evil.example"),
        (400, "GET", f"Host: evil.example:{port}"),
        (400, "GET", "Host: 127.0.0.1:1"),
        (400, "GET", "Host: [::1]"),
        (400, "GET", "Host: 127.0.0.1"),
        (400, "GET", f"Host: 127.0.0.1.evil.example:{port}"),
        (422, "POST", f"Host: {own}"),
        (422, "POST", f"Host: {own}\r\nOrigin: http://{own}"),
        (403, "POST", f"Host: {own}\r\nOrigin: http://localhost:{port}"),
        (403, "POST", f"Host: {own}\r\nOrigin: null"),
        (403, "POST", f"Host: {own}\r\nOrigin: https://{own}"),
        (403, "POST", f"Host: {own}\r\nSec-Fetch-Site: cross-site"),
        (403, "DELETE", f"Host: {own}\r\nOrigin: http://evil.example"),
    ):
        with subtests.test(f"{method} {headers}"):
            found, sent = raw(
                page,
                f"{method} /api/videos HTTP/1.1\r\n{headers}\r\n"
                "Content-Length: 0\r\nConnection: close\r\n\r\n",
            )
            assert found == status
            sent = {name.lower(): value for name, value in sent.items()}
            assert "script-src 'self'" in sent[POLICY]
            assert sent["x-content-type-options"] == "nosniff"
    head = requests.head(f"{page.address}/nothing", timeout=30)
    assert "frame-ancestors 'none'" in head.headers[POLICY]


def test_a_token_is_asked_for_and_becomes_a_cookie(page):
    app = make_app(page.library, token="secret")
    with serving(app) as address, requests.Session() as session:
        other = Page(address, page.library, page.folder)
        for path in ("/", "/api/videos", "/?token=other", "/api/videos?token="):
            assert other.get(path).status_code == 401
        assert other.get("/api/videos?token=secret").status_code == 200
        answer = other.get("/?q=a&token=secret&q=b")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/?q=a&q=b"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        session.get(f"{address}/?token=secret", timeout=30)
        assert session.get(f"{address}/api/videos", timeout=30).ok


def test_an_upload_is_searched_and_leaves_nothing_when_removed(page):
    before = page.files()
    path = page.folder.parent / "new.mp4"
    write_scene(path, 9, 6)
    where = "/api/videos?name=../../x%0a/<b>.mp4"
    answer = page.post(where, data=path.read_bytes())
    assert answer.status_code == 201
    video = answer.json()
    assert video["uploaded"] is True
    assert video["title"] == "<b>.mp4"
    assert video["video_id"].startswith("upload-")
    video_id = video["video_id"]
    page.wait(lambda videos: videos[video_id]["state"] == "ready")
    params = {"q": SENTENCE, "video": video_id}
    assert page.get("/api/search", params=params).json()["moments"]
    assert page.get(f"/frame/{video_id}?t=2").status_code == 200
    assert page.get(f"/media/{video_id}").content == path.read_bytes()
    assert page.delete("/api/videos/c").status_code == 403
    assert page.delete(f"/api/videos/{video_id}").status_code == 204
    assert page.delete(f"/api/videos/{video_id}").status_code == 404
    assert page.get("/api/search", params=params).status_code == 404
    assert page.files() - {"library.json"} == before - {"library.json"}


def test_uploads_that_are_refused_leave_nothing(page, subtests, tmp_path):
    before = page.files()
    long = tmp_path / "long.mp4"
    write(long, pictures=[np.zeros((16, 16, 3), np.uint8)] * 40, rate=1)
    data = long.read_bytes()
    large = bytes(LIMITS.upload_bytes + 1)
    for status, body, words in (
        (422, b"", "empty"),
        (422, b"no video", "is text, not a video"),
        (422, bytes(5000), "is not a video"),
        (422, data[: len(data) // 2], "without its index|not a video"),
        (422, data, "lasts 0.7 min, and may last 0.5"),
        (413, large, "more than"),
        (413, iter([large[:9], large[9:]]), "more than"),
    ):
        with subtests.test(words):
            answer = page.post("/api/videos?name=x.mp4", data=body)
            assert answer.status_code == status, answer.text
            error = answer.json()["error"]
            assert any(part in error for part in words.split("|"))
            assert str(page.folder) not in error
    assert page.files() == before
    assert len(page.videos()) == 3


def test_a_broken_upload_and_one_too_many_leave_nothing(page, videos):
    before = page.files()
    host, port = page.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST /api/videos HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Content-Length: 1000\r\n\r\nhalf".encode()
        )
        end = time.monotonic() + 30
        while page.files() == before and time.monotonic() < end:
            time.sleep(0.01)
        assert page.files() != before
    while page.files() != before and time.monotonic() < end:
        time.sleep(0.01)
    assert page.files() == before
    with open(videos["old"], "rb") as file:
        data = file.read()
    statuses = [page.post("/api/videos", data=data).status_code for _ in "1234"]
    assert statuses == [201, 201, 201, 409]
    for video_id, video in page.videos().items():
        if video["uploaded"]:
            assert page.delete(f"/api/videos/{video_id}").status_code == 204
    page.wait(lambda videos: len(videos) == 3)
    end = time.monotonic() + 30
    while page.files() != before | {"library.json"} and time.monotonic() < end:
        time.sleep(0.02)  # what was being worked on
    assert page.files() == before | {"library.json"}


def test_an_upload_that_comes_too_slowly_ends(page, monkeypatch):
    def drip():
        while True:
            time.sleep(0.02)
            yield b"x"

    monkeypatch.setattr(app, "_STALLED", 0.3)
    answer = page.post("/api/videos?name=x", data=drip())
    assert answer.status_code == 408, answer.text
    assert "too slowly" in answer.json()["error"]


def test_searches_go_on_while_videos_are_encoded_and_removed(page, videos):
    with open(videos["a b"], "rb") as file:
        data = file.read()
    is_over = threading.Event()

    def look():
        while not is_over.is_set():
            answer = page.get("/api/search", params={"q": SENTENCE, "top": 9})
            statuses.append(answer.status_code)

    statuses = []
    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(3):
        video_id = page.post("/api/videos", data=data).json()["video_id"]
        page.wait(lambda found, own=video_id: found[own]["state"] == "ready")
        assert page.delete(f"/api/videos/{video_id}").status_code == 204
    is_over.set()
    for reader in readers:
        reader.join()
    assert set(statuses) == {200}


def test_what_was_there_is_there_again_and_not_encoded_twice(
    model, videos, tmp_path
):
    def start(encoder):
        retriever = MomentRetriever(model, encoder, tmp_path / "index")
        return Library(ModelEngine(retriever), tmp_path, {"c": videos["c"]})

    def wait(library):
        end = time.monotonic() + 60
        while {v["state"] for v in library.videos()["videos"]} != READY:
            assert time.monotonic() < end, library.videos()
            time.sleep(0.02)

    encoder = Counting()
    with running(start(encoder)) as library:
        with library.receiving("holiday.avi") as upload:
            shutil.copy(videos["old"], upload.path)
        wait(library)
        before = library.search(SENTENCE, 5)
    assert encoder.count == 2
    left = tmp_path / "uploads" / "upload-0123456789ab"
    left.write_bytes(b"of a page that was killed")
    with running(start(encoder)) as library:
        wait(library)
        titles = [video["title"] for video in library.videos()["videos"]]
    assert titles == ["c.mp4", "holiday.avi"]
    assert encoder.count == 2
    assert not left.exists()
    # An index that is lost is made again of what the encoder had made.
    shutil.rmtree(tmp_path / "index")
    with running(start(encoder)) as library:
        wait(library)
        small_acnn.assert_alike([library.search(SENTENCE, 5)], [before])
    assert encoder.count == 2
    write_text(tmp_path / "library.json", "[]")
    with pytest.raises(ValueError, match=r"library\.json is damaged"):
        start(encoder)


@pytest.fixture(scope="module")
def decoder():
    found = Decoder(1, memory=1 << 28)
    yield found
    found.close()


def test_a_thousand_open_files_do_not_hinder_decoding(videos):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip(f"this machine lets a process open {hard} files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    decoder = Decoder(1)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        stack.callback(decoder.close)
        for _ in range(1100):
            stack.enter_context(open(os.devnull))
        assert decoder.probe(videos["c"])["width"] == 48


def test_a_process_that_dies_costs_one_video(decoder, videos, monkeypatch):
    path = videos["c"]
    pictures = decoder.video(path, decoder.probe(path)).frames(4.0)
    next(pictures)
    (process,) = decoder._all
    os.kill(process._child.pid, signal.SIGKILL)
    with pytest.raises(VideoError, match=r"c\.mp4: made the process .* fail"):
        for _ in pictures:
            pass
    assert decoder.probe(path)["width"] == 48
    (process,) = decoder._all
    os.kill(process._child.pid, signal.SIGSTOP)
    with pytest.raises(VideoError, match=r"c\.mp4: took longer than"):
        decoder.probe(path, limit=0.2)
    assert decoder.probe(path)["width"] == 48


@pytest.mark.parametrize(
    "told", ["{'frame': [10**5, 10**5]}", "{'frame': [-9, -9]}", "'9' * 2**17"]
)
def test_a_process_is_not_believed_everything(videos, monkeypatch, told):
    main = f"""print(str({told}).replace("'", '"'))"""
    monkeypatch.setattr(decoding, "_MAIN", main)
    with contextlib.closing(Decoder(1)) as decoder:
        with pytest.raises(VideoError, match=r"c\.mp4: made the .* nonsense"):
            decoder.probe(videos["c"])


def test_memory_is_bounded_and_frames_are_those_of_the_file(
    decoder, videos, tmp_path
):
    from acnn_tf.data import open_video

    path = videos["c"]
    remote = decoder.video(path, decoder.probe(path))
    for one, other in zip(
        remote.frames(4.0), open_video(path).frames(4.0), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert remote.decoded == pytest.approx(10, abs=0.1)
    short = decoder.video(path, decoder.probe(path), max_seconds=3)
    with pytest.raises(VideoError, match="is longer than"):
        list(short.frames(4.0))
    huge = tmp_path / "huge.avi"
    write(huge, "mjpeg", pictures=[np.zeros((8000, 8000, 3), np.uint8)])
    with pytest.raises(VideoError, match=r"huge\.avi"):
        list(decoder.video(str(huge), {"duration": 1}).frames(25.0))
    assert decoder.probe(path)["width"] == 48


class FakeClient:
    """A server's answers."""

    def __init__(self, address, model, **settings):
        self.asked, self.is_gone = [], False

    def _ask(self, *question):
        if self.is_gone:
            raise ServingError("UNAVAILABLE", "it is gone")
        self.asked.append(question)

    def describe(self):
        self._ask("describe")
        return {"encoder": Pixels().description, "clip_seconds": 0.5}

    def metadata(self):
        query = {"query": {"dtype": "string"}}
        return {"signatures": {"localize": {"inputs": query}}}

    def search(self, queries):
        self._ask("search", *queries)
        if queries == ["xyzzy"]:
            return [FoundMoments([], queries)]
        return [
            FoundMoments([FoundMoment("v", n, n + 1, -n) for n in range(9)])
        ]

    def localize(self, clips, queries, durations):
        self._ask("localize", clips[0].shape, *queries, *durations)
        return [FoundMoments([FoundMoment("", 1.0, 2.0, 0.5)])]


def test_a_server_is_asked_in_place_of_a_model(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "Client", FakeClient)
    engine = ServerEngine("http://127.0.0.1:1")
    library = Library(engine, tmp_path, {"c": videos["c"]})
    with running(library), serving(make_app(library)) as address:
        page = Page(address, library, tmp_path)
        page.wait_until_ready()
        listed = page.get("/api/videos").json()
        assert (listed["has_curve"], listed["on_server"]) == (False, True)
        found = page.get("/api/search?q=a+dog&top=2").json()
        assert [m["start"] for m in found["moments"]] == [0, 1]
        found = page.get("/api/search?q=a+dog&video=c").json()["moments"]
        assert found == [
            {"video_id": "c", "start": 1.0, "end": 2.0, "score": 0.5}
        ]
        kind, shape, query, seconds = engine._client.asked[-1]
        assert (kind, shape, query) == ("localize", (20, 130), "a dog")
        assert seconds == pytest.approx(10, abs=0.1)
        assert page.get("/api/search?q=xyzzy").status_code == 422
        assert page.get("/api/videos/c/curve?q=a").status_code == 501
        engine._client.is_gone = True
        answer = page.get("/api/search?q=a+dog")
        assert answer.status_code == 502
        assert "does not answer; try again" in answer.json()["error"]
        engine._client.is_gone = False
        assert page.get("/api/search?q=a+dog").status_code == 200


@pytest.mark.soak
def test_the_page_ends_at_once_and_goes_on_the_next_time(
    model, videos, tmp_path
):
    (tmp_path / "run").mkdir()
    save_model(model, tmp_path / "run" / "model.keras")
    flags = [
        f"--workdir={tmp_path / 'run'}",
        *(f"--videos={path}" for path in videos.values()),
        "--port=0",
    ]
    for number in (signal.SIGTERM, signal.SIGINT):
        process = Started("demo", *flags)
        line = process.first_line()
        assert line.startswith("The page is at http://127.0.0.1:")
        if number == signal.SIGTERM:
            second = Started("demo", *flags).finish()
            assert second.returncode == 2
            assert "is in use by process" in second.stderr
        started = time.monotonic()
        os.kill(process.pid, number)
        done = process.finish()
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - started < 10  # 2 on a quiet machine
        assert not (tmp_path / "run" / "library" / ".lock").exists()
    done = run_module("demo", f"--workdir={tmp_path / 'rum'}", code=2)
    assert f"Is it {tmp_path / 'run'}?" in done.stderr
    assert not (tmp_path / "rum").exists()


def test_truth_is_read_by_video(tmp_path):
    # Which need not say how long the videos are.
    row = {"qid": 1, "query": "a dog", "vid": "v"}
    row["relevant_windows"] = [[1.0, 2.0], [3.0, 4.0]]
    write_text(tmp_path / "truth.jsonl", json.dumps(row) + "\n")
    assert read_truth(tmp_path / "truth.jsonl") == {
        "v": [
            {"query": "a dog", "start": 1.0, "end": 2.0},
            {"query": "a dog", "start": 3.0, "end": 4.0},
        ]
    }
    write_text(tmp_path / "bad.jsonl", '{"qid": 1}\nno JSON\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:1: .*\n.*:2: "):
        read_truth(tmp_path / "bad.jsonl")
    hosts = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "")
    assert [is_loopback(h) for h in hosts] == [True] * 3 + [False] * 3


def test_an_address_of_this_machine_may_be_any_but_a_name_may_not():
    app = make_app(SimpleNamespace(), ["*"])
    request = SimpleNamespace(scope={"server": ("0.0.0.0", 80)})
    for host, is_ours in (
        ("10.1.2.3:80", True),
        ("10.1.2.3", True),
        ("[fe80::1]", True),
        ("[fe80::1]:80", True),
        ("evil.example:80", False),
        ("10.1.2.3:81", False),
    ):
        assert app._is_ours(host, request) is is_ours
