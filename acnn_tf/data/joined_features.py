"""Clip features of several encoders, joined clip by clip."""

import collections.abc
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from acnn_tf.data.windows import VideoWindows, WindowGrid
from acnn_tf.files.problems import FeatureError, Problem, fail

# A clip without length stays without.
_SHORTEST = 1e-12


class JoinedFeatures(collections.abc.Mapping):
    """Read-only mapping from video id to float32 `[T, D_1 + D_2 + ...]`.

    Each clip of each source is brought to unit length first, so that no source
    counts for more than another. If the sources differ by one clip, the last
    clip of the longer ones is left out.

    Args:
        sources: `ClipFeatures` of the same videos. `close` closes them.

    Attributes:
        path: Where the sources lie, with commas between.
        clip_seconds: Seconds from one clip to the next, in all sources.
        encoder: What made the features, if all sources say it; see
            `ClipFeatures`.
        dim: The sum of the widths of the sources.

    Raises:
        FeatureError: If the clips of two sources do not last as long, or one
            source has windows in place of clips.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from acnn_tf.data import open_features
    >>> folders = [tempfile.mkdtemp(), tempfile.mkdtemp()]
    >>> for folder, dim in zip(folders, (2, 3)):
    ...     np.save(folder + "/cat.npy", np.ones((4, dim), np.float32))
    >>> features = open_features(",".join(folders), clip_seconds=1.0)
    >>> features["cat"].shape
    (4, 5)
    """

    def __init__(self, sources: Sequence[Mapping[str, np.ndarray]]):
        self._sources = list(sources)
        self.path = ",".join(str(source.path) for source in self._sources)
        first = self._sources[0]
        self.clip_seconds = first.clip_seconds
        for source in self._sources[1:]:
            if not np.isclose(source.clip_seconds, first.clip_seconds):
                fail(
                    source.path,
                    f"its clips last {source.clip_seconds:g} s, those of "
                    f"{first.path} {first.clip_seconds:g} s; join features of "
                    "clips that last as long",
                )
        for source in self._sources:
            if isinstance(source[next(iter(source))], VideoWindows):
                fail(
                    source.path,
                    "holds a vector for each window; only features of clips "
                    "are joined",
                )
        self.encoder = _joined([source.encoder for source in self._sources])
        self._videos = [
            video
            for video in first
            if all(video in other for other in self._sources)
        ]

    @property
    def dim(self) -> int:
        """D, as the first videos have it."""
        return sum(source.dim for source in self._sources)

    def __getitem__(self, video_id: str) -> np.ndarray:
        parts = [source[video_id] for source in self._sources]
        lengths = [len(part) for part in parts]
        shortest = min(lengths)
        if max(lengths) - shortest > 1:
            counts = " and ".join(
                f"{length:,} in {source.path}"
                for length, source in zip(lengths, self._sources)
            )
            fail(
                self.path,
                f"video {video_id!r} has {counts} clips, which may differ by "
                "one; extract them from the same video",
            )
        return np.concatenate([_unit(part[:shortest]) for part in parts], 1)

    def __contains__(self, video_id):
        return all(video_id in source for source in self._sources)

    def __iter__(self) -> Iterator[str]:
        return iter(self._videos)

    def __len__(self):
        return len(self._videos)

    def problems(
        self,
        durations: Mapping[str, float] | None = None,
        grid: WindowGrid | None = None,
    ) -> dict[str, Problem]:
        """The problems of all sources, as of `ClipFeatures.problems`."""
        problems = {}
        for source in self._sources:
            for video, problem in source.problems(durations, grid).items():
                if video not in problems or problem.dropped:
                    problems[video] = problem
        for video in self:
            if video not in problems or not problems[video].dropped:
                try:
                    self[video]
                except FeatureError as error:
                    problems[video] = error.problems[0]
        for source in self._sources:
            for video in source:
                if video not in self:
                    problems[video] = Problem(
                        source.path,
                        None,
                        f"video {video!r} is not in all of {self.path}; "
                        "extract what is missing",
                        dropped=False,
                    )
        return problems

    def save_manifest(self) -> str | None:
        """Writes the manifests of all sources."""
        written = [source.save_manifest() for source in self._sources]
        return next(filter(None, written), None)

    def close(self) -> None:
        """Closes the files."""
        for source in self._sources:
            source.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _unit(clips):
    length = np.linalg.norm(clips, axis=1, keepdims=True)
    return clips / np.maximum(length, _SHORTEST)


def _joined(descriptions):
    """One description of what made several features, if all are known."""
    if None in descriptions:
        return None
    texts = {
        key: " + ".join(str(one.get(key, "")) for one in descriptions)
        for key in ("encoder", "name", "weights", "preprocessing")
    }
    return texts | {"parts": descriptions}
