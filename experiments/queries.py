"""Sentences to search for, and how many answers: the flags that say it."""

from absl import flags

from acnn_tf.files.problems import DataError, Problem
from acnn_tf.files.text import normalize, text_lines
from export import flag_help
from export.protocol.merging import check_not_empty

# All are encoded at once.
_MAX_QUERIES = 10_000

flags.DEFINE_multi_string(
    "query", None, "Sentence to search for; repeat it for several."
)
flags.DEFINE_string(
    "queries_file", None, "Text file of sentences to search for, one a line."
)
flags.DEFINE_integer(
    "top", 5, "Number of moments to print for a sentence.", lower_bound=1
)
flags.DEFINE_float(
    "nms_threshold",
    None,
    "IoU that two moments of one video may have at most. Default: 0.5.",
)
flag_help.subject("Sentences", "query", "queries_file", "top", "nms_threshold")


def read_queries(query=(), queries_file=None):
    """Returns the sentences that the flags name."""
    queries, problems = list(map(normalize, query)), []
    if queries_file:
        for line, text in text_lines(queries_file):
            try:
                if isinstance(text, ValueError):  # not UTF-8, or too long
                    raise text
                queries.append(normalize(text).strip())
            except ValueError as error:
                problems.append(Problem(queries_file, line, str(error)))
            if len(queries) > _MAX_QUERIES:
                raise ValueError(
                    f"{queries_file} has more than {_MAX_QUERIES:,} "
                    "sentences: split it."
                )
    if problems:
        raise DataError(problems)
    if not queries:
        raise ValueError("Give --query, or --queries_file.")
    check_not_empty(queries)
    return queries


def refuse_unknown(sentences):
    """Raises a `ValueError` that names sentences without any known word."""
    if sentences:
        raise ValueError(
            "The model knows no word of "
            + ", ".join(map(repr, sentences))
            + ". It was trained on other words; say it in those, and check the "
            "spelling."
        )
