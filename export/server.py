r"""Serves a SavedModel by TensorFlow Serving's protocol. It is not TF Serving.

  python -m export.server --model_name=acnn --model_base_path=exported/acnn

Speaks the same gRPC and REST as `tensorflow_model_server`, for laptops, tests
and CI that have none at hand; in production use that one. It knows Predict,
metadata and status of one model, in the newest of its versions, folders
MODEL_BASE_PATH/INTEGER with a saved_model.pb. It watches for newer ones,
replays their warm-up requests and then swaps without losing a request. What
a request may cost is limited before any of it runs: see --max_rows,
--max_body_mb and --max_seconds.

Prints one line when it is ready. On SIGTERM it finishes what it has.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys

from absl import flags, logging

from export import command, flag_help

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "model_base_path", None, "Folder of the versions of the model."
)
flags.DEFINE_string(
    "model_name", "default", "Name by which requests ask for the model."
)
flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
flags.DEFINE_integer("port", 8500, "Port of gRPC; 0 takes any that is free.")
flags.DEFINE_integer(
    "rest_api_port", 8501, "Port of REST; 0 takes any that is free."
)
flags.DEFINE_float(
    "file_system_poll_wait_seconds",
    1,
    "Seconds between looks for new versions.",
    0.01,
)
flags.DEFINE_integer(
    "num_versions",
    1,
    "Versions that are served at a time, the newest ones.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "num_threads", 2, "Requests or batches that run at a time.", lower_bound=1
)
flags.DEFINE_integer(
    "max_batch_size",
    1,
    "Rows of requests that may run as one. Above 1 only for a model whose rows "
    "do not depend on each other.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "batch_timeout_micros",
    0,
    "Microseconds that a batch waits for more requests.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "max_queue",
    128,
    "Requests that may wait. Others are refused: RESOURCE_EXHAUSTED, 429.",
    lower_bound=1,
)
flags.DEFINE_float(
    "max_body_mb", 64, "Size of the largest request, in MiB.", lower_bound=0.01
)
flags.DEFINE_integer(
    "max_rows", 64, "Rows of the largest request.", lower_bound=1
)
flags.DEFINE_float(
    "max_seconds",
    30,
    "Seconds that a request may take, from its first byte to its answer.",
    lower_bound=0.01,
)
flags.DEFINE_float(
    "drain_seconds", 10, "Seconds to finish requests in, after SIGTERM.", 0
)
flag_help.subject("Addresses", "host", "port", "rest_api_port")
flag_help.subject("Versions", "file_system_poll_wait_seconds", "num_versions")
flag_help.subject(
    "Batches", "num_threads", "max_batch_size", "batch_timeout_micros"
)
flag_help.subject(
    "Limits",
    "max_queue",
    "max_body_mb",
    "max_rows",
    "max_seconds",
    "drain_seconds",
)


# Of REST. Each has up to 64 KiB in memory that nothing has asked for yet.
_MAX_CONNECTIONS = 512


async def serve(versions):
    """Runs until SIGTERM or SIGINT.

    Returns:
        Whether every request was answered.
    """
    import uvicorn

    from export.protocol import grpc_server as rpc
    from export.protocol import rest_server as rest
    from export.protocol.answers import Metrics, Service
    from export.protocol.batching import Batcher

    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, is_over.set)
    metrics = Metrics()
    batcher = Batcher(
        FLAGS.num_threads,
        FLAGS.max_batch_size,
        FLAGS.batch_timeout_micros / 1e6,
        FLAGS.max_queue,
        metrics.batch_rows.observe,
    )
    service = Service(
        versions,
        batcher,
        metrics,
        int(FLAGS.max_body_mb * 2**20),
        FLAGS.max_rows,
        FLAGS.max_seconds,
    )

    grpc_server = rpc.make_server(service)
    flag = "port"
    try:
        port = grpc_server.add_insecure_port(f"{FLAGS.host}:{FLAGS.port}")
        flag = "rest_api_port"
        listener = socket.create_server((FLAGS.host, FLAGS.rest_api_port))
    except (OSError, RuntimeError):
        raise ValueError(
            f"The address {FLAGS.host}:{FLAGS[flag].value} is not free, or not "
            f"of this machine: choose another --{flag} or --host."
        ) from None
    # Connections inherit it, and asyncio does not set it on theirs: an answer
    # would wait 40 ms for the client to confirm its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await grpc_server.start()
    config = uvicorn.Config(
        rest.make_app(service),
        lifespan="off",
        log_level="warning",
        access_log=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=FLAGS.drain_seconds,
    )
    http_server = uvicorn.Server(config)
    http_server.capture_signals = contextlib.nullcontext  # they are ours
    http = asyncio.create_task(http_server.serve([listener]))
    idle = asyncio.create_task(
        rest.close_idle(http_server.server_state.connections, FLAGS.max_seconds)
    )
    versions.watch(FLAGS.file_system_poll_wait_seconds)
    address = f"{FLAGS.host}:{listener.getsockname()[1]}"
    print(
        f"Serving {FLAGS.model_name}, gRPC {FLAGS.host}:{port}, "
        f"REST http://{address}",
        flush=True,
    )
    await is_over.wait()
    logging.info("Stopping, once what has begun is finished.")
    versions.stop()
    idle.cancel()
    http_server.should_exit = True
    await asyncio.gather(grpc_server.stop(FLAGS.drain_seconds), http)
    return batcher.close(seconds=1)


def run():
    if not FLAGS["verbosity"].present:  # other mains only warn
        logging.set_verbosity(logging.INFO)
    from export.protocol.versions import Versions

    command.answer_soon()
    versions = Versions(
        FLAGS.model_name,
        FLAGS.model_base_path,
        max_bytes=int(16 * FLAGS.max_body_mb * 2**20),
        num_versions=FLAGS.num_versions,
    )
    versions.poll()
    if not versions.available:
        print(
            f"Nothing to serve in {FLAGS.model_base_path!r}. Expected a "
            "SavedModel at INTEGER/saved_model.pb in it that loads; if one is "
            "there, the lines above say what is wrong with it.",
            file=sys.stderr,
        )
        sys.exit(2)
    if not asyncio.run(serve(versions)):
        logging.warning("Gave up on requests that still run.")
        # Python would wait for them.
        os._exit(0)


if __name__ == "__main__":
    flags.mark_flag_as_required("model_base_path")
    command.run(run)
