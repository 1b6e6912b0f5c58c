"""What is done for each shard, and Apache Beam to do it on any machines.

A worker is another process, perhaps on another machine: it is given paths, not
models or arrays, and opens each once. Only what `run_shards` does needs Beam.
"""

import contextlib
import dataclasses
import functools
import os
import sys
import threading
import time

import acnn_tf
from acnn_tf.files.locks import locked
from experiments import splits

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LOCK = threading.RLock()


def _once(function):
    """A process has many threads, and needs one model."""
    cached = functools.cache(function)

    def call(*args):
        with _LOCK:
            return cached(*args)

    return call


@_once
def load_model(workdir, window_lengths=None):
    model = acnn_tf.models.load_model(os.path.join(workdir, "model.keras"))
    if window_lengths:
        model.grid = dataclasses.replace(model.grid, lengths=window_lengths)
    return model


@_once
def _features(path, clip_seconds):
    return acnn_tf.data.open_features(path, clip_seconds=clip_seconds)


@_once
def _split(name, data):
    return splits.load_split(name, **dict(data))


@dataclasses.dataclass(frozen=True)
class EncodeShard:
    """Encodes one shard of a corpus."""

    workdir: str  # of a run
    features: str  # path, as of `open_features`
    clip_seconds: float | None
    out: str  # folder of the corpus
    dtype: str | None  # of the encodings

    def __call__(self, element):
        durations, shard = element
        acnn_tf.search.encode_shard(
            load_model(self.workdir),
            _features(self.features, self.clip_seconds),
            durations,
            shard,
            self.out,
            self.dtype,
        )
        return shard["number"]


@dataclasses.dataclass(frozen=True)
class EvaluateShard:
    """Evaluates the queries of some videos of a split."""

    workdir: str  # of a run
    window_lengths: tuple | None  # others than those of the model
    split: str
    data: tuple  # arguments of `load_split`, as (name, value)
    protocol: tuple  # `suppression` and `nms_threshold`, likewise
    out: str

    def __call__(self, element):
        from experiments import shard_files  # which brings TensorFlow

        durations, shard = element
        split = _split(self.split, self.data)
        moments = [m for m in split.moments if m.video_id in durations]
        protocol = dict(self.protocol)
        _, predictions = acnn_tf.evaluation.evaluate(
            load_model(self.workdir, self.window_lengths),
            moments,
            split.features,
            sentence_vectors=split.sentence_vectors,
            **protocol,
        )
        counts = acnn_tf.evaluation.count_hits(moments, predictions, **protocol)
        shard_files.write_shard(self.out, shard, moments, predictions, counts)
        return shard["number"]


def beam_options(arguments):
    """Reads the flags of Beam, and sees to it that workers find this code.

    Those that this machine starts do; what those on others need is printed.
    Without flags, this process does all. Others' flags are a `ValueError`.
    """
    try:
        from apache_beam.options import pipeline_options
    except ImportError:
        raise ValueError(
            "Apache Beam is not installed: pip install 'acnn_tf[beam]'."
        ) from None
    unknown = []
    options = pipeline_options.PipelineOptions(arguments)
    options.get_all_options(
        add_extra_args_fn=lambda parser: unknown.extend(
            parser.parse_known_args(arguments)[1]
        )
    )
    if unknown:
        raise ValueError(f"Neither flags of this command nor Beam's: {unknown}")
    standard = options.view_as(pipeline_options.StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        # Which would first try to download a faster one.
        standard.runner = "FnApiRunner"
        # Its processes are started with this environment.
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = dict.fromkeys([CHECKOUT, *filter(None, paths)])
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    else:
        print(
            f"Workers of --runner={standard.runner} import acnn_tf and "
            "experiments: on each of their machines, a checkout such as "
            f"{CHECKOUT} must be on PYTHONPATH.",
            file=sys.stderr,
        )
    return options


def run_shards(work, elements, count_done, num_shards, options):
    """Does the work for all elements, in a Beam pipeline, and shows progress.

    Its folder is locked meanwhile, and a `ValueError` tells of a worker that
    fails; the shards that are complete stay. `count_done` says how many those
    are: the workers may be elsewhere, but their files are here.
    """
    import apache_beam as beam

    with locked(work.out), _progress(count_done, num_shards):
        try:
            with beam.Pipeline(options=options) as pipeline:
                _ = (
                    pipeline
                    | beam.Create(elements)
                    | beam.Reshuffle()
                    | beam.Map(work)
                )
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            # From another process comes its whole traceback.
            lines = list(filter(str.strip, str(error).splitlines()))
            lines = lines or [repr(error)]
            reason = next((x for x in lines[::-1] if "Error: " in x), lines[-1])
            reason = reason.split(" [while running")[0].strip()
            raise ValueError(
                f"A worker failed: {reason} Started again, the command goes "
                "on with the shards that are missing."
            ) from error
    done = count_done()
    if done < num_shards:
        raise ValueError(
            f"The workers are done, but only {done} of {num_shards} shards are "
            "here: they must see --out under the same path, on a disk that "
            "they share."
        )


@contextlib.contextmanager
def _progress(count_done, num_shards):
    start, before, ended = time.monotonic(), count_done(), threading.Event()

    def tell():
        seconds = time.monotonic() - start
        print(
            f"\r{count_done()} of {num_shards} shards, {seconds:,.0f} s",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def tell_often():
        last = before
        while not ended.wait(1.0):
            if count_done() != last:
                last = count_done()
                tell()

    thread = threading.Thread(target=tell_often, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell()
        print(file=sys.stderr)
