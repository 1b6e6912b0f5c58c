"""All windows of many videos, encoded once and searched together."""

import typing

import numpy as np

from acnn_tf import segments as segments_lib
from acnn_tf.search.encoding import to_numpy
from acnn_tf.search.ranking import rescore, shift
from acnn_tf.search.scoring import (
    encode_function,
    locate_function,
    score_function,
)
from acnn_tf.search.shards import open_index

# Windows that go through memory at a time.
_CHUNK = 32_768
# Windows that are ranked at a time.
_VISITED = 65_536
# Queries that are searched for together: bounds memory, and a wider product
# is no faster.
_QUERIES = 16


class FoundMoment(typing.NamedTuple):
    """A moment that a search found; times in seconds."""

    video_id: str
    start: float
    end: float
    score: float


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

    >>> index = MomentIndex(model, "runs/index")  # doctest: +SKIP
    >>> index.append(open_features("clips.hdf5"))  # doctest: +SKIP
    >>> queries = vocabulary.encode(["a man runs"])  # doctest: +SKIP
    >>> index.search(queries, top_n=1)  # doctest: +SKIP
    [[FoundMoment(video_id='v7', start=4.5, end=9.0, score=3.2)]]
    """

    def __init__(self, model, path=None, *, dtype=None):
        self.model = model
        self._files = open_index(path, model, dtype)
        self._encode = encode_function(model)
        self._scores = score_function(model)
        self._locate = locate_function(model)

    def __len__(self):
        return len(self._files.videos)

    @property
    def num_windows(self):
        """Windows of all videos."""
        return self._files.num_windows

    @property
    def video_ids(self):
        """Ids of all videos, in the order in which they were encoded."""
        return [video.video_id for video in self._files.videos]

    @property
    def dtype(self):
        """How the encodings are kept."""
        return self._files.dtype

    def videos(self):
        """All videos, in the order in which they were encoded.

        Yields:
            `EncodedVideo`.
        """
        return self._files.encoded()

    def append(self, features, durations=None, progress=None):
        """Encodes videos and adds them.

        All of them or, if anything fails, none: what was there before stays.
        Videos that another process has added to the folder are there as well
        afterwards; while it is at work, this waits.

        Args:
            features: Mapping from video id to `[T, D]` clip features, such as
                `acnn_tf.data.features.open_features` returns.
            durations: Dictionary from video id to seconds: the videos to add.
                Default: all, as long as their clips.
            progress: Function of two numbers, windows encoded and windows in
                all, called after each video.

        Raises:
            WriteError: If the disk is full; the message says of what.
            ValueError: If a video is there already, or the folder is a shard
                or holds shards.
        """
        if durations is None:
            durations = self._seconds(features, features, {})
        if not durations:
            return
        with self._files.updating():
            known = set(self.video_ids) & set(durations)
            if known:
                raise ValueError(
                    f"Video {min(known)!r} is in the index already "
                    f"({len(known)} of {len(durations)} are)."
                )
            self._files.encode(features, durations, progress)

    def add_missing(
        self, features, durations=None, video_ids=None, progress=None
    ):
        """`append` for those videos that the index does not have.

        Processes that do so at once with one folder wait for each other: each
        adds what those before it have not, and has what they have added.

        Args:
            features: See `append`.
            durations: Dictionary from video id to seconds. A video that it
                leaves out lasts as long as its clips.
            video_ids: Ids, to add only these. Default: all of `features`.
            progress: See `append`.

        Raises:
            WriteError: See `append`.
            ValueError: If there are videos to add to a shard, or to shards.

        Example:

        >>> index = MomentIndex(model, "runs/index")  # doctest: +SKIP
        >>> index.add_missing(open_features("clips.hdf5"))  # doctest: +SKIP
        """
        if video_ids is None:
            video_ids = features

        def missing():
            known = set(self.video_ids)
            return [video_id for video_id in video_ids if video_id not in known]

        if not missing():
            return
        with self._files.updating():
            new = self._seconds(features, missing(), durations or {})
            if new:
                self._files.encode(features, new, progress)

    def _seconds(self, features, video_ids, durations):
        clip_seconds = getattr(
            features, "clip_seconds", self.model.clip_seconds
        )
        return {
            video_id: durations.get(video_id)
            or len(features[video_id]) * clip_seconds
            for video_id in video_ids
        }

    def save(self, path):
        """Writes an index that was kept in memory to a folder.

        Args:
            path: Folder that is not there yet.
        """
        self._files.save(path)

    def search(
        self,
        queries,
        *,
        top_n=5,
        suppression="fixed",
        nms_threshold=0.5,
        shortlist=None,
    ):
        """The best moments over all videos, for each query.

        Args:
            queries: What `model.encode_queries` takes: `[Q, L]` word ids or
                `[Q, E]` sentence vectors.
            top_n: Int, results of a query.
            suppression: `"none"` or `"fixed"`, among results of one video.
            nms_threshold: Float, see `acnn_tf.segments.suppression_iou`.
            shortlist: `"bfloat16"` scores the windows roughly, which is
                faster where the processor has bfloat16 products, and then
                ranks exactly all videos that could be among the best by the
                largest error seen. Default: exact from the start.

        Returns:
            For each query a list of `FoundMoment`, best first; equal scores by
            video and start.
        """
        return self.search_encoded(
            self._encode(queries),
            top_n=top_n,
            suppression=suppression,
            nms_threshold=nms_threshold,
            shortlist=shortlist,
        )

    def search_encoded(
        self,
        queries,
        *,
        top_n=5,
        suppression="fixed",
        nms_threshold=0.5,
        shortlist=None,
    ):
        """`search` for queries that are encoded already.

        Args:
            queries: `[Q, t]` from `model.encode_queries`.
            top_n: See `search`, as the others.
            suppression: Likewise.
            nms_threshold: Likewise.
            shortlist: Likewise.

        Returns:
            As `search`.
        """
        if top_n < 1:
            raise ValueError(f"`top_n` must be positive. Received: {top_n}")
        if shortlist not in (None, "bfloat16"):
            raise ValueError(
                f"`shortlist` must be 'bfloat16' or None. Received: {shortlist}"
            )
        max_iou = segments_lib.suppression_iou(suppression, nms_threshold)
        queries = to_numpy(queries)
        found = []
        for first in range(0, len(queries), _QUERIES):
            some = queries[first : first + _QUERIES]
            if not len(self):
                found += [[] for _ in some]
                continue
            folded = self.model.fold(some)
            bounds = self._bounds(folded, shortlist or "float32")
            found += self._best(folded, bounds, top_n, max_iou)
        return found

    def _bounds(self, folded, precision):
        """The most that any result of a video can score: `[Q, V]`.

        That is the highest score of its windows; where windows support each
        other (`consensus`), the logarithm of the sum of their exponentials,
        which is what a window would have that all others agree with; `decay`
        only lowers scores.
        """
        bounds = []
        for encoding, starts in self._files.chunks(_CHUNK):
            scores = self._scores(encoding, folded, precision)
            highest = np.maximum.reduceat(scores, starts, axis=0)  # [v, Q]
            if self.model.consensus_iou is not None:
                counts = np.diff([*starts, len(scores)])
                scores = scores - np.repeat(highest, counts, axis=0)
                np.exp(scores, out=scores)
                highest += np.log(np.add.reduceat(scores, starts, axis=0))
            bounds.append(highest)
        bounds = np.concatenate(bounds).T
        if np.isnan(bounds).any():
            raise ValueError(
                "The queries or the model's weights are not finite."
            )
        return bounds

    def _best(self, folded, bounds, top_n, max_iou):
        """Visits videos by falling bounds until no other can reach the top."""
        order = np.argsort(-bounds, axis=1, kind="stable")
        results = [[] for _ in bounds]  # (-score, video id, start, end)
        visited = np.zeros(len(bounds), int)
        error, step = 0.0, top_n
        while True:
            wanted = []
            for row, done in enumerate(visited):
                videos = order[row, done : done + step]
                if len(results[row]) >= top_n:
                    # Bounds and scores come from different products.
                    lowest = -results[row][-1][0] - 2 * error - 1e-6
                    videos = videos[bounds[row, videos] >= lowest]
                if len(videos):
                    wanted.append((row, videos))
                visited[row] += len(videos)
            if not wanted:
                break
            for some in self._blocks(wanted):
                exact = self._visit(folded, some, top_n, max_iou, results)
                for (row, videos), one in zip(some, exact):
                    off = np.abs(one[: len(videos)] - bounds[row, videos])
                    error = max(error, off.max())
            for result in results:
                result.sort()
                del result[top_n:]
            step = max(step, 16)
        return [
            [
                FoundMoment(name, start, end, -score)
                for score, name, start, end in one
            ]
            for one in results
        ]

    def _blocks(self, wanted):
        """Splits what is to be visited, to bound the windows held at once."""
        block, most_videos, most_windows = [], 0, 0
        for row, videos in wanted:
            windows = max(self._files.videos[v].num_windows for v in videos)
            step = max(1, _VISITED // windows)
            for first in range(0, len(videos), step):
                some = videos[first : first + step]
                most_videos = max(most_videos, len(some))
                most_windows = max(most_windows, windows)
                size = (len(block) + 1) * most_videos * most_windows
                if block and size > _VISITED:
                    yield block
                    block, most_videos, most_windows = [], len(some), windows
                block.append((row, some))
        yield block

    def _visit(self, folded, wanted, top_n, max_iou, results):
        """Ranks the windows of some videos for some queries.

        Args:
            folded: Q queries, from `model.fold`.
            wanted: List of (number of a query, numbers of its videos).
            top_n: See `search`.
            max_iou: See `acnn_tf.segments.nms`.
            results: List of a list for each query: results are added.

        Returns:
            `[len(wanted), V]`: the bounds of `_bounds` once more, exactly.
        """
        videos = [
            [self._files.videos[number] for number in numbers]
            for _, numbers in wanted
        ]
        most = max(video.num_windows for row in videos for video in row)
        shape = (len(wanted), max(map(len, videos)), most)  # [q, V, W]
        dim = self._files.encoding(videos[0][0]).shape[1]
        encoding = np.zeros((*shape, dim), np.float32)
        windows = np.zeros((*shape, 2))
        real = np.zeros(shape, bool)
        durations = np.ones(shape[:2])
        for row, several in enumerate(videos):
            for place, video in enumerate(several):
                own = (row, place, slice(video.num_windows))
                encoding[own] = self._files.encoding(video)
                windows[own] = self._files.windows(video)
                real[own] = True
                durations[row, place] = video.duration
        scores, offsets = self._locate(
            folded,
            [row for row, _ in wanted],
            encoding.reshape(len(wanted), -1, dim),
        )
        scores = scores.reshape(shape)
        offsets = offsets.reshape(*shape, 2)
        if not np.isfinite(scores).all() or not np.isfinite(offsets).all():
            raise ValueError("The model's output is not finite.")
        scores = np.where(real, scores, -np.inf)
        segments = shift(
            self.model, offsets, windows, durations[..., None, None]
        )
        # Rows of videos, without the padding between queries.
        there = real[..., 0]
        scores, segments = scores[there], segments[there]
        names = [video.video_id for row in videos for video in row]
        owners = np.repeat([row for row, _ in wanted], list(map(len, videos)))
        highest = scores.max(axis=1)
        if self.model.consensus_iou is not None:
            above = np.exp(scores - highest[:, None])
            highest = highest + np.log(above.sum(axis=1))
        scores = rescore(self.model, segments, scores)
        kept = segments_lib.nms(segments, scores, max_iou, top_n)
        for place, indices in enumerate(kept):
            for index in indices[indices >= 0]:
                start, end = segments[place, index].tolist()
                score = -float(scores[place, index])
                results[owners[place]].append((score, names[place], start, end))
        bounds = np.zeros(shape[:2])
        bounds[there] = highest
        return bounds
