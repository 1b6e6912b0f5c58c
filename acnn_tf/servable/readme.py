"""Writes the README of a SavedModel."""

import json
import re
import shlex
import textwrap
from collections.abc import Mapping

import keras

from acnn_tf.files.text import MAX_CHARACTERS
from acnn_tf.search.moment_index import MomentIndex
from acnn_tf.servable.signatures import (
    Signatures,
    describe_model,
    takes_sentences,
)

# Of a vocabulary, how many words are told.
_MOST_WORDS = 12

_TEXT = """\
# A servable for video moment retrieval

You send a sentence, and get starts, ends and scores of moments in videos. Any
program that runs a TensorFlow SavedModel can serve this folder; it needs core
operations only.

{corpus}
{domain}
## Serve it

In the folder that holds `{name}`, with Docker:

    docker run --rm -p 8500:8500 -p 8501:8501 \\
        -v "$PWD/{name}:/models/{name}" -e MODEL_NAME={name} tensorflow/serving

{search}## Ask about one video

`localize` finds each query in the video of its row. You send the features of
the video. In Python, with made-up features of 8 clips:

```python
import json
import urllib.request

clip = [[0.1] * {clip_dim}] * 8
row = {{"clip": clip, "num_clips": 8, "duration": 0, "query": {query_code}}}
body = {{"signature_name": "localize", "instances": [row]}}
answer = urllib.request.urlopen(
    "http://localhost:8501/v1/models/{name}:predict", json.dumps(body).encode()
)
print(json.load(answer)["predictions"][0]["start"])
```

The same in columns, `...` standing for more of the kind:

    {{"signature_name": "localize", "inputs": {{"clip": [[[0.1, ...], ...]],
     "num_clips": [8], "duration": [0], "query": [{query_text}]}}}}

One video may come with several queries, or one query with several videos. If
the server batches requests (`--enable_batching`), send equally many rows of
each input. A server may pad the `clip`s of a batch to one length: a row gives
the same answer alone.

## Ask by gRPC

With `pip install grpcio tensorflow-serving-api`:

```python
import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

request = predict_pb2.PredictRequest()
request.model_spec.name = "{name}"
request.model_spec.signature_name = "{called}"
query = tf.make_tensor_proto([{query_code}])
request.inputs["query"].CopyFrom(query)
channel = grpc.insecure_channel("localhost:8500")
stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
response = stub.Predict(request, timeout=10)
for name, value in response.outputs.items():
    print(name, tf.make_ndarray(value))
```

## Signatures

Row i of every input and output belongs together; `*` is any number. The first
is `serving_default` as well.

{signatures}

- `query`: {query}
- `clip`: features of the video, a row of {clip_dim} numbers for every
  {clip_seconds:g} seconds, padded to the longest video of the request. What
  the padding holds makes no difference.
- `num_clips`: how many clips of the row are real.
- `duration`: seconds of the video; 0 stands for the length of its clips.
- `start`, `end`: seconds into the video, within `[0, duration]`, the best
  {top_n} moments first. Two moments of one video overlap by an IoU of at most
  {nms_threshold:g}. Where there are fewer than {top_n}, the row ends on
  moments with `start = end = 0`: leave those out.
- `score`: higher is better. Scores compare the moments of one query. They are
  not probabilities, and scores of two queries do not compare.{unknown_words}
- `window`, `segment`, `num_windows`: the encoded windows of a video, their
  start and end in seconds, and how many of the row are real. With the output
  `query` of `encode_queries` you can make a larger index of them.

## What made the features

{encoder}

The signature `describe` returns the same text as `description`, one for each
`row`, which is any number. A program can compare before it sends features.

    {description}
"""

_RECALL = """
- `recall`: the share of the best moments that is expected to be among these.
  `search` scores exactly those windows that are high on a straight line.\
"""

_SEARCH = """\
## Ask by REST

In rows, one for each sentence:

    curl http://localhost:8501/v1/models/{name}:predict \\
        -d {row}

The answer has rows too: `{{"predictions": [{{"video_id": [...], "start": [...],
"end": [...], "score": [...], ...}}]}}`. In columns, one for each input:

    curl http://localhost:8501/v1/models/{name}:predict \\
        -d {column}

The answer has columns too: `{{"outputs": {{"video_id": [[...]], "start":
[[...]], ...}}}}`.

"""


def readme(
    model: keras.Model,
    signatures: Signatures,
    functions: Mapping,
    index: MomentIndex | None,
    top_n: int,
    nms_threshold: float,
    name: str,
    example_query: str | None = None,
) -> str:
    """Describes the folder that `export` writes, as Markdown.

    The arguments are those of `export`, with `Signatures` and their
    `concrete_functions`, and the `name` by which a server knows the model.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        name = "NAME"  # of a server, as it stands in no command
    query, unknown_words = _about_queries(model)
    sentence = example_query or _example_query(model)
    # As JSON, which is Python too, and as Python that can be run.
    query_text = query_code = json.dumps(sentence)
    if sentence is None:
        query_text, query_code = "[0.1, ...]", f"[0.1] * {model.query_dim}"
    if "recall" in functions["serving_default"].structured_outputs:
        unknown_words = _RECALL + unknown_words
    search = ""
    if index is None:
        corpus = (
            "It holds no videos: `localize`, which is the default, takes their "
            "features\nwith every request."
        )
    else:
        corpus = (
            f"It holds {len(index):,} videos with {index.num_windows:,} "
            "windows, and `search`, which\nis the default, looks through all "
            "of them."
        )
        values = f"[{query_text}]"
        search = _SEARCH.format(
            name=name,
            row=_shell('{"signature_name": "search", "instances": %s}', values),
            column=_shell(
                '{"signature_name": "search", "inputs": {"query": %s}}', values
            ),
        )
    encoder = (
        "It is not known what made the features that the model learned from: "
        "give it\nthe same."
    )
    described = getattr(model, "encoder", None)
    if described is not None:
        encoder = (
            "The features that the model learned from were made by the encoder "
            f"`{_quoted(described['name'])}`.\nThe text below describes it. "
            "Features of another encoder give wrong answers, and\nno error."
        )
    return _TEXT.format(
        encoder=encoder,
        description=describe_model(model),
        corpus=corpus,
        domain=_about_domain(model, sentence),
        name=name,
        search=search,
        called="encode_queries" if index is None else "search",
        signatures="\n".join(_lines(signatures.inputs(), functions)),
        query=query,
        query_text=query_text,
        query_code=query_code,
        unknown_words=unknown_words,
        clip_seconds=model.clip_seconds,
        clip_dim=model.clip_dim,
        top_n=top_n,
        nms_threshold=nms_threshold,
    )


def _shell(body, values):
    """Quotes the body of a request for a shell."""
    return shlex.quote(body % values)


def _example_query(model):
    """Makes a sentence of known words; `None` if the model takes vectors."""
    if not takes_sentences(model):
        return None
    if model.vocabulary is None:
        return "a person opens the door"
    return " ".join(model.vocabulary[:4])


def _about_domain(model, sentence):
    """Tells which words the model knows, with an example sentence."""
    if model.vocabulary is None:
        return ""
    # The most frequent come first, if training has found them.
    words = ", ".join(f"`{_quoted(w)}`" for w in model.vocabulary[:_MOST_WORDS])
    text = (
        f"It knows the {len(model.vocabulary):,} words of the sentences that "
        f"it learned from, such as {words}. Ask it in these words, for example "
        f"{json.dumps(sentence)}."
    )
    return f"\n{textwrap.fill(text, 80, break_on_hyphens=False)}\n"


def _about_queries(model):
    """Explains the input `query` and the output `unknown_words`."""
    if not takes_sentences(model):
        by = "an\n  encoder that the model does not name."
        if model.query_description is not None:
            by = (
                f"the encoder\n  `{_quoted(model.query_description['name'])}`, "
                "as its `encode_sentences` makes it. That encoder is not in "
                "this\n  folder, which so takes no sentences."
            )
        vector = f"a vector of {model.query_dim} numbers for each sentence, of "
        return vector + by, ""
    if model.vocabulary is not None:
        read_by = (
            "Case,\n  punctuation and the way accents are encoded make no "
            "difference."
        )
        unknown = (
            "the words of the sentence that the model does not know. If it\n"
            "  knows none of them, the row holds no moments."
        )
    else:
        encoder = model.sentence_encoder
        read_by = (
            "The\n  text tower of the encoder "
            f"`{_quoted(encoder.name)}` reads it, up to "
            f"{encoder.num_tokens - 2} tokens; it is\n  "
            f"{encoder.text_tower.count_params() * 4 / 1e6:,.1f} MB of this "
            "folder. Case and the way accents are encoded make no\n  "
            "difference."
        )
        unknown = (
            "empty, as the encoder reads any word. If a sentence has no\n"
            "  letter and no number, the row holds no moments."
        )
    text = (
        f"a sentence each, UTF-8 text of at most {MAX_CHARACTERS:,} "
        f"characters. {read_by}"
    )
    return text, f"\n- `unknown_words`: {unknown}"


def _quoted(name):
    """Makes a name from an unknown source safe to print."""
    return ascii(name)[1:-1][:80].replace("`", "'")


def _lines(inputs, functions):
    """Yields the lines of a table of the signatures."""
    yield "| signature | inputs | outputs |"
    yield "|---|---|---|"
    for name, specs in inputs.items():
        outputs = functions[name].structured_outputs
        yield f"| `{name}` | {_tensors(specs)} | {_tensors(outputs)} |"


def _tensors(specs):
    return ", ".join(
        f"`{name}` {spec.dtype.name} "
        f"[{', '.join(str(size or '*') for size in spec.shape)}]"
        for name, spec in specs.items()
    )
