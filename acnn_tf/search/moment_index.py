"""All windows of many videos, encoded once and searched together."""

import collections
import concurrent.futures
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from acnn_tf import segments as segments_lib
from acnn_tf.data.windows import check_queries
from acnn_tf.files.problems import UnknownIdError
from acnn_tf.search.best_moments import rank_function, start_search
from acnn_tf.search.encoding import EncodedVideo, to_numpy
from acnn_tf.search.ranking import RankingSettings, candidates
from acnn_tf.search.scoring import bounds_function, encode_function
from acnn_tf.search.shards import open_index
from acnn_tf.search.shortlist import (
    Windows,
    check_recall,
    fit_line,
    is_worthwhile,
    line_scores,
    owners_of,
    sample_rows,
    search_shortlist,
)

# Windows that go through memory at a time.
_CHUNK = 32_768
# Queries that are searched for together: bounds memory, and a wider product
# is no faster.
_QUERIES = 16
# Of those, how many a linear shortlist is searched for at once: its steps are
# too small to fill the processor.
_THREADS = 4


class FoundMoment(typing.NamedTuple):
    """A moment that a search found.

    Attributes:
        video_id: Id of the video.
        start: Seconds from the start of the video.
        end: Seconds from the start of the video.
        score: The higher, the better the moment answers the sentence.

    Example:

    >>> import acnn_tf
    >>> moment = acnn_tf.search.FoundMoment("v1", 2.0, 6.5, score=0.9)
    >>> moment.end - moment.start
    4.5
    """

    video_id: str
    start: float
    end: float
    score: float


class Results(list):
    """The moments of one query, best first: a list of `FoundMoment`.

    Attributes:
        recall: Float: the share of the best moments that are expected to be
            among them; 1 where the search is exact.
    """

    def __init__(
        self, moments: Iterable[FoundMoment] = (), recall: float = 1.0
    ):
        super().__init__(moments)
        self.recall = recall


class FoundMoments(Results):
    """The moments of one sentence, best first: a list of `FoundMoment`.

    Attributes:
        recall: See `Results`.
        query: The sentence.
        unknown_words: Its words that the model does not know. If it knows
            none of them, it has no moments.
        is_mostly_known: Whether the model knows more than half of its words.
            If not, a score says nothing of how likely a moment is right.
    """

    def __init__(
        self,
        moments: Iterable[FoundMoment],
        query: str,
        unknown_words: Sequence[str],
        recall: float = 1.0,
        is_mostly_known: bool = True,
    ):
        super().__init__(moments, recall)
        self.query = query
        self.unknown_words = unknown_words
        self.is_mostly_known = is_mostly_known


class MomentIndex:
    """Finds the best moments over all videos for a sentence.

    Every window of every video is encoded once; a search is one matrix
    product of the folded queries with all of them. It is exact: what the
    model's `match` finds best, shifted by the offsets, ranked and suppressed
    within each video as everywhere in `acnn_tf.search`. Only scores are
    computed for all windows. They bound what a video can hold, and offsets
    are computed for the videos whose bound reaches the top.

    The encodings lie in memory or, memory-mapped, in a folder. Opening one
    compares the SHA-256 of every file, and so reads it once: about 1.5 GB/s
    where the processor has instructions for it and the file is in memory, or
    else as fast as the disk. Several processes may add to one folder: they
    wait for each other. A folder of shards (`acnn_tf.search.shards`) is opened
    as one index, read-only, and gone through shard by shard.

    Threads may search while others add or remove: a search never waits for
    them, and answers from the videos that were there as it began.

    Args:
        model: See `acnn_tf.search`.
        path: Folder of an index, or of shards, where there is one; a new
            folder to keep a new index in; `None` keeps it in memory.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`: how encodings are
            kept. What is exact is then the search over the rounded ones.

    Raises:
        IndexFileError: If the folder holds an index of another model or
            another `dtype`, a damaged one, or not all shards.

    Example:

    >>> import acnn_tf
    >>> import numpy as np
    >>> model = acnn_tf.models.ZeroShot((4.0,), window_overlap=0.5)
    >>> index = acnn_tf.search.MomentIndex(model)
    >>> index.append({"v1": np.eye(8, 3)})
    >>> ((moment,),) = index.search_queries(np.eye(1, 3), top_n=1)
    >>> moment.video_id, moment.start, moment.end
    ('v1', 0.0, 4.0)

    With a model that reads words, `search` takes sentences:

    >>> index.search(["a man runs"], top_n=1)  # doctest: +SKIP
    [[FoundMoment(video_id='v7', start=4.5, end=9.0, score=3.2)]]
    """

    def __init__(
        self,
        model: keras.Model,
        path: str | os.PathLike | None = None,
        *,
        dtype: str | None = None,
    ):
        self.model = model
        self._files = open_index(path, model, dtype)
        self._encode, self._bounds, self._rank = _functions(model)
        self._sample = None, None  # the contents, and some windows of theirs

    def __len__(self):
        return len(self._files.contents.videos)

    @property
    def num_windows(self) -> int:
        """The number of windows of all videos."""
        return self._files.contents.num_windows

    @property
    def video_ids(self) -> list[str]:
        """Ids of all videos, in the order in which they were encoded."""
        return self._files.contents.video_ids

    @property
    def sources(self) -> dict[str, str | None]:
        """Dictionary from the ids of all videos to what `update` noted."""
        videos = self._files.contents.videos
        return {video.video_id: video.source for video in videos}

    @property
    def dtype(self) -> str:
        """The type in which the encodings are stored."""
        return self._files.dtype

    @property
    def encoder(self) -> dict | None:
        """The description of the encoder of the features, or `None`."""
        return self._files.encoder

    def videos(self) -> Iterator[EncodedVideo]:
        """All videos, in the order in which they were encoded.

        Yields:
            `EncodedVideo`.
        """
        contents = self._files.contents
        return map(contents.encoded, contents.videos)

    def append(
        self,
        features: Mapping[str, np.ndarray],
        durations: Mapping[str, float] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Encodes videos and adds them.

        All of them or, if anything fails, none: what was there before stays.
        Videos that another process has added to the folder are there as well
        afterwards; while it is at work, this waits.

        Args:
            features: Mapping from video id to `[T, D]` clip features, such as
                `acnn_tf.data.features.open_features` returns.
            durations: Seconds of each video to add, by video id. Default: all
                videos of `features`, each as long as its clips.
            progress: Called after each video with two numbers: how many
                windows are encoded, and how many there are to encode.

        Raises:
            DataError: If the features were not made as those of the index or
                of the model were; see `acnn_tf.encoders.check`.
            WriteError: If the disk is full; the message names the file.
            ValueError: If a video is there already, or the folder is a shard
                or holds shards.
        """
        self._files.check(features)
        if durations is None:
            durations = self._seconds(features, features, {})
        if not durations:
            return
        with self._files.updating():
            known = durations.keys() & self.video_ids
            if known:
                raise ValueError(
                    f"Video {min(known)!r} is in the index already "
                    f"({len(known)} of {len(durations)} are)."
                )
            self._files.encode(features, durations, progress)

    def add_missing(
        self,
        features: Mapping[str, np.ndarray],
        durations: Mapping[str, float] | None = None,
        video_ids: Iterable[str] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Appends the videos that the index does not have yet.

        Processes that do so at once with one folder wait for each other: each
        adds what those before it have not, and has what they have added.

        Args:
            features: See `append`.
            durations: Dictionary from video id to seconds. A video that it
                leaves out lasts as long as its clips.
            video_ids: Ids of the videos to add. Default: all of `features`.
            progress: See `append`.

        Raises:
            DataError: See `append`.
            WriteError: See `append`.
            ValueError: If there are videos to add to a shard, or to shards.

        Example:

        >>> index = MomentIndex(model, "runs/index")  # doctest: +SKIP
        >>> index.add_missing(open_features("clips.hdf5"))  # doctest: +SKIP
        """

        def missing():
            known = set(self.video_ids)
            wanted = features if video_ids is None else video_ids
            return [video_id for video_id in wanted if video_id not in known]

        self._files.check(features)
        if not missing():
            return
        with self._files.updating():
            new = self._seconds(features, missing(), durations or {})
            if new:
                self._files.encode(features, new, progress)

    def update(
        self,
        features: Mapping[str, np.ndarray],
        durations: Mapping[str, float],
        sources: Mapping[str, str],
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Appends videos, and removes older ones with the same ids.

        Args:
            features: See `append`.
            durations: Dictionary from video id to seconds: the videos to add.
            sources: Dictionary from video id to a string that tells one state
                of its file from another; kept with it, see `sources`.
            progress: See `append`.
        """
        with self._files.updating():
            without = durations.keys() & self.video_ids
            self._files.encode(
                features, durations, progress, without=without, sources=sources
            )

    def remove(self, video_ids: Iterable[str]) -> None:
        """Removes videos. If anything fails, it removes none.

        What is left of the files that held them is written anew, and then
        takes their place, all at once: other processes that search in the
        folder go on with what they have opened.

        Args:
            video_ids: List of ids.

        Raises:
            UnknownIdError: If one of them is not there; none is removed.
            WriteError: See `append`.

        Example:

        >>> index.remove(["v7"])  # doctest: +SKIP
        """
        with self._files.updating():
            self._check_known(video_ids, self._files.contents)
            if len(video_ids):
                self._files.append([], 0, self.encoder, without=set(video_ids))

    def _check_known(self, video_ids, contents):
        if isinstance(video_ids, str):
            raise ValueError(
                "`video_ids` must be a list of ids. "
                f"Received: {video_ids!r:.60}"
            )
        if missing := set(video_ids) - set(contents.video_ids):
            raise UnknownIdError(
                f"{self._files.path or 'the index'} has no video "
                f"{min(missing)!r} ({len(missing)} of {len(video_ids)} are "
                "missing)"
            )

    def _seconds(self, features, video_ids, durations):
        clip_seconds = getattr(
            features, "clip_seconds", self.model.clip_seconds
        )
        return {
            video_id: durations[video_id]
            if durations.get(video_id) is not None
            else len(features[video_id]) * clip_seconds
            for video_id in video_ids
        }

    def save(self, path: str | os.PathLike) -> None:
        """Writes an index that was kept in memory to a folder.

        Args:
            path: Folder that is not there yet.
        """
        self._files.save(path)

    def scored_windows(
        self, sentence: str, video_id: str
    ) -> tuple[EncodedVideo, np.ndarray, np.ndarray] | None:
        """Scores all windows of one video for one sentence, without a ranking.

        Args:
            sentence: What to look for.
            video_id: Id of the video.

        Returns:
            `(video, segments, scores)`: the `EncodedVideo`, and for each of
            its windows the moment that it becomes, array `[W, 2]`, and its
            score, `[W]`. The moments that `search` finds are among them. Or
            `None`, if the model knows no word of the sentence.

        Raises:
            UnknownIdError: If the video is not there.
        """
        contents = self._files.contents
        self._check_known([video_id], contents)
        (video,) = (v for v in contents.videos if v.video_id == video_id)
        read = self.model.read_sentences([sentence])
        if not read.is_known[0]:
            return None
        video = contents.encoded(video)
        segments, scores = candidates(
            self.model, self._encode(read.queries), video
        )
        return video, segments[0], scores[0]

    def search(
        self, sentences: Sequence[str], **settings
    ) -> list[FoundMoments]:
        """Finds the best moments of all videos for each sentence.

        Args:
            sentences: The Q sentences.
            **settings: `top_n` and the others of `search_encoded`.

        Returns:
            For each sentence `FoundMoments`, a list of `FoundMoment`, best
            first; equal scores by video and start. It is empty, and its
            `unknown_words` say why, for a sentence of which the model knows
            no word.

        Raises:
            ValueError: If the model takes vectors of sentences: see
                `search_queries`.
        """
        if not isinstance(sentences, str):  # which `read_sentences` refuses
            sentences = list(sentences)
        read = self.model.read_sentences(sentences)
        known = np.flatnonzero(read.is_known)
        found = collections.defaultdict(Results)
        if len(known):
            queries = self._encode(read.queries[known])
            found |= zip(known, self.search_encoded(queries, **settings))
        return [
            FoundMoments(
                found[row],
                sentence,
                read.unknown_words[row],
                found[row].recall,
                read.is_mostly_known[row],
            )
            for row, sentence in enumerate(sentences)
        ]

    def search_queries(self, queries: np.ndarray, **settings) -> list[Results]:
        """Searches for queries that are word ids or sentence vectors.

        Args:
            queries: `[Q, L]` word ids or `[Q, E]` sentence vectors.
            **settings: Arguments of `search_encoded`, such as `top_n`.

        Returns:
            For each query its moments, in the order in which `search` returns
            them.
        """
        vocabulary = getattr(self.model, "vocabulary", None)
        if vocabulary is not None:
            queries = check_queries(queries, vocabulary)
        return self.search_encoded(self._encode(queries), **settings)

    def search_encoded(
        self,
        queries: np.ndarray | keras.KerasTensor,
        *,
        top_n: int = 5,
        suppression: str = "fixed",
        nms_threshold: float = 0.5,
        shortlist: str | None = None,
        min_recall: float = 0.99,
        video_ids: Iterable[str] | None = None,
    ) -> list[Results]:
        """Searches for queries that the model has encoded already.

        Args:
            queries: `[Q, t]` from `model.encode_queries`.
            top_n: How many moments of a query are returned at most.
            suppression: `"none"` or `"fixed"`, among results of one video.
            nms_threshold: Float, see `acnn_tf.segments.suppression_iou`.
            shortlist: `"bfloat16"` scores the windows roughly, which is
                faster where the processor has bfloat16 products, and then
                ranks exactly all videos that could be among the best by the
                largest error seen. `"linear"` scores them by a straight line
                and then exactly those that may be among the best, see
                `acnn_tf.search.shortlist`; a few windows are all scored
                exactly, which is as fast. From the second such search on, all
                windows are also kept in memory as int8, and of a folder only
                the chosen ones are read. Default: exact from the start.
            min_recall: Float below 1: the share of the best moments that the
                linear shortlist is to find. What it expects to have found is
                the attribute `recall` of each list.
            video_ids: Ids of the videos to search in. Default: all.

        Returns:
            For each query its moments, in the order in which `search` returns
            them.
        """
        if top_n < 1:
            raise ValueError(f"`top_n` must be positive. Received: {top_n}")
        if shortlist not in (None, "bfloat16", "linear"):
            raise ValueError(
                "`shortlist` must be 'linear', 'bfloat16' or None. "
                f"Received: {shortlist}"
            )
        check_recall(min_recall)
        max_iou = segments_lib.suppression_iou(suppression, nms_threshold)
        contents = self._files.contents  # whatever is added meanwhile
        if video_ids is not None:
            self._check_known(video_ids, contents)
        # By their ids, which rank moments of equal scores.
        ids = contents.video_ids
        order = sorted(range(len(ids)), key=ids.__getitem__)
        if video_ids is not None:
            wanted = set(video_ids)
            order = [number for number in order if ids[number] in wanted]
        queries = to_numpy(queries)
        found = []
        for first in range(0, len(queries), _QUERIES):
            some = queries[first : first + _QUERIES]
            arguments = contents, some, order, top_n, max_iou
            if shortlist == "linear":
                found += self._search_by_line(*arguments, min_recall)
            else:
                found += self._search(*arguments, shortlist or "float32")
        return found

    def _search(self, contents, queries, order, top_n, max_iou, precision):
        """Searches exactly, for a few queries and in videos in this order."""
        if not order:
            return [Results() for _ in queries]
        folded = list(map(ops.convert_to_tensor, self.model.fold(queries)))
        bounds = self._over_chunks(
            contents,
            lambda *chunk: self._bounds(folded, *chunk, precision),
        )
        videos = [contents.videos[number] for number in order]
        moments = self._rank_videos(
            contents, folded, bounds[order].T, videos, top_n, max_iou
        )
        return _listed(videos, moments)

    def _search_by_line(
        self, contents, queries, order, top_n, max_iou, min_recall
    ):
        """Searches with a linear shortlist, for a few queries."""
        videos = [contents.videos[number] for number in order]
        if not is_worthwhile(sum(video.num_windows for video in videos)):
            return self._search(
                contents, queries, order, top_n, max_iou, "float32"
            )
        folded = list(map(ops.convert_to_tensor, self.model.fold(queries)))
        windows, owners, sample, encodings = self._sampled(contents)
        numbers = tf.constant(order, tf.int32)
        scores = self._scores(folded, encodings)
        _check_finite(np.isfinite(scores).all())
        rough = line_scores(fit_line(encodings, scores).numpy(), windows)
        if len(order) < len(contents.videos):
            wanted = np.zeros(len(contents.videos), bool)
            wanted[order] = True
            wanted = tf.constant(wanted[windows.owners])
            rough = (tf.where(wanted, scores, -np.inf) for scores in rough)

        def search(rough, *one):
            one, arguments = list(one), (videos, top_n, max_iou, False)
            moments, recall = search_shortlist(
                rough,
                sample,
                owners,
                len(contents.videos),
                RankingSettings.of(self.model),
                lambda rows: self._scores(one, windows.take(rows.numpy()))[
                    :, 0
                ],
                lambda bounds: self._rank_videos(
                    contents, one, tf.gather(bounds, numbers)[None], *arguments
                ),
                min(top_n, contents.num_windows),
                min_recall,
            )
            return _listed(videos, moments, [float(recall)])[0]

        split = (ops.split(part, len(queries)) for part in folded)
        if len(queries) == 1:
            return list(map(search, rough, *split))
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(search, rough, *split))

    def _scores(self, folded, encoding):
        """Computes exact scores `[N, Q]` of windows `[N, t]`."""
        owner = np.arange(len(encoding), dtype=np.int32)
        return self._bounds(folded, encoding, owner, "float32")

    def _sampled(self, contents):
        """Returns all `Windows`, and a sample of their rows and encodings.

        From the second time on, the windows are rounded.
        """
        known, found = self._sample
        if known is not contents:
            windows = Windows.of(contents.chunks(_CHUNK))
            sample = sample_rows(len(windows.owners))
            encodings = windows.take(sample)
            owners, sample = map(tf.constant, (windows.owners, sample))
            found = windows, owners, sample, encodings
            self._sample = contents, found
        else:  # worth its time only if there is more than one search
            found[0].round()
        return found

    def _over_chunks(self, contents, function):
        """Calls a function for all windows in chunks; returns `[V, Q]`."""
        found = []
        for encoding, starts in contents.chunks(_CHUNK):
            found.append(function(encoding, owners_of(encoding, starts)))
        return np.concatenate(found)

    def _rank_videos(
        self, contents, folded, bounds, videos, top_n, max_iou, is_sure=True
    ):
        """Ranks videos with bounds `[Q, V]`; returns the best `Moments`."""
        max_iou = tf.constant(max_iou, tf.float64)
        top_n = tf.constant(min(top_n, contents.num_windows))
        search = start_search(
            bounds,
            np.array([video.num_windows for video in videos], np.int32),
            top_n,
            is_sure,
        )
        while not search.is_done:
            arrays = _padded(contents, videos, search.video.numpy())
            search = self._rank(folded, search, *arrays, top_n, max_iou)
        _check_finite(search.is_finite)
        return search.moments


def _functions(model):
    """What a search calls: its graphs are those of all indexes of a model.

    The model keeps them, so that they go with it. Keras, which would take
    them for a part of the model, does not see them there.
    """
    own = vars(model)
    if "_search_functions" not in own:
        makers = encode_function, bounds_function, rank_function
        own["_search_functions"] = [make(model) for make in makers]
    return own["_search_functions"]


def _check_finite(is_finite):
    if not is_finite:
        raise ValueError(
            "The queries, or the scores that the model gives them, are not "
            "finite. Check the queries and the model's weights."
        )


def _listed(videos, moments, recalls=None):
    """Converts `Moments` to `Results`, one for each query."""
    columns = zip(*(array.numpy().tolist() for array in moments))
    return [
        Results(
            [
                FoundMoment(videos[number].video_id, *segment, score)
                for number, segment, score in zip(*rows)
                if number >= 0
            ],
            recalls[place] if recalls else 1.0,
        )
        for place, rows in enumerate(columns)
    ]


def _padded(contents, videos, numbers):
    """Pads encodings, windows and durations of `[q, v]` videos; -1 is none."""
    rows = [[videos[n] for n in row if n >= 0] for row in numbers]
    most = max(video.num_windows for row in rows for video in row)
    dim = contents.encoding(rows[0][0]).shape[1]
    encoding = np.zeros((*numbers.shape, most, dim), np.float32)
    windows = np.zeros((*numbers.shape, most, 2))
    durations = np.ones(numbers.shape)
    for row, several in enumerate(rows):
        for column, video in enumerate(several):
            own = row, column, slice(video.num_windows)
            encoding[own] = contents.encoding(video)
            windows[own] = contents.windows(video)
            durations[row, column] = video.duration
    return encoding.reshape(len(rows), -1, dim), windows, durations
