"""What is done for each shard, and Apache Beam to do it on any machines.

A worker is another process, perhaps on another machine: it is given paths, not
models or arrays, and opens each once. Only what `run_shards` does needs Beam.
"""

import collections
import contextlib
import dataclasses
import functools
import importlib
import logging
import os
import sys
import threading
import uuid

import acnn_tf
from acnn_tf.data import extraction
from acnn_tf.files.locks import locked
from experiments import splits
from export import quiet_tensorflow
from export.progress import Progress

# For workers, which import this file, not a main.
quiet_tensorflow.install()

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"
_LOCK = threading.RLock()
# What each function has loaded last, and of what state of which files.
_LOADED = {}


def _once(load, paths, *args, **kwargs):
    """What `load` makes of some files, anew where these are no more the same.

    A process may have many threads, and outlive the command.
    """
    key = args, kwargs, [_state(path) for path in paths]
    with _LOCK:
        if _LOADED.get(load, (None,))[0] != key:
            _LOADED[load] = key, load(*args, **kwargs)
        return _LOADED[load][1]


def _state(path):
    """What tells a file, or a folder, from an earlier one of its name."""
    inside = sorted(os.listdir(path)) if os.path.isdir(path) else []
    states = map(os.stat, [path, *(os.path.join(path, n) for n in inside)])
    return [(s.st_ino, s.st_size, s.st_mtime_ns) for s in states], inside


def load_model(workdir, window_lengths=None):
    path = os.path.join(workdir, "model.keras")
    return _once(_load_model, [path], path, window_lengths)


def _load_model(path, window_lengths):
    model = acnn_tf.models.load_model(path)
    if window_lengths:
        model.grid = dataclasses.replace(model.grid, lengths=window_lengths)
    return model


def open_features(path, clip_seconds):
    load = acnn_tf.data.open_features
    return _once(load, [path], path, clip_seconds=clip_seconds)


def load_split(name, data):
    return _once(splits.load_split, data_files(name, data), name, **data)


def data_files(name, data):
    """The files of a split, those of sentence vectors included: a list."""
    files = splits.files_of(name, **data)
    return [*files.values(), *filter(None, [data.get("sentence_vectors")])]


def extract(element, *, name, description, batch_size, parts):
    """Encodes the videos of one shard, which is a folder of parts."""
    videos, _ = element
    # Of weights that have changed, the state of their file tells.
    files = filter(os.path.exists, [name, *name.split(":")[1:]])
    encoder = _once(
        acnn_tf.encoders.make, files, name, description["frame_rate"]
    )
    between = "where the command was started"
    if differs := acnn_tf.encoders.difference(
        encoder.description, description, between
    ):
        raise ValueError(
            f"The encoder here differs: {differs}. See that all machines have "
            "the same weights, and start the command again."
        )
    for video_id, path in videos.items():
        extraction.encode_part(parts, video_id, path, encoder, batch_size)


def encode(
    element, *, workdir, features, out, clip_seconds=None, index_dtype=None
):
    """Encodes one shard of a corpus, unless it is there."""
    durations, shard = element
    acnn_tf.search.encode_shard(
        load_model(workdir),
        open_features(features, clip_seconds),
        durations,
        shard,
        out,
        index_dtype,
    )


def evaluate(
    element, *, workdir, window_lengths, split, data, protocol, out, model
):
    """Evaluates the queries of some videos of a split.

    `data` are arguments of `load_split`; `protocol` has those of suppression;
    `model` is the fingerprint of the run's.
    """
    # They bring TensorFlow.
    from acnn_tf.search.index_files import fingerprint
    from experiments import shard_files

    durations, shard = element
    # Dask asks again for what a lost worker had done.
    if shard_files.read_counts(out, shard) is not None:
        return
    loaded = load_model(workdir, window_lengths)
    if fingerprint(loaded) != model:
        raise ValueError(
            f"{workdir} holds another model here than where the command was "
            "started: see that all machines have the same, and start it again."
        )
    split = load_split(split, data)
    moments = [m for m in split.moments if m.video_id in durations]
    measured = acnn_tf.evaluation
    if data["dataset"] == "qvhighlights":  # with a saliency for each clip
        measured = acnn_tf.qvhighlights
    _, predictions = measured.evaluate(
        loaded,
        moments,
        split.features,
        sentence_vectors=split.sentence_vectors,
        **protocol,
    )
    counts = acnn_tf.evaluation.count_hits(moments, predictions, **protocol)
    shard_files.write_shard(out, shard, moments, predictions, counts)


def beam_options(arguments):
    """Reads the flags of Beam, and sees to it that workers find this code.

    Those that this machine starts do; what those on others need is printed.
    Without flags, this process does all. Others' flags are a `ValueError`.
    """
    # Beam warns of what is missing for clouds that nobody asked for.
    logging.disable(logging.WARNING)
    try:
        from apache_beam.options import pipeline_options
        from apache_beam.runners.runner import create_runner
    except ImportError:
        raise ValueError(
            'Apache Beam is not installed: pip install -e ".[beam]"'
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    options = pipeline_options.PipelineOptions(arguments)
    standard = options.view_as(pipeline_options.StandardOptions)
    runner = standard.runner or "DirectRunner"
    # Beam would first try to download a faster one, and does not know Dask's.
    known = {"DirectRunner": "FnApiRunner", "DaskRunner": _DASK_RUNNER}
    standard.runner = known.get(runner, runner)
    try:
        if runner == "DaskRunner":
            # Where `dask` alone is installed, the next line does not say so.
            importlib.import_module("distributed")
        # A runner's own flags are known once its module is imported.
        create_runner(standard.runner)
    except (AttributeError, ImportError) as error:
        if runner == "DaskRunner":
            raise
        raise ValueError(f"--runner={runner}: {error}") from error
    unknown = []
    options.get_all_options(
        add_extra_args_fn=lambda parser: unknown.extend(
            parser.parse_known_args(arguments)[1]
        )
    )
    if unknown:
        raise ValueError(f"Neither flags of this command nor Beam's: {unknown}")
    # Processes of this machine are started with this environment.
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = dict.fromkeys([CHECKOUT, *filter(None, paths)])
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    if standard.runner == _DASK_RUNNER:
        # One shard each, in place of 128, which all go to one worker.
        dask = _dask_options(options)
        if not (dask.npartitions or dask.partition_size):
            dask.partition_size = 1
    elif runner != "DirectRunner":
        print(
            f"Workers of --runner={runner} import acnn_tf and experiments: on "
            f"each of their machines, a checkout such as {CHECKOUT} must be on "
            "PYTHONPATH.",
            file=sys.stderr,
        )
    return options


def _dask_options(options):
    from apache_beam.runners.dask.dask_runner import DaskOptions

    return options.view_as(DaskOptions)


def _reach_scheduler(options):
    """Says how many workers Dask has, and sees that they can do the work.

    Without an address, it starts workers on this machine.
    """
    import distributed

    # What is to be known of its loss is said by `run_shards`.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    given = _dask_options(options).get_all_options(
        drop_default=True, current_only=True
    )
    settings = {
        name: value for name, value in given.items() if "partition" not in name
    }
    where = settings.get("address") or settings.get("scheduler_file")
    if where is None:
        return
    modules = "apache_beam", __name__
    try:
        with distributed.Client(**settings) as client:
            # A worker that cannot import its work ends without a word.
            for module in modules:
                client.run_on_scheduler(importlib.import_module, module)
                client.run(importlib.import_module, module)
            threads = client.nthreads()
    except ImportError as error:
        raise ValueError(
            f"The scheduler of Dask at {where}, or one of its workers, cannot "
            f"import what it needs: {error}. On each of their machines, see "
            "that acnn_tf[beam,dask] is installed and a checkout such as "
            f"{CHECKOUT} on PYTHONPATH."
        ) from error
    except (OSError, TypeError, ValueError) as error:
        # A `TypeError` is one of TLS without certificates.
        raise ValueError(
            f"No scheduler of Dask answers at {where}: {error}. See that "
            "`dask scheduler` runs there, and that both sides have TLS or "
            "neither has."
        ) from error
    print(f"Workers at {where}: {len(threads)}", file=sys.stderr)
    if not threads:
        print("Waits for workers.", file=sys.stderr)


def run_shards(work, elements, find_done, what, out, options):
    """Does the work for shards that are not done, in a Beam pipeline.

    Elements are durations and description of each shard. `find_done` returns
    the numbers of those that are complete: the workers may be elsewhere, but
    their files are here. Meanwhile the folder is locked, and progress shown; a
    `ValueError` tells of a worker that fails, and what is complete stays.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import StandardOptions

    workers, topic = None, uuid.uuid4().hex
    on_dask = options.view_as(StandardOptions).runner == _DASK_RUNNER
    if on_dask:
        _reach_scheduler(options)
        work = functools.partial(_signed, work=work, topic=topic)
    done, num_shards = find_done(), len(elements)
    print(
        f"{what} in {num_shards} shards, {len(done)} of them found done",
        file=sys.stderr,
    )
    missing = [one for one in elements if one[1]["number"] not in done]
    with locked(out), _progress(find_done, num_shards):
        pipeline = beam.Pipeline(options=options)
        try:
            with pipeline:
                _ = (
                    pipeline
                    | beam.Create(missing)
                    | beam.Reshuffle()
                    | beam.Map(work)
                )
            if on_dask and pipeline.result.client.status == "running":
                workers = _workers(pipeline.result.client, topic)
        except Exception as error:
            reason = _why(error)
            if reason is None:
                raise
            raise ValueError(
                f"{reason} Started again, the command goes on with the shards "
                "that are missing."
            ) from error
        finally:
            # Dask's, which otherwise ends with the process, and says so.
            client = getattr(getattr(pipeline, "result", None), "client", None)
            lost = client is not None and client.status != "running"
            if client is not None:
                client.close()
    if lost:
        raise ValueError(
            "The scheduler of Dask was lost. Start it and its workers, and the "
            "command again, which goes on with the shards that are missing."
        )
    count = len(find_done())
    if count < num_shards:
        raise ValueError(
            f"The workers are done, but only {count} of {num_shards} shards "
            "are here: they must see --out under the same path, on a disk that "
            "they share."
        )
    if workers:
        shares = ", ".join(f"{n} by {name}" for name, n in workers.items())
        print(f"Shards done: {shares}", file=sys.stderr)


def _signed(element, work, topic):
    """Does the work for a shard, and tells Dask who did it."""
    import distributed

    work(element)
    worker = distributed.get_worker()
    worker.log_event(topic, (element[1]["number"], str(worker.name)))


def _workers(client, topic):
    """How many shards each worker did, those included that were lost."""
    firsts = {}
    for _, (number, name) in client.get_events(topic):
        # Of two the second found it done.
        firsts.setdefault(number, name)
    return dict(sorted(collections.Counter(firsts.values()).items()))


def _why(error):
    """What to say of an error that ended the work, or `None`."""
    if type(error).__name__ == "KilledWorker":
        return (
            f"{error.allowed_failures + 1} workers died one after the other "
            f"on the same shard, {error.last_worker.address} the last: see "
            "what they printed, and whether they had enough memory."
        )
    kinds = (ImportError, KeyError, OSError, RuntimeError, ValueError)
    if not isinstance(error, kinds):
        return None
    # From another process comes its whole traceback.
    lines = list(filter(str.strip, str(error).splitlines()))
    lines = lines or [repr(error)]
    reason = next((x for x in lines[::-1] if "Error: " in x), lines[-1])
    return f"A worker failed: {reason.split(' [while running')[0].strip()}"


@contextlib.contextmanager
def _progress(find_done, num_shards):
    progress, ended = Progress(num_shards, "shards"), threading.Event()
    to_do = max(num_shards - len(find_done()), 1)

    def tell():
        done = len(find_done())
        progress(1 - (num_shards - done) / to_do, done)

    def tell_often():
        while not ended.wait(1.0):
            tell()

    thread = threading.Thread(target=tell_often, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell()
        if len(find_done()) < num_shards:  # an error follows, on its own line
            print(file=sys.stderr)
