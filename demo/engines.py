"""What finds the moments: a model in this process, or one on a server."""

import contextlib
import threading

from acnn_tf.files.problems import UnknownIdError
from acnn_tf.retriever import make_encoder
from export.client import Client, FoundMoments
from export.protocol.merging import merge

# Seconds that a server may take, and how often it is asked again.
_TIMEOUT, _RETRIES = 10.0, 1


class UnknownSentenceError(ValueError):
    """A sentence of which the model knows no word."""


class ModelEngine:
    """A `MomentRetriever`.

    Its `curve` and `attention` are those of the retriever, and so are `has`
    and `add`, which is `add_encoded`.

    Args:
        retriever: `acnn_tf.MomentRetriever`.

    Attributes:
        words: The words that the model knows, or `None` if it has no list of
            them.
    """

    has_curve = True

    def __init__(self, retriever):
        self._retriever = retriever
        self.encoder = retriever.encoder
        self.is_calibrated = retriever.calibration is not None
        self.words = retriever.index.model.vocabulary
        self.has = retriever.has
        self.add = retriever.add_encoded
        self.curve = retriever.curve
        self.attention = retriever.attention

    def search(self, query, top, video_ids):
        """The best moments of all these videos, best first.

        Returns:
            List of moments with an attribute `unknown_words`.

        Raises:
            UnknownSentenceError: If the model knows no word of it.
            UnknownIdError: If a video is not there.
        """
        found = self._retriever.search(query, top, video_ids=video_ids)
        if not found:  # perhaps there are no videos
            read = self._retriever.index.model.read_sentences([query])
            if not read.is_known[0]:
                raise UnknownSentenceError
        return found

    def known(self, sentences):
        """Those of which the model knows all words."""
        if self.words is None or not sentences:
            return sentences
        read = self._retriever.index.model.read_sentences(sentences)
        return [s for s, n in zip(sentences, read.unknown_words) if not n]

    def search_in(self, query, top, video_ids, clips_of):
        """`search` in some of the videos.

        `clips_of` returns the `EncodedVideo` of an id, where that is needed.
        """
        return self.search(query, top, video_ids)

    def remove(self, video_id):
        """Removes a video, if it is there."""
        with contextlib.suppress(UnknownIdError):
            self._retriever.remove(video_id)


class ServerEngine:
    """A model on a server: its own corpus, and one video by its clips.

    Args:
        address: `"grpc://HOST:PORT"` or `"http://HOST:PORT"`, see `Client`.
        model: The name that the server gives to the model. Default: `"acnn"`.
        encoder: Name of the encoder of the clips. Default: the one that the
            server says its model learned from.
    """

    has_curve = False
    is_calibrated = False
    words = None

    def __init__(self, address, model=None, encoder=None):
        self._client = Client(
            address, model, timeout=_TIMEOUT, retries=_RETRIES
        )
        self._named, self._encoder = encoder, None
        self._lock = threading.Lock()

    @property
    def encoder(self):
        """The encoder of clips that the server's model takes.

        Raises:
            ServingError: If the server does not answer.
            ValueError: If it does not say which encoder, and none is named.
        """
        with self._lock:
            if self._encoder is None:
                told = self._client.describe()
                self._encoder = make_encoder(
                    told.get("encoder"), told.get("clip_seconds"), self._named
                )
            return self._encoder

    def known(self, sentences):
        """All of them: a server does not say which words it knows."""
        return sentences

    def search(self, query, top, video_ids):
        """The best moments of the server's corpus."""
        (moments,) = self._client.search([query])
        return _known(moments, top)

    def search_in(self, query, top, video_ids, clips_of):
        """The best moments of some videos, whose clips the server is sent."""
        answers, queries = [], self._queries(query)
        for video_id in video_ids:
            video = clips_of(video_id)
            (moments,) = self._client.localize(
                [video.clips], queries, [video.duration]
            )
            named = [one._replace(video_id=video_id) for one in moments]
            answers.append(FoundMoments(named, moments.unknown_words))
        unknown = answers[0].unknown_words if answers else ()
        return _known(FoundMoments(merge(answers, top), unknown), top)

    def _queries(self, query):
        signature = self._client.metadata()["signatures"]["localize"]
        if signature["inputs"]["query"]["dtype"] == "string":
            return [query]
        return self.encoder.encode_sentences([query])

    def has(self, video_id, path):
        """Whether there is nothing to add: the server keeps no clips."""
        return True

    def add(self, video_id, video, path):
        """Nothing: clips are sent with each question."""

    def remove(self, video_id):
        """Nothing."""


def _known(moments, top):
    if not moments and moments.unknown_words:
        raise UnknownSentenceError
    return FoundMoments(moments[:top], moments.unknown_words)
