r"""A page that finds moments in videos by sentences.

  python -m demo --workdir=runs/mine --videos=videos
  python -m demo --model=zero_shot --encoder=clip:weights --videos=videos \
      --library=library
  python -m demo --server=grpc://127.0.0.1:8500 --videos=videos \
      --library=library

--videos are files, folders or patterns, as of experiments.predict. They are
indexed in the background, while one may search in those that are ready.
Uploads, previews and the index are kept in --library and nowhere else. With
--server the page asks that server in place of a model of its own: about the
server's corpus and, by their clips, about single videos of the library.

Prints the address of the page. Ctrl-C ends it. If --host is no address of this
machine alone, the address holds a token, without which nothing is answered.
"""

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import signal
import socket
import sys

from absl import flags

from export import command, flag_help, run_models

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", None, "Folder of a run, whose model searches.")
run_models.define_flags()
flags.DEFINE_string(
    "server",
    None,
    "Address of a TensorFlow Serving, grpc://HOST:PORT or http://HOST:PORT, in "
    "place of --workdir.",
)
flags.DEFINE_string(
    "model_name",
    None,
    "Name of the model on --server. Default: that of the URL, or acnn.",
)
flags.DEFINE_multi_string(
    "videos", [], "Video file, folder or pattern; repeat it for several."
)
flags.DEFINE_string(
    "annotations",
    None,
    "File of known moments (.jsonl) of these videos, which are shown besides.",
)
flags.DEFINE_string(
    "library",
    None,
    "Folder that keeps uploads, previews and the index. Default: `library` in "
    "--workdir.",
)
flags.DEFINE_string("host", "127.0.0.1", "Address to listen at.")
flags.DEFINE_integer(
    "port", 8000, "Port to listen at; 0 is one that is free.", 0, 65535
)
flags.DEFINE_string(
    "token",
    None,
    "What the address must hold. Default: none on this machine alone, or else "
    "one that is made and printed.",
)
flags.DEFINE_float("max_upload_mb", 1024, "Size of an upload in MiB.", 0.01)
flags.DEFINE_float("max_minutes", 120, "Length of an upload.", 0.01)
flags.DEFINE_integer("max_videos", 100, "Uploads that are kept.", 0)
flag_help.subject("Model", "server", "model_name")
flag_help.subject("Videos", "videos", "annotations", "library")
flag_help.subject("Address of the page", "host", "port", "token")
flag_help.subject("Limits", "max_upload_mb", "max_minutes", "max_videos")


# Seconds in which answers that were begun may end.
_DRAIN = 0.5
# Connections that are open at a time: below what a process may have of files.
_MOST_CONNECTIONS = 512


def run():
    if FLAGS.workdir is not None:
        run_models.check_run(FLAGS.workdir)
    folder = FLAGS.library
    if folder is None:
        if FLAGS.workdir is None:
            raise ValueError("Give --library, the folder to keep things in.")
        folder = os.path.join(FLAGS.workdir, "library")
    from acnn_tf.files.locks import locked

    with locked(folder):
        listener = listen(FLAGS.host, FLAGS.port)
        library = make_library(folder)
        command.answer_soon()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(serve(library, listener))
    # Threads may be within TensorFlow, and Python would wait for them. What is
    # half written is under another name.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def listen(host, port):
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=kind)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"Port {port} of {host} is in use, perhaps by another page: "
                "give another --port, or --port=0 for one that is free."
            ) from None
        raise ValueError(
            f"The page cannot listen at --host={host}, --port={port}: "
            f"{error.strerror}. Give others."
        ) from None
    # Or else an answer would wait 40 ms for its headers to be confirmed.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def make_library(folder):
    from acnn_tf.data import find_videos
    from demo.library import Library, Limits, read_truth

    paths = find_videos(FLAGS.videos) if FLAGS.videos else {}
    truth = read_truth(FLAGS.annotations) if FLAGS.annotations else {}
    limits = Limits(
        upload_bytes=int(FLAGS.max_upload_mb * 2**20),
        seconds=60 * FLAGS.max_minutes,
        videos=FLAGS.max_videos,
    )
    return Library(make_engine(folder), folder, paths, truth, limits)


def make_engine(folder):
    """What finds the moments: a run, no training at all, or a server."""
    from acnn_tf.search import IndexFileError
    from demo.engines import ModelEngine, ServerEngine

    if FLAGS.server:
        if FLAGS.model:
            raise ValueError("Give --server or --model, not both.")
        return ServerEngine(FLAGS.server, FLAGS.model_name, FLAGS.encoder)
    index = os.path.join(folder, "index")
    chosen = FLAGS.workdir, FLAGS.model, FLAGS.encoder, index
    try:
        retriever = run_models.load_retriever(*chosen)
    except IndexFileError as error:
        # It can be made again of what the encoder has made of the videos.
        print(f"{error}\nIt is made again.", file=sys.stderr)
        shutil.rmtree(index)
        retriever = run_models.load_retriever(*chosen)
    return ModelEngine(retriever)


async def serve(library, listener):
    """Runs until SIGTERM or SIGINT."""
    import uvicorn

    from demo.app import is_loopback, make_app

    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, is_over.set)
    host, token = FLAGS.host, FLAGS.token
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    is_any = host in ("", "0.0.0.0", "::")
    app = make_app(library, ["*" if is_any else host.lower()], token)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_DRAIN,
        )
    )
    server.capture_signals = contextlib.nullcontext  # they are ours
    serving = asyncio.create_task(server.serve([listener]))
    library.start()
    port = listener.getsockname()[1]
    name = f"[{host}]" if ":" in host else host or "0.0.0.0"
    query = f"?token={token}" if token else ""
    print(
        f"The page is at http://{name}:{port}/{query} (Ctrl-C stops it).",
        flush=True,
    )
    await is_over.wait()
    library.close()
    server.should_exit = True
    await asyncio.wait([serving], timeout=_DRAIN + 0.5)


if __name__ == "__main__":
    command.run(run)
