"""The videos of the page: what they are, and how far their work is.

Everything is kept in one folder: uploads, previews, thumbnails, the clips that
the encoder made, the index, and `library.json`, the list of the uploads. The
page that is started next finds it all again.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
import zipfile
from urllib.parse import quote

import numpy as np

from acnn_tf.data.annotations import read_moments
from acnn_tf.data.datasets import DATASETS
from acnn_tf.data.extraction import EncodedVideo, encode_video, file_state
from acnn_tf.files.atomic import replacing, write_text
from acnn_tf.files.names import file_name
from acnn_tf.files.problems import DataError, UnknownIdError
from demo.decoding import Decoder
from demo.engines import UnknownSentenceError
from export.protocol.errors import ServingError

# Of clips that go through the encoder together: a search that comes meanwhile
# waits for no more than these.
_BATCH_SIZE = 8
# Thumbnails that are kept: some 60 MB.
_THUMBNAILS = 4000
# Searches that a video which is removed meanwhile may spoil.
_TRIES = 10
# Seconds between two signs of progress, and before what failed for reasons
# that may pass is tried again.
_PAUSE, _AGAIN = 0.25, 5.0
_WHY = "where the page was started, it says why"
_EXAMPLES = 5
# Words of the model that are shown, and the letters that one has at least:
# shorter ones are mostly no help, such as "the".
_WORDS, _LETTERS = 12, 4
# Seconds of a video that is not open yet.
_ANY_DURATION = 1e9
_LONGEST_TITLE = 200
# Ids of uploads.
_UPLOAD = re.compile("upload-[0-9a-f]{12}")
_FOLDERS = ("uploads", "previews", "frames", "clips")
_LOG = logging.getLogger(__name__)


class LibraryError(Exception):
    """A request that the library refuses; says why, and what to do.

    Attributes:
        status: Int: of HTTP.
    """

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


@dataclasses.dataclass
class _Entry:
    """A video of the library."""

    video_id: str
    title: str
    path: str
    uploaded: bool
    truth: list
    about: dict | None = None  # what `Decoder.probe` said
    mark: str = ""  # of this state of the file, in names of what it became
    state: str = "queued"
    progress: float = 0.0
    error: str | None = None
    notes: list = dataclasses.field(default_factory=list)
    preview: dict | None = None
    removed: bool = False

    def shown(self):
        """As the page is told of it."""
        about = self.about or {}
        media = None
        if about.get("is_playable"):
            media = "media"
        elif self.preview and self.preview["state"] == "ready":
            media = "preview"
        return {
            "video_id": self.video_id,
            "title": self.title,
            "duration": about.get("duration"),
            "width": about.get("width"),
            "height": about.get("height"),
            "state": self.state,
            "progress": round(self.progress, 3),
            "error": self.error,
            "notes": self.notes,
            "uploaded": self.uploaded,
            "media": media and f"/{media}/{quote(self.video_id, safe='')}",
            "preview": self.preview,
            "truth": self.truth,
        }


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an upload may be.

    Args:
        upload_bytes: Int: bytes of one.
        seconds: Float: of one.
        videos: Int: how many there may be.
    """

    upload_bytes: int = 2**30
    seconds: float = 7200.0
    videos: int = 100


def read_truth(path):
    """The known moments of a `.jsonl` file, by their videos.

    The file need not say how long its videos are: the library cuts its moments
    when it has opened a video.

    Returns:
        Dictionary from video id to a list of `{"query", "start", "end"}`.

    Raises:
        DataError: See `acnn_tf.data.read_moments`.
    """
    form, durations = DATASETS["jsonl"], {}
    for _, entry in form.entries(path):
        with contextlib.suppress(TypeError, ValueError):  # told below
            _, (record,) = form.parse(entry)
            durations[record.video_id] = _ANY_DURATION
    truth = {}
    for moment in read_moments(path, "jsonl", durations=durations):
        for start, end in moment.segments:
            row = {"query": moment.query, "start": start, "end": end}
            truth.setdefault(moment.video_id, []).append(row)
    return truth


class _Stopped(Exception):
    """The work on a video is not wanted any more."""


class Library:
    """Knows all videos, and does the work on them in the background.

    Args:
        engine: `demo.engines.ModelEngine`, or another that finds moments.
        folder: Where everything is kept; this process alone writes there.
        paths: Dictionary from video id to path: videos that stay where they
            are.
        truth: Dictionary from video id to a list of `{"query", "start",
            "end"}`.
        limits: `Limits` of uploads.
    """

    def __init__(self, engine, folder, paths, truth=None, limits=None):
        self.engine = engine
        self.limits = limits or Limits()
        self._truth = truth or {}
        self._folder = os.path.abspath(folder)
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._saving = threading.Lock()  # for `library.json`
        self._is_closed = False
        self._incoming = 0
        self._version, self._boot = 0, secrets.token_hex(4)
        # Uploads that take long to open do not hold up thumbnails.
        self._doors, self._quick = Decoder(2), Decoder(2)
        self._patient = Decoder(2, niceness=5)
        for name in _FOLDERS:
            os.makedirs(os.path.join(self._folder, name), exist_ok=True)
        self._entries = {}
        for video_id, path in paths.items():
            self._entries[video_id] = _Entry(
                video_id,
                os.path.basename(path),
                os.path.abspath(path),
                False,
                self._truth.get(video_id, []),
            )
        queries = {
            row["query"] for rows in self._truth.values() for row in rows
        }
        self._known = set(engine.known(sorted(queries)))
        self._read_uploads()
        self._sweep()
        frames = os.path.join(self._folder, "frames")
        # Names of thumbnails, those that were asked for longest ago first.
        self._frames = collections.OrderedDict.fromkeys(
            sorted(name for name in os.listdir(frames) if name.endswith(".jpg"))
        )
        self._threads = [
            threading.Thread(target=work, daemon=True, name=f"demo-{name}")
            for name, work in (
                ("index", self._index_all),
                ("preview", self._preview_all),
            )
        ]

    def start(self):
        """Begins the work on what is not ready."""
        for thread in self._threads:
            thread.start()

    def close(self):
        """Stops the work. What is done is kept."""
        with self._lock:
            self._is_closed = True
            self._work.notify_all()
        for decoder in (self._doors, self._quick, self._patient):
            decoder.close()

    # What the page asks.

    @property
    def tag(self):
        """Changes with everything that `videos` tells."""
        return f'"{self._boot}-{self._version}"'

    def videos(self):
        """All that there is to know of the library, for JSON."""
        with self._lock:
            entries = list(self._entries.values())
            return {
                "videos": [entry.shown() for entry in entries],
                "calibrated": self.engine.is_calibrated,
                "can_upload": self.limits.videos > 0,
                "limits": dataclasses.asdict(self.limits),
                "has_curve": self.engine.has_curve,
                "on_server": not self.engine.has_curve,
                "examples": self._examples(entries),
                "words": self._words(),
            }

    def _examples(self, entries):
        """Sentences of videos that can be searched, in words of the model."""
        told = [
            [row["query"] for row in entry.truth if row["query"] in self._known]
            for entry in entries
            if entry.state == "ready"
        ]
        told = list(filter(None, told))[:_EXAMPLES]
        # One of each in turn.
        queries = [t[n % len(t)] for n, t in enumerate(told)]
        return list(dict.fromkeys(queries))

    def _words(self):
        """How many words the model knows, and some of them, if it says so."""
        words = self.engine.words
        if words is None:
            return None
        long = (word for word in words if len(word) >= _LETTERS)
        return {
            "count": len(words),
            "some": list(itertools.islice(long, _WORDS)),
        }

    def search(self, query, top, video_ids=None):
        """The moments of a sentence, see `ModelEngine.search`."""
        if video_ids is not None:
            video_ids = set(video_ids)
            for video_id in video_ids:
                entry = self._entry(video_id)
                if entry.state != "ready":
                    raise LibraryError(
                        409,
                        "This video is not ready to be searched yet; wait for "
                        "it, or search all.",
                    )
        for _ in range(_TRIES):
            with self._lock:
                wanted = [
                    entry.video_id
                    for entry in self._entries.values()
                    if entry.state == "ready"
                    and (video_ids is None or entry.video_id in video_ids)
                ]
            try:
                if video_ids is None:
                    return self.engine.search(query, top, wanted)
                return self.engine.search_in(query, top, wanted, self._clips_of)
            except UnknownIdError:  # one was removed meanwhile
                if video_ids is not None:
                    break
        raise _no_video()

    def curve(self, video_id, query):
        """Dictionary of `times` and `scores`, see `MomentRetriever.curve`."""
        self._ready(video_id)
        try:
            times, scores = self.engine.curve(video_id, query)
        except UnknownIdError:
            raise _no_video() from None
        if not len(times):
            raise UnknownSentenceError
        return {"times": times.tolist(), "scores": scores.tolist()}

    def attention(self, video_id, query, segment):
        """See `MomentRetriever.attention`."""
        encoded = self._clips_of(video_id)
        try:
            found = self.engine.attention(video_id, query, segment, encoded)
        except UnknownIdError:
            raise _no_video() from None
        if found is None:
            raise LibraryError(
                404, "This model weighs no widths of context against another."
            )
        return found

    def media(self, video_id):
        """Path and media type of the file itself."""
        entry = self._entry(video_id)
        if entry.about is None:
            raise LibraryError(404, "This video is not open yet; wait for it.")
        return entry.path, entry.about["media_type"]

    def preview(self, video_id):
        """Path of the copy that browsers play."""
        entry = self._entry(video_id)
        if not entry.preview or entry.preview["state"] != "ready":
            raise LibraryError(404, "There is no preview of this video yet.")
        return self._preview_path(entry)

    def thumbnail(self, video_id, seconds):
        """Path of a small JPEG of what a video shows at a time."""
        entry = self._entry(video_id)
        if entry.about is None:
            raise LibraryError(404, "This video is not open yet; wait for it.")
        seconds = min(max(seconds, 0.0), entry.about["duration"])
        path = self._path("frames", entry, f"{entry.mark}@{seconds:.1f}.jpg")
        name = os.path.basename(path)
        with self._lock:
            is_there = name in self._frames
            if is_there:
                self._frames.move_to_end(name)
        if not is_there or not os.path.exists(path):
            source = entry.path
            if entry.preview and entry.preview["state"] == "ready":
                # In which any time is found at once.
                source = self._preview_path(entry)
            try:
                with replacing(path) as partial:
                    self._quick.thumbnail(source, seconds, partial)
            except DataError as error:
                raise LibraryError(404, _said(error)) from None
            if entry.removed:  # meanwhile
                _remove(path)
                raise _no_video()
            with self._lock:
                self._frames[name] = None
                old = []
                while len(self._frames) > _THUMBNAILS:
                    old.append(self._frames.popitem(last=False)[0])
            for other in old:
                _remove(os.path.join(os.path.dirname(path), other))
        return path

    # Uploads.

    @contextlib.contextmanager
    def receiving(self, title):
        """A name to write an upload to, which joins the library at the end.

        Yields an object with the `path` to write to and, afterwards, the
        `video` that came of it, for JSON. What fails leaves nothing.
        """
        with self._lock:
            count = sum(entry.uploaded for entry in self._entries.values())
            if count + self._incoming >= self.limits.videos:
                raise LibraryError(
                    409,
                    f"There are {self.limits.videos} uploads, as many as there "
                    "may be; remove one.",
                )
            self._incoming += 1
        try:
            upload = _Upload()
            video_id = self._new_id()
            path = os.path.join(self._folder, "uploads", video_id)
            with replacing(path) as upload.path:
                yield upload
                try:
                    about = self._doors.probe(upload.path, is_trusted=False)
                except DataError as error:
                    raise LibraryError(
                        422, f"The file {_said(error)}."
                    ) from None
                if about["duration"] > self.limits.seconds:
                    raise LibraryError(
                        422,
                        f"The video lasts {about['duration'] / 60:.1f} min, "
                        f"and may last {self.limits.seconds / 60:g}; cut it "
                        "into parts.",
                    )
            entry = _Entry(video_id, _title(title), path, True, [])
            self._opened(entry, about)
            with self._lock:
                self._entries[video_id] = entry
                self._changed()
                upload.video = entry.shown()
            self._keep_uploads()
        finally:
            with self._lock:
                self._incoming -= 1

    def check_room(self, size):
        """Refuses what the disk has no room for."""
        if size > shutil.disk_usage(self._folder).free:
            raise LibraryError(
                507, "There is no room left on the disk for this file."
            )

    def remove(self, video_id):
        """Removes an upload, with all that came of it."""
        with self._lock:
            entry = self._entry(video_id)
            if not entry.uploaded:
                raise LibraryError(
                    403,
                    "This video lies in a folder of its own, which the page "
                    "does not change: remove the file there.",
                )
            entry.removed = True
            del self._entries[video_id]
            self._changed()
        self._keep_uploads()
        self.engine.remove(video_id)
        self._clear(entry)

    def _clear(self, entry):
        for folder in _FOLDERS:
            folder = os.path.join(self._folder, folder)
            for name in os.listdir(folder):
                is_partial = name.endswith(".partial")
                if name.startswith(entry.video_id) and not is_partial:
                    _remove(os.path.join(folder, name))

    def _new_id(self):
        while True:
            video_id = f"upload-{secrets.token_hex(6)}"
            if video_id not in self._entries:
                return video_id

    def _read_uploads(self):
        path = os.path.join(self._folder, "library.json")
        listed = []
        if os.path.exists(path):
            try:
                with open(path, encoding="utf-8") as file:
                    listed = [
                        (str(one["video_id"]), _title(str(one["title"])))
                        for one in json.load(file)["uploads"]
                    ]
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path} is damaged ({error!s:.80}); remove it, and upload "
                    "the videos again"
                ) from None
        uploads = os.path.join(self._folder, "uploads")
        there = set(os.listdir(uploads))
        for video_id, title in listed:
            if (
                _UPLOAD.fullmatch(video_id)
                and video_id in there
                and video_id not in self._entries
            ):
                path = os.path.join(uploads, video_id)
                entry = _Entry(video_id, title, path, True, [])
                self._entries[video_id] = entry

    def _keep_uploads(self):
        with self._saving:
            with self._lock:
                listed = [
                    {"video_id": entry.video_id, "title": entry.title}
                    for entry in self._entries.values()
                    if entry.uploaded
                ]
            text = json.dumps({"uploads": listed}, indent=1)
            write_text(os.path.join(self._folder, "library.json"), text)

    def _sweep(self):
        """Removes what a killed page has left of uploads."""
        for name in _FOLDERS:
            folder = os.path.join(self._folder, name)
            for file in os.listdir(folder):
                path, match = os.path.join(folder, file), _UPLOAD.match(file)
                if os.path.isdir(path):  # half written
                    shutil.rmtree(path, ignore_errors=True)
                elif match and match[0] not in self._entries:
                    _remove(path)

    # Work in the background.

    def _index_all(self):
        while (entry := self._wait_for(self._next_to_index)) is not None:
            try:
                if entry.about is None:
                    about = self._patient.probe(
                        entry.path, is_trusted=not entry.uploaded
                    )
                    self._opened(entry, about)
                    with self._lock:
                        self._changed()
                else:
                    self._index(entry)
            except _Stopped:
                if entry.removed:  # while its clips were written
                    self._clear(entry)
            except ServingError as error:
                _LOG.info("%s waits: %s", entry.path, error)
                with self._lock:
                    entry.state = "queued"
                    entry.error = (
                        "The server with the model does not answer; it is "
                        "asked again."
                    )
                    self._changed()
                time.sleep(_AGAIN)
            except DataError as error:
                self._fail(entry, f"The file {_said(error)}.")
            except Exception:
                if self._is_closed:
                    return
                _LOG.exception("%s could not be indexed.", entry.path)
                self._fail(entry, f"It could not be indexed; {_WHY}.")

    def _next_to_index(self):
        queued = [e for e in self._entries.values() if e.state == "queued"]
        for wanted in (
            lambda entry: entry.uploaded,
            lambda entry: entry.about is None,
            lambda entry: True,
        ):
            for entry in filter(wanted, queued):
                return entry
        return None

    def _opened(self, entry, about):
        """Notes what a video is, and what is left to do about it."""
        state = json.dumps(file_state(entry.path)).encode()
        entry.mark = f"@{hashlib.sha256(state).hexdigest()[:8]}"
        entry.truth = _within(entry.truth, about["duration"], entry.path)
        if not about["is_playable"]:
            is_made = os.path.exists(self._preview_path(entry))
            entry.preview = {
                "state": "ready" if is_made else "queued",
                "progress": float(is_made),
                "error": None,
            }
        if self.engine.has(entry.video_id, entry.path):
            with contextlib.suppress(ServingError):  # later, then
                encoded = self._clips(entry)
                if encoded is not None:
                    entry.notes = encoded.notes
                    entry.state, entry.progress = "ready", 1.0
        entry.about = about

    def _index(self, entry):
        with self._lock:
            entry.state = "indexing"
            self._changed()
        state = file_state(entry.path)
        encoded = self._clips(entry)
        if encoded is None:
            limit = self.limits.seconds if entry.uploaded else np.inf
            encoded = encode_video(
                entry.path,
                self.engine.encoder,
                min(self.engine.encoder.batch_size, _BATCH_SIZE),
                self._teller(entry, entry),
                lambda path: self._patient.video(path, entry.about, limit + 1),
            )
            self._keep_clips(entry, encoded, state)
        self._check_wanted(entry)
        self.engine.add(entry.video_id, encoded, entry.path)
        with self._lock:
            entry.state, entry.progress, entry.error = "ready", 1.0, None
            entry.notes = list(encoded.notes)
            self._changed()
        if entry.removed:  # while it was added
            self.engine.remove(entry.video_id)
            self._clear(entry)

    def _preview_all(self):
        while (entry := self._wait_for(self._next_to_preview)) is not None:
            preview = entry.preview
            out = self._preview_path(entry)
            self._remove_others(out)
            try:
                with self._lock:
                    preview["state"] = "making"
                    self._changed()
                tell = self._teller(entry, preview)
                with replacing(out) as partial:
                    self._patient.preview(entry.path, partial, tell)
            except _Stopped:
                continue
            except DataError as error:
                told = {"state": "failed", "error": f"The file {_said(error)}."}
            except Exception:
                if self._is_closed:
                    return
                _LOG.exception("%s has no preview.", entry.path)
                told = {"state": "failed", "error": f"It failed; {_WHY}."}
            else:
                told = {"state": "ready", "progress": 1.0}
            with self._lock:
                preview.update(told)
                self._changed()
            if entry.removed:  # while it was finished
                self._clear(entry)

    def _preview_path(self, entry):
        return self._path("previews", entry, f"{entry.mark}.mp4")

    def _remove_others(self, path):
        """Previews of earlier states of a file."""
        folder, name = os.path.split(path)
        begin = name.rpartition("@")[0]
        for other in os.listdir(folder):
            if other.rpartition("@")[0] == begin and other != name:
                _remove(os.path.join(folder, other))

    def _next_to_preview(self):
        for entry in self._entries.values():
            if (
                entry.about
                and entry.preview
                and entry.preview["state"] == "queued"
            ):
                return entry
        return None

    def _wait_for(self, find):
        """What there is to do next; `None` at the end."""
        with self._lock:
            while not self._is_closed:
                entry = find()
                if entry is not None:
                    return entry
                self._work.wait()
        return None

    def _teller(self, entry, target):
        """A function that notes progress, now and then."""
        told = 0.0

        def tell(share):
            nonlocal told
            self._check_wanted(entry)
            if time.monotonic() - told < _PAUSE:
                return
            told = time.monotonic()
            with self._lock:
                if isinstance(target, dict):
                    target["progress"] = round(share, 3)
                else:
                    target.progress = share
                self._changed()

        return tell

    def _check_wanted(self, entry):
        if entry.removed or self._is_closed:
            raise _Stopped

    def _fail(self, entry, message):
        with self._lock:
            entry.state, entry.error = "failed", message
            self._changed()

    def _changed(self):
        self._version += 1
        self._work.notify_all()

    # Clips: what the encoder made of a video.

    def _clips_of(self, video_id):
        encoded = self._clips(self._ready(video_id))
        if encoded is None:
            raise _no_video()
        return encoded

    def _clips(self, entry):
        """The `EncodedVideo` that is kept, or `None`."""
        path = self._path("clips", entry, ".npz")
        try:
            with (
                open(path, "rb") as file,
                np.load(file, allow_pickle=False) as arrays,
            ):
                about = json.loads(str(arrays["about"]))
                if about["state"] != file_state(entry.path) or (
                    about["encoder"] != self.engine.encoder.description
                ):
                    return None
                return EncodedVideo(
                    arrays["clips"], about["duration"], about["notes"]
                )
        except FileNotFoundError:
            return None
        except (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile):
            _LOG.warning("%s is damaged, and is made again.", path)
            return None

    def _keep_clips(self, entry, encoded, state):
        about = {
            "state": state,
            "encoder": self.engine.encoder.description,
            "duration": encoded.duration,
            "notes": encoded.notes,
        }
        path = self._path("clips", entry, ".npz")
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(file, about=json.dumps(about), clips=encoded.clips)

    def _entry(self, video_id):
        with self._lock:
            entry = self._entries.get(video_id)
        if entry is None:
            raise _no_video()
        return entry

    def _ready(self, video_id):
        entry = self._entry(video_id)
        if entry.state != "ready":
            raise LibraryError(
                409, "This video is not ready to be searched yet; wait for it."
            )
        return entry

    def _path(self, folder, entry, ending):
        name = file_name(entry.video_id, ending)
        return os.path.join(self._folder, folder, name)


class _Upload:
    path = video = None


def _within(truth, duration, path):
    """Known moments, cut at the end of their video."""
    for row in truth:
        if row["start"] >= duration:
            _LOG.warning(
                "%s: the known moment %r starts at %g s, after the end of the "
                "video at %g s, and is not shown; mend the annotations.",
                path,
                row["query"],
                row["start"],
                duration,
            )
    return [
        {**row, "end": min(row["end"], duration)}
        for row in truth
        if row["start"] < duration
    ]


def _no_video():
    return LibraryError(404, "There is no such video; it may be removed.")


def _said(error):
    """What is wrong with a file, without saying where it lies."""
    return error.problems[0].message


def _title(name):
    """The name of a file, to be shown and for nothing else."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = "".join(filter(str.isprintable, name)).strip()
    return name[:_LONGEST_TITLE] or "video"


def _remove(path):
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
