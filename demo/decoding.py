"""Decodes videos in other processes, which may die of them.

A video that somebody sends may make FFmpeg fail in ways that end a process, or
that fill the memory. So it is decoded in a process of its own, which has no
TensorFlow, a bound on its memory and a time in which it must be heard of. What
happens to it costs that one video; the next job gets a new process.

A job is a line of JSON on the process's stdin. Its answers are lines on stdout:
`{"progress": 0.5}`, `{"frame": [height, width], "decoded": 2.0}` with the bytes
of the picture behind it, and at last `{"result": ...}` or `{"error": ...}`.
"""

import contextlib
import json
import math
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from acnn_tf.data.cutting import preview_video
from acnn_tf.data.video import MAX_PIXELS, VideoError, open_video
from acnn_tf.files.problems import DataError, Problem, fail

# Bytes of memory that a process may ask for. A frame of 8192 x 8192 takes some
# 300 MB, and a decoder holds several.
_MEMORY = 3 * 2**30
# Seconds in which a process must be heard of, and in which short jobs end.
_PATIENCE, _LIMIT = 30.0, 30.0
_LONGEST_LINE = 1 << 16
_MAIN = "from demo.decoding import main; main()"
_ROOT = Path(__file__).resolve().parents[1]
# Of a picture that stands for a video or a moment.
_THUMBNAIL_WIDTH = 320
# What browsers play: by FFmpeg's names of codecs, the pixels.
_PLAYED = {
    "h264": ("yuv420p", "yuvj420p"),
    "vp8": ("yuv420p",),
    "vp9": ("yuv420p",),
    "av1": ("yuv420p",),
}
_MATROSKA = "matroska,webm"
_MEDIA_TYPES = {
    "mov,mp4,m4a,3gp,3g2,mj2": "video/mp4",
    "avi": "video/x-msvideo",
}
_HOUR = 3600.0
# Seconds that a file's clock may begin at: browsers differ on what they show.
_LATE = 0.1


class Decoder:
    """Processes that decode, each one video at a time.

    Args:
        count: Int: how many at most.
        niceness: Int: how far they stand back behind other processes.
        memory: Int: bytes that each may ask for.
    """

    def __init__(self, count, niceness=0, memory=_MEMORY):
        self._settings = [str(niceness), str(memory)]
        self._free = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()
        self._idle, self._all, self._is_closed = [], set(), False

    def probe(self, path, *, is_trusted=True, limit=_LIMIT):
        """What a file is: a dictionary.

        Its keys are `duration` (seconds), `width`, `height`, `media_type` and
        `is_playable`, by a browser. Of a file that is not trusted the duration
        is counted, for which all of it is read.

        Raises:
            VideoError: If it is no video, or decoding takes too long.
        """
        job = {"job": "probe", "path": path, "is_trusted": is_trusted}
        return self._run(job, limit)

    def thumbnail(self, path, time, out):
        """Writes a small JPEG of the frame at a time, or of the last one."""
        job = {"job": "thumbnail", "path": path, "time": time, "out": out}
        self._run(job, _LIMIT)

    def preview(self, path, out, progress):
        """Writes an `.mp4` that browsers play; `progress` gets shares."""
        self._run({"job": "preview", "path": path, "out": out}, None, progress)

    def video(self, path, about, max_seconds=math.inf):
        """A video for `acnn_tf.data.encode_video`, decoded elsewhere.

        Args:
            path: File.
            about: What `probe` said of it.
            max_seconds: Float: how much of it is read before it is refused.
        """
        return _RemoteVideo(self, path, about["duration"], max_seconds)

    def close(self):
        """Ends all processes."""
        with self._lock:
            self._is_closed = True
            processes = list(self._all)
        for process in processes:
            process.kill()

    def _run(self, job, limit, progress=None):
        for message, _ in self.messages(job, limit):
            if "result" in message:
                return message["result"]
            if progress is not None:
                progress(message["progress"])

    def messages(self, job, limit=None):
        """Has a job done; yields pairs of a message and its bytes, if any.

        The last message has a `result`.
        """
        with self._process() as process:
            process.send(job)
            end = math.inf if limit is None else time.monotonic() + limit
            while True:
                message, data = process.receive(job["path"], end)
                if "error" in message:
                    process.is_sound = True
                    problems = [
                        Problem(path, None, text)
                        for path, text in message["error"]
                    ]
                    raise VideoError(problems)
                if "result" in message:
                    process.is_sound = True
                yield message, data
                if "result" in message:
                    return

    @contextlib.contextmanager
    def _process(self):
        with self._free:
            with self._lock:
                if self._is_closed:
                    raise RuntimeError("The page is closing.")
                process = self._idle.pop() if self._idle else None
                if process is None or process.poll() is not None:
                    self._all.discard(process)
                    process = _Process(self._settings)
                    self._all.add(process)
            process.is_sound = False
            try:
                yield process
            finally:
                with self._lock:
                    if process.is_sound and not self._is_closed:
                        self._idle.append(process)
                    else:
                        self._all.discard(process)
                        process.kill()


class _Process:
    """A process that decodes, seen from here."""

    def __init__(self, settings):
        environment = dict(os.environ)
        # Each thread of these would keep memory that the bound counts.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_ROOT,
            bufsize=0,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the page
        )
        self.poll = self._child.poll
        self.is_sound = False
        # `select.select` fails where a thousand connections are open.
        self._answers = select.poll()
        self._answers.register(self._child.stdout, select.POLLIN)

    def send(self, job):
        with contextlib.suppress(BrokenPipeError):  # `receive` will tell
            self._child.stdin.write(json.dumps(job).encode() + b"\n")

    def receive(self, path, end):
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self._read(path, 1, end)
            if len(line) > _LONGEST_LINE:
                self._distrust(path)
        message, data = json.loads(line), None
        if "frame" in message:
            height, width = message["frame"]
            if min(height, width) < 1 or height * width > MAX_PIXELS:
                self._distrust(path)
            data = self._read(path, height * width * 3, end)
        return message, data

    def _distrust(self, path):
        """Ends a process that a file may have made its own."""
        self.kill()
        message = "made the process that decodes it answer nonsense"
        fail(path, message, kind=VideoError)

    def _read(self, path, count, end):
        data = bytearray(count)
        view, pipe = memoryview(data), self._child.stdout
        while view:
            now = time.monotonic()
            wait = min(_PATIENCE, end - now)
            if wait <= 0 or not self._answers.poll(1000 * wait):
                self.kill()
                fail(
                    path,
                    f"took longer than {min(_PATIENCE, _LIMIT):g} s to decode; "
                    "convert it first",
                    kind=VideoError,
                )
            count = pipe.readinto(view)
            if not count:
                self.kill()
                fail(
                    path,
                    "made the process that decodes it fail (out of memory, or "
                    f"code {self._child.returncode}); convert it first",
                    kind=VideoError,
                )
            view = view[count:]
        return data

    def kill(self):
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            pipe.close()


class _RemoteVideo:
    """As `acnn_tf.data.Video`, of which `encode_video` knows this much."""

    def __init__(self, decoder, path, duration, max_seconds):
        self.path, self.duration = path, duration
        self.decoded, self.problems = 0.0, []
        self._decoder, self._max_seconds = decoder, max_seconds

    def frames(self, fps):
        job = {"job": "frames", "path": self.path, "rate": fps}
        for message, data in self._decoder.messages(job):
            if "result" in message:
                self.problems = [
                    Problem(self.path, None, text, False)
                    for text in message["result"]["problems"]
                ]
                self.decoded = message["result"]["decoded"]
                return
            self.decoded = message["decoded"]
            if self.decoded > self._max_seconds:
                fail(
                    self.path,
                    f"is longer than {self._max_seconds / 60:g} min; cut it "
                    "into parts",
                    kind=VideoError,
                )
            yield np.frombuffer(data, np.uint8).reshape(*message["frame"], 3)


# What the process does.


def _probe(tell, path, is_trusted):
    video = open_video(path)
    height, width = video.size
    media_type = _media_type(video)
    return {
        "duration": (is_trusted and video.duration) or video.listed_seconds(),
        "width": width,
        "height": height,
        "media_type": media_type,
        "is_playable": (
            media_type in ("video/mp4", "video/webm")
            and video.pixel_format in _PLAYED.get(video.codec, ())
            and abs(video.start) < _LATE
        ),
    }


def _media_type(video):
    """By what the file is, whatever its name says."""
    if video.container == _MATROSKA:
        with open(video.path, "rb") as file:
            is_webm = b"webm" in file.read(64)
        return "video/webm" if is_webm else "video/x-matroska"
    return _MEDIA_TYPES.get(video.container, "application/octet-stream")


def _frames(tell, path, rate):
    video = open_video(path)
    for picture in video.frames(rate, threads=1):
        data = np.ascontiguousarray(picture).data
        tell({"frame": picture.shape[:2], "decoded": video.decoded}, data)
    problems = [problem.message for problem in video.problems]
    return {"decoded": video.decoded, "problems": problems}


def _thumbnail(tell, path, time, out):
    from PIL import Image

    video = open_video(path)
    # Behind the end, the picture is one of the last second.
    last = max((video.duration or 0.0) - 1, 0.0)
    for start in (max(time, 0.0), last, 0.0):
        for _, frame in video.between(start, start + _HOUR):
            picture = Image.fromarray(frame)
            picture.thumbnail((_THUMBNAIL_WIDTH, _THUMBNAIL_WIDTH))
            picture.save(out, "JPEG", quality=80)
            return
    fail(path, "has no frame to show", kind=VideoError)


def _preview(tell, path, out):
    preview_video(path, out, progress=lambda share: tell({"progress": share}))


_JOBS = {
    "probe": _probe,
    "frames": _frames,
    "thumbnail": _thumbnail,
    "preview": _preview,
}


def _bound(niceness, memory):
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(AttributeError, OSError):
        os.nice(niceness)
        # Linux weighs a session as a whole, and this process has its own.
        Path("/proc/self/autogroup").write_text(str(niceness))


def work(jobs, answers):
    """Does the jobs of a binary stream, until it ends."""

    def tell(message, data=None):
        answers.write(json.dumps(message).encode() + b"\n")
        if data is not None:
            answers.write(data)
        answers.flush()

    for line in jobs:
        job = json.loads(line)
        try:
            tell({"result": _JOBS[job.pop("job")](tell, **job)})
        except DataError as error:
            told = [[p.path, p.message] for p in error.problems]
            tell({"error": told})
        except MemoryError:
            tell({"error": [[job["path"], "takes too much memory to decode"]]})
        except (OSError, ValueError) as error:
            # Without the name of a file of ours.
            reason = getattr(error, "strerror", None) or error
            tell({"error": [[job["path"], f"cannot be decoded: {reason}"]]})


def main():
    """The process: its arguments are niceness and bytes of memory."""
    _bound(*map(int, sys.argv[1:]))
    with os.fdopen(os.dup(1), "wb") as answers:
        # Whatever else is printed is no answer.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        with contextlib.suppress(BrokenPipeError):  # the page has ended
            work(sys.stdin.buffer, answers)
