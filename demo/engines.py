"""What finds the moments: a model in this process, or one on a server."""

from acnn_tf.search.moment_index import FoundMoments


class UnknownSentenceError(ValueError):
    """A sentence of which the model knows no word."""


class ModelEngine:
    """A `MomentRetriever`."""

    has_curve = True

    def __init__(self, retriever):
        self._retriever = retriever
        self.encoder = retriever.encoder
        self.is_calibrated = retriever.calibration is not None
        self.has = retriever.has
        self.curve = retriever.curve
        self.attention = retriever.attention
        self.add = retriever.add_encoded

    def search(self, query, top, video_ids, is_all):
        """`FoundMoments` of the videos."""
        self._check(query)
        return self._retriever.search(query, top, video_ids=video_ids)

    def remove(self, video_id):
        if video_id in self._retriever.video_ids:
            self._retriever.remove(video_id)

    def _check(self, query):
        read = self._retriever.index.model.read_sentences([query])
        if not read.is_known[0]:
            raise UnknownSentenceError
