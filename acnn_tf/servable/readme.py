"""The text that lies beside a SavedModel."""

from acnn_tf.files.text import MAX_CHARACTERS
from acnn_tf.servable.signatures import describe_model, takes_sentences

_TEXT = """\
# A servable for video moment retrieval

A sentence in; start, end and score of moments in videos out. Any program that
runs a TensorFlow SavedModel can serve this folder; it needs core operations
only.

{corpus}

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
- `score`: higher is better. Scores compare the moments of one query; they are
  no probabilities, and those of two queries do not compare.{unknown_words}
- `window`, `segment`, `num_windows`: the encoded windows of a video, their
  start and end in seconds, and how many of the row are real. With `query` of
  `encode_queries` they are what a larger index is made of.

`localize` finds each query in the video of its row; one video may come with
several queries, or one query with several videos.

## What made the features

{encoder}

The signature `describe` tells it, too, so that a program can compare before it
sends: to any number as `row` it answers `description`, this text.

    {description}

A server may batch requests, and pad their `clip`s to one length: a row gives
the same answer alone.

## By REST

    curl http://localhost:8501/v1/models/acnn:predict \\
        -d '{request}'
"""


def readme(model, signatures, functions, index, top_n, nms_threshold):
    """Describes the folder that `export` writes, as Markdown.

    The arguments are those of `export`, with `Signatures` and their
    `concrete_functions`.
    """
    query, sentence, unknown_words = _about_queries(model)
    if index is None:
        corpus = (
            "It holds no videos: `localize`, which is the default, takes their "
            "features\nwith every request."
        )
        request = (
            '{"inputs": {"clip": [[[0.1, ...], ...]], "num_clips": [30], '
            f'"duration": [0], "query": [{sentence}]}}}}'
        )
    else:
        corpus = (
            f"It holds {len(index):,} videos with {index.num_windows:,} "
            "windows, and `search`, which\nis the default, looks through all "
            "of them."
        )
        request = f'{{"instances": [{sentence}]}}'
    encoder = (
        "It is not known what made the features that the model learned from: "
        "give it\nthe same."
    )
    if getattr(model, "encoder", None) is not None:
        encoder = (
            "The features that the model learned from were made by what "
            "`encoder` describes.\nOthers give wrong answers, and no error."
        )
    return _TEXT.format(
        encoder=encoder,
        description=describe_model(model),
        corpus=corpus,
        signatures="\n".join(_lines(signatures.inputs(), functions)),
        query=query,
        unknown_words=unknown_words,
        clip_seconds=model.clip_seconds,
        clip_dim=model.clip_dim,
        top_n=top_n,
        nms_threshold=nms_threshold,
        request=request,
    )


def _about_queries(model):
    """What `query` is, an example of it, and what `unknown_words` are."""
    if not takes_sentences(model):
        by = "an\n  encoder that the model does not name."
        if model.query_description is not None:
            by = (
                f"the encoder\n  `{_quoted(model.query_description['name'])}`, "
                "as its `encode_sentences` makes it. That encoder is not in "
                "this\n  folder, which so takes no sentences."
            )
        vector = f"a vector of {model.query_dim} numbers for each sentence, of "
        return vector + by, "[0.1, ...]", ""
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
    return (
        text,
        '"a person opens the door"',
        f"\n- `unknown_words`: {unknown}",
    )


def _quoted(name):
    """A name that anybody may have written."""
    return ascii(name)[1:-1][:80]


def _lines(inputs, functions):
    """A table of the signatures."""
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
