r"""Asks a server for moments, over TensorFlow Serving's gRPC or REST interface.

  python -m export.client --server=grpc://127.0.0.1:8500 \
      --query="a person opens the door" --query="someone sits down"
  python -m export.client --server=http://127.0.0.1:8501 \
      --features=clips.hdf5 --video=3MSZA --query="a person opens the door"
  python -m export.client --server=grpc://10.0.0.1:8500 \
      --server=grpc://10.0.0.2:8500 --query="a person opens the door"

Without --features the corpus on the server is searched, with them that one
video. Of several servers each has a shard of the corpus, and their answers
are merged. Prints video, start and end (seconds) and score, best first;
--status and --metadata tell which versions are there and what they take. Exit
code 2 and one line on stderr where it fails.

As a library:

  with Client("grpc://127.0.0.1:8500") as client:
      (moments,) = client.search(["a person opens the door"])

It needs neither Keras nor acnn_tf, and over http no TensorFlow either: this
file, quiet_tensorflow.py, and errors.py, merging.py, tensors.py, wire.py,
version_numbers.py, rest_client.py and grpc_client.py of export/protocol are all
of it. Only to compare what made --features with what the server's model learned
from, acnn_tf has to be there.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import sys
import time
import urllib.parse

import numpy as np

from export import quiet_tensorflow
from export.protocol import tensors
from export.protocol.errors import ServingError, unreadable
from export.protocol.merging import (
    FoundMoment,
    FoundMoments,
    MergingClient,
    check_not_empty,
    check_queries,
    print_answer,
    read_moments,
)
from export.protocol.version_numbers import version_number

__all__ = ["Client", "FoundMoment", "MergingClient", "ServingError", "main"]

# Of a file that describes what made some features, which has some 600.
_MOST_BYTES = 2**20
# What TensorFlow Serving's documents ask, and an address is the beginning of.
_MODEL_URL = re.compile(
    r"(.*)/v1/models/([^/:?#]+)(?:/versions/([0-9]{1,19}))?"
    r"(?:/metadata|:[a-z]+)?/?"
)
# Seconds before a retry: at first, doubled each time, and at most.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Client:
    """Speaks to one model of a server.

    Each call ends within `timeout`, its retries included. Only where the
    server is not reached, or says so (UNAVAILABLE), it is asked again, after
    pauses that double and vary; a predict changes nothing, so asking twice
    does no harm. All other failures are a `ServingError` at once.

    Args:
        server: `"grpc://HOST:PORT"`, or `"http://HOST:PORT"` for REST, of
            which also the whole URL of a model is understood, such as
            `"https://HOST/PATH/v1/models/NAME/versions/2:predict"`.
        model: The name that the server gives to the model. Default: that of
            the URL, or `"acnn"`.
        version: Integer, the version to ask. Default: that of the URL, or the
            server's latest.
        timeout: Float, seconds that a call may take.
        retries: Integer, how often a call is made again.
    """

    def __init__(
        self, server, model=None, version=None, timeout=10.0, retries=3
    ):
        if not timeout > 0:
            raise ValueError(f"`timeout` must be above 0. Received: {timeout}")
        if retries < 0:
            raise ValueError(f"`retries` must be 0 or more, not {retries}")
        address, model, version = _addressed(server, model, version)
        if version is not None and version_number(f"{version:d}") is None:
            raise ValueError("`version` must be an integer from 0 to 2**63 - 1")
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("grpc", "http", "https") or not parts.netloc:
            raise ValueError(
                "`server` must be grpc://HOST:PORT or http://HOST:PORT, or "
                f"the URL of a model there. Received: {server!r}"
            )
        self.server = server
        self.timeout = timeout
        self.retries = retries
        self._signatures = None
        if parts.scheme == "grpc":
            # Here, for it brings TensorFlow, which REST does without.
            from export.protocol.grpc_client import GRPCConnection

            self._connection = GRPCConnection(parts.netloc, model, version)
        else:
            from export.protocol.rest_client import RESTConnection

            self._connection = RESTConnection(
                address.rstrip("/"), model, version
            )

    def search(self, queries):
        """Finds the moments of the server's corpus, best first.

        Args:
            queries: List of sentences.

        Returns:
            For each query its `FoundMoments`, a list of `FoundMoment`s.
        """
        check_queries(queries)
        if not len(queries):
            return []
        return read_moments(self.predict({"query": queries}, "search"))

    def localize(self, clips, queries, durations=None, encoder=None):
        """Finds the moments of one video for each query, best first.

        Args:
            clips: List of arrays `[T, D]`, as many as there are queries; T
                may differ.
            queries: List of sentences, or `[B, E]` sentence vectors for a
                model without vocabulary.
            durations: Seconds of each video. Default: as long as its clips.
            encoder: What made the clips, a dictionary such as
                `acnn_tf.data.open_features(path).encoder`, to be compared with
                what the server's model learned from.

        Returns:
            For each query its `FoundMoments`, without a `video_id`.

        Raises:
            ValueError: If they were made otherwise; says how.
        """
        check_queries(queries)
        clips = [np.asarray(video, np.float32) for video in clips]
        if durations is None:
            durations = np.zeros(len(clips))
        if not len(clips) == len(queries) == len(durations):
            raise ValueError(
                "`clips`, `queries` and `durations` go together. Received: "
                f"{len(clips)}, {len(queries)} and {len(durations)}"
            )
        if not clips:
            return []
        if encoder is not None:
            _compare(self.describe(), encoder, None, "`clips`")
        shapes = sorted({video.shape for video in clips})
        if any(len(shape) != 2 for shape in shapes) or (
            len({shape[-1] for shape in shapes}) > 1
        ):
            raise ValueError(
                "`clips` must be arrays [T, D] of one D. Received shapes: "
                f"{shapes}"
            )
        num_clips = np.array([len(video) for video in clips], np.int32)
        padded = np.zeros(
            (len(clips), num_clips.max(), clips[0].shape[1]), np.float32
        )  # [B, T, D]
        for row, video in zip(padded, clips):
            row[: len(video)] = video
        inputs = {
            "clip": padded,
            "num_clips": num_clips,
            "duration": durations,
            "query": queries,
        }
        return read_moments(self.predict(inputs, "localize"))

    def predict(self, inputs, signature="serving_default"):
        """Runs a signature.

        Args:
            inputs: Dictionary from input name to array or nested list,
                converted to the dtype that the signature takes.
            signature: Its name.

        Returns:
            Dictionary from output name to array.
        """
        return self._retry(self._predict, inputs, signature)

    def describe(self):
        """Returns what clips the server's model takes.

        Returns:
            `{"encoder": ..., "clip_seconds": 1.0}`: what made the features
            that it learned from, a dictionary, or `None` if that is not known.
            Nothing of both from an export that cannot tell.
        """
        if "describe" not in self.metadata()["signatures"]:
            return {}
        answer = self.predict({"row": [0]}, "describe")
        try:
            (text,) = answer["description"]
            told = json.loads(text)
            told["clip_seconds"] = float(told["clip_seconds"])
            if not isinstance(told["encoder"], dict | None):
                raise TypeError(f"`encoder` is {told['encoder']!a:.60}")
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise unreadable(error) from None
        return told

    def metadata(self):
        """Returns the version that answers, and what its signatures take.

        Returns:
            `{"version": 1, "signatures": {NAME: {"inputs": {NAME: {"dtype":
            "float32", "shape": [None, 2]}}, "outputs": ...}}}`; None is a
            free axis, or a shape that is not known.
        """
        return self._retry(self._connection.metadata)

    def status(self):
        """Returns version -> state, such as `{1: "AVAILABLE"}`."""
        return self._retry(self._connection.status)

    def close(self):
        """Closes the connection."""
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _predict(self, inputs, signature, deadline):
        # What the signatures take is asked once, not with each call.
        signatures = self._signatures
        if signatures is None:
            signatures = self._connection.metadata(deadline)["signatures"]
            self._signatures = signatures
        known = signatures.get(signature, {"inputs": {}, "outputs": {}})
        arrays = {
            name: _as_input(name, value, known["inputs"].get(name))
            for name, value in inputs.items()
        }
        try:
            return self._connection.predict(
                arrays, signature, known["outputs"], deadline
            )
        except ServingError:
            # Perhaps of a newer version, with other signatures.
            self._signatures = None
            raise

    def _retry(self, call, *arguments):
        deadline = time.monotonic() + self.timeout
        for attempt in itertools.count():
            try:
                return call(*arguments, deadline)
            except ServingError as error:
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
                # Not all clients of a server that comes back at once.
                pause *= random.uniform(0.5, 1)
                if (
                    error.code != "UNAVAILABLE"
                    or attempt >= self.retries
                    or time.monotonic() + pause >= deadline
                ):
                    raise
                time.sleep(pause)


def _addressed(server, model, version):
    """The address, the name and the version that a URL and arguments give."""
    if not (found := _MODEL_URL.fullmatch(server)):
        return server, model or "acnn", version
    address, named, numbered = found.groups()
    named = urllib.parse.unquote(named)
    numbered = None if numbered is None else int(numbered)
    if model not in (None, named) or (
        None not in (version, numbered) and version != numbered
    ):
        raise ValueError(
            f"{server} names a model: leave out `model` and `version`, or give "
            f"the address alone. Received: {model!r} and {version!r}"
        )
    return address, named, version if numbered is None else numbered


def _as_input(name, value, info):
    """An input as an array of the dtype that the server's metadata name."""
    if info is None:
        return np.asarray(value)
    if info["dtype"] == "string":
        return np.asarray(value, dtype=object)
    dtype = tensors.numpy_dtype(info["dtype"])
    array = np.asarray(value)
    if np.can_cast(array.dtype, dtype, "same_kind"):
        cast = array.astype(dtype)
        if array.dtype.kind not in "iu" or np.array_equal(cast, array):
            return cast
    raise ValueError(
        f"Input `{name}` must be {info['dtype']}, and its {array.dtype} "
        "cannot be made so without loss."
    )


def _compare(told, encoder, clip_seconds, path):
    """Refuses clips that were made otherwise than those of a server's model.

    `told` is what `Client.describe` returned. Returns a line to say where it is
    not known, or `None`.
    """
    from acnn_tf import encoders

    learned_from, seconds = told.get("encoder"), told.get("clip_seconds")
    if learned_from is not None:
        learned_from = encoders.descriptions.checked(learned_from)
    encoders.check(encoder, learned_from, path)
    if None not in (clip_seconds, seconds) and not np.isclose(
        clip_seconds, seconds
    ):
        raise ValueError(
            f"The clips of {path} last {clip_seconds:g} s, those that the "
            f"model learned from {seconds:g} s."
        )
    return encoders.unknown(encoder, learned_from, path)


def _compare_file(told, path):
    """`_compare` for what a file says of its clips; prints the line."""
    text = clip_seconds = None
    if path.endswith(".npy"):
        beside = os.path.join(os.path.dirname(path), "encoder.json")
        if os.path.exists(beside):
            with open(beside, "rb") as file:
                text = file.read(_MOST_BYTES)
    else:
        import h5py

        with h5py.File(path) as file:
            text = file.attrs.get("encoder")
            clip_seconds = file.attrs.get("clip_seconds")
        if not isinstance(clip_seconds, int | float | np.number):
            clip_seconds = None
    try:
        from acnn_tf.encoders.descriptions import parse

        if text is not None and not isinstance(text, bytes):
            text = str(text).encode(errors="surrogateescape")
        encoder = None if text is None else parse(text, path)
        line = _compare(told, encoder, clip_seconds, path)
    except ImportError:
        line = f"What made {path} was not compared: that needs acnn_tf."
    if line:
        print(line, file=sys.stderr)


def _read_clips(path, video):
    """Reads `[T, D]` of a .npy file, or of a video of an HDF5 file."""
    if path.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    import h5py

    with h5py.File(path) as file:
        if not video or video not in file:
            raise ValueError(
                f"{path} has no video {video!r} among its {len(file)}: give "
                "one with --video"
            )
        found = file[video]
        if isinstance(found, h5py.Group):
            (found,) = found.values()
        return found[()]


def _run(args):
    if not (args.query or args.status or args.metadata):
        raise ValueError("give --query, --status or --metadata")
    check_not_empty(args.query)
    clients = [
        Client(server, args.model, args.version, args.timeout, args.retries)
        for server in args.server
    ]
    refused = []
    with MergingClient(clients) as merging:
        if args.status or args.metadata:
            for client in clients:
                _print_state(client, args)
        if args.query and args.features:
            clips = _read_clips(args.features, args.video)
            video_id = args.video or args.features
            client = clients[0]  # any of them can
            _compare_file(client.describe(), args.features)
            for query in args.query:
                (moments,) = client.localize([clips], [query], [args.duration])
                found = [m._replace(video_id=video_id) for m in moments]
                found = FoundMoments(found, moments.unknown_words)
                print_answer(query, found, args.json)
                refused += [query] * (not found)
        elif args.query:
            answers = merging.search(args.query)
            for query, moments in zip(args.query, answers, strict=True):
                print_answer(query, moments, args.json)
                refused += [query] * (not moments)
    if refused:
        raise ValueError(
            f"The model knows no word of {', '.join(map(repr, refused))}. It "
            "was trained on other words; say it in those, and check the "
            "spelling."
        )


def _print_state(client, args):
    if len(args.server) > 1 and not args.json:
        print(client.server)
    if args.status:
        states = client.status()
        if args.json:
            print(json.dumps(states))
        else:
            for version, state in sorted(states.items()):
                print(f"version {version}: {state}")
    if args.metadata:
        indent = None if args.json else 2
        print(json.dumps(client.metadata(), indent=indent))


def _version(text):
    number = version_number(text)
    if number is None:
        raise argparse.ArgumentTypeError(
            "must be an integer below 2**63 without leading zeros, not "
            f"{text[:30]!a}"
        )
    return number


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m export.client",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("Server").add_argument
    add(
        "--server",
        action="append",
        required=True,
        help="grpc://HOST:PORT or http://HOST:PORT, or the URL of a model "
        "there, http://HOST:PORT/v1/models/NAME; repeat it for each shard",
    )
    add("--model", help="name of the model; default: that of the URL, or acnn")
    add("--version", type=_version, help="version to ask; default: the latest")
    add("--timeout", type=float, default=10, help="seconds a call may take")
    add(
        "--retries",
        type=int,
        default=3,
        help="calls again if no server answers",
    )
    add = parser.add_argument_group("Question").add_argument
    add("--query", action="append", default=[], help="sentence; repeat it")
    add("--features", help=".npy or HDF5 file: find moments in this video")
    add("--video", default="", help="id of the video in --features")
    add(
        "--duration",
        type=float,
        default=0,
        help="seconds of that video; default: those of its clips",
    )
    add("--status", action="store_true", help="print versions and states")
    add("--metadata", action="store_true", help="print the signatures")
    add = parser.add_argument_group("Output").add_argument
    add("--json", action="store_true", help="print one JSON object a sentence")
    args = parser.parse_args(argv)
    # As in `export.command`, which clients do without.
    args.features = os.path.expanduser(args.features or "")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")
    try:
        quiet_tensorflow.install()
        _run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # as of `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except ModuleNotFoundError as error:
        print(f'{error}: pip install -e ".[serving]"', file=sys.stderr)
        sys.exit(2)
    except (
        ServingError,
        EOFError,
        ImportError,
        OSError,
        ValueError,
    ) as error:
        # TensorFlow's messages have several lines.
        message = " ".join(str(error).split())
        print(f"{type(error).__name__}: {message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
