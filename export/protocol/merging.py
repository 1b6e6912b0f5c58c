"""One answer of many servers, each with a shard of one corpus."""

import concurrent.futures
import json
from typing import NamedTuple

from export.protocol.errors import ServingError


class FoundMoment(NamedTuple):
    """A moment as clients return it: seconds, and a score without a scale."""

    video_id: str
    start: float
    end: float
    score: float


class FoundMoments(list):
    """The moments of one sentence, best first: a list of `FoundMoment`s.

    Attributes:
        unknown_words: List of its words that the model does not know. If it
            knows none, there are no moments.
    """

    def __init__(self, moments, unknown_words=()):
        super().__init__(moments)
        self.unknown_words = list(unknown_words)


class MergingClient:
    """Searches a corpus in shards: asks all servers at once, merges.

    What one server with all videos would answer: each shard's best are
    exact, and the best of all are among them. All servers must serve the same
    model, whose scores compare. Where one of them fails, so does the search;
    there are no answers of half a corpus.

    Args:
        clients: List of `export.client.Client`, one for each shard.

    Example:

      servers = ["grpc://10.0.0.1:8500", "grpc://10.0.0.2:8500"]
      with MergingClient([Client(server) for server in servers]) as client:
          (moments,) = client.search(["a person opens the door"])
    """

    def __init__(self, clients):
        self.clients = list(clients)
        if not self.clients:
            raise ValueError("`clients` must be one at least. Received: []")
        self._pool = concurrent.futures.ThreadPoolExecutor(len(self.clients))

    def search(self, queries):
        """Finds the best moments of all shards, best first.

        Args:
            queries: List of sentences.

        Returns:
            For each query its `FoundMoments`, as many as the server that
            returns fewest has room for; equal scores by video and start.

        Raises:
            ServingError: If a server fails: names it.
            ValueError: If two servers have the same video.
        """
        check_queries(queries)
        if not len(queries):
            return []
        futures = [
            self._pool.submit(client.predict, {"query": queries}, "search")
            for client in self.clients
        ]
        outputs = []
        for client, future in zip(self.clients, futures):
            try:
                outputs.append(future.result())
            except ServingError as error:
                raise ServingError(
                    error.code, f"{client.server}: {error.message}"
                ) from error
        top_n = min(output["score"].shape[1] for output in outputs)
        answers = list(zip(*map(read_moments, outputs)))
        for shards in answers:
            self._check_videos(shards)
        return [
            FoundMoments(merge(shards, top_n), shards[0].unknown_words)
            for shards in answers
        ]

    def close(self):
        """Closes all connections."""
        self._pool.shutdown()
        for client in self.clients:
            client.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _check_videos(self, shards):
        owners = {}
        for client, moments in zip(self.clients, shards):
            for moment in moments:
                owner = owners.setdefault(moment.video_id, client)
                if owner is not client:
                    raise ValueError(
                        f"{owner.server} and {client.server} both have video "
                        f"{moment.video_id!r}: name one server for each shard "
                        "of one corpus."
                    )


def merge(shards, top_n):
    """The best of several rankings; equal scores by video and start.

    >>> a, b = FoundMoment("a", 0.0, 2.0, 3.0), FoundMoment("b", 1.0, 5.0, 3.0)
    >>> [moment.video_id for moment in merge([[b], [a]], top_n=2)]
    ['a', 'b']
    """
    moments = [moment for shard in shards for moment in shard]
    return sorted(moments, key=lambda m: (-m.score, *m[:3]))[:top_n]


def read_moments(outputs):
    """Lists the rows of `search` or `localize`, without what fills them up."""
    starts, ends, scores = (outputs[key] for key in ("start", "end", "score"))
    nameless = [[b""] * starts.shape[1]] * len(starts)
    unknown_words = outputs.get("unknown_words", [b""] * len(starts))
    rows = zip(outputs.get("video_id", nameless), starts, ends, scores)
    return [
        FoundMoments(
            [
                FoundMoment(
                    video_id.decode(), float(start), float(end), float(score)
                )
                for video_id, start, end, score in zip(*row)
                if end > start
            ],
            dict.fromkeys(words.decode().split()),
        )
        for row, words in zip(rows, unknown_words)
    ]


def print_answer(query, moments, as_json):
    """Prints the moments of a query, as a table or as one JSON object."""
    if as_json:
        answer = {
            "query": query,
            "unknown_words": moments.unknown_words,
            "moments": [moment._asdict() for moment in moments],
        }
        print(json.dumps(answer, ensure_ascii=False))
        return
    print(query)
    if moments.unknown_words:
        print(f"  unknown words: {', '.join(moments.unknown_words)}")
    if not moments:
        print("  no moments")
        return
    width = max([8, *(len(moment.video_id) for moment in moments)])
    print(f"  {'video':<{width}}    start      end    score")
    for video_id, start, end, score in moments:
        print(f"  {video_id:<{width}} {start:8.2f} {end:8.2f} {score:8.3f}")


def check_not_empty(queries):
    """Raises a `ValueError` where a sentence has no letter."""
    if not all(query.strip() for query in queries):
        raise ValueError("Type a sentence that says what happens in the video.")


def check_queries(queries):
    """Raises a `ValueError` where a sentence came for a list of them."""
    # A sentence is a sequence too, of letters.
    if isinstance(queries, str):
        raise ValueError(
            f"`queries` must be a list of sentences. Received: {queries!r}"
        )
