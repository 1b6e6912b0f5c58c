"""Sentences in, moments of videos out: a model, its encoder and an index."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from acnn_tf import encoders
from acnn_tf.calibration import Calibration, read_calibration
from acnn_tf.data.extraction import (
    EncodedVideo,
    encode_video,
    file_state,
    find_videos,
)
from acnn_tf.files.problems import DataError
from acnn_tf.models import load_model
from acnn_tf.search import (
    MomentIndex,
    encoder_inputs,
    score_curve,
    to_numpy,
)
from acnn_tf.search.moment_index import FoundMoments

# Of video, after which what was encoded is kept: what a kill can cost.
_SECONDS = 1200


class MomentRetriever:
    """Finds moments in video files by sentences.

    Each video is encoded once, by the encoder that the model learned from, and
    kept in an index. Its id is the name of its file, without the folder and
    the ending. Threads may search while another thread adds or removes videos.

    Args:
        model: One of `acnn_tf.models`. If it takes vectors of sentences, and
            has no encoder that makes them, it is given one.
        encoder: Encoder of the frames, or its name for
            `acnn_tf.encoders.make`. Default: the one that the model learned
            from, as the model says itself. If the weights of the encoder are
            in a file or folder, name it: `"clip:my/weights"`.
        index: Folder that keeps the videos that are added, see `MomentIndex`.
            A retriever that is made later with the same folder has them at
            once. Default: they are kept in memory.
        calibration: Calibration of the model. With one, scores are
            likelihoods. Without one, scores compare moments of one sentence
            only.

    Attributes:
        index: `MomentIndex`.
        calibration: The calibration of the model, or `None`.

    Raises:
        IndexFileError: See `MomentIndex`.

    Example:

    >>> retriever = MomentRetriever.load("runs/mine")  # doctest: +SKIP
    >>> retriever.add("holiday.mp4", "videos/")  # doctest: +SKIP
    >>> retriever.search("a dog jumps into the water")  # doctest: +SKIP
    [FoundMoment(video_id='holiday', start=12.4, end=19.8, score=0.91), ...]
    """

    def __init__(
        self,
        model: keras.Model,
        encoder: encoders.Encoder | str | None = None,
        index: str | os.PathLike | None = None,
        *,
        calibration: Calibration | None = None,
    ):
        self.index = MomentIndex(model, index)
        self.calibration = calibration
        self._named, self._other = encoder, None
        self._alone = threading.Lock()  # of threads, with `_other`
        if model.vocabulary is None and model.sentence_encoder is None:
            model.sentence_encoder = self._sentence_encoder()

    @classmethod
    def load(
        cls,
        workdir: str | os.PathLike,
        encoder: encoders.Encoder | str | None = None,
        index: str | os.PathLike | None = None,
    ) -> "MomentRetriever":
        """Makes the retriever of a run.

        Args:
            workdir: Folder of a run of `experiments.train`: its `model.keras`,
                and its `calibration.json` if it has one.
            encoder: Encoder of the frames, or its name. Default: the one that
                the model learned from.
            index: Folder that keeps the videos that are added. Default: they
                are kept in memory.
        """
        model = load_model(os.path.join(workdir, "model.keras"))
        calibration = read_calibration(workdir, model)
        return cls(model, encoder, index, calibration=calibration)

    @functools.cached_property
    def encoder(self) -> encoders.Encoder:
        """The `Encoder` of the frames, made when it is first needed.

        Raises:
            DataError: If it is not the one that the model learned from.
            ValueError: If the model does not say which one that is.
        """
        model = self.index.model
        learned_from = getattr(model, "encoder", None)
        return make_encoder(learned_from, model.clip_seconds, self._named)

    def __len__(self):
        return len(self.index)

    @property
    def video_ids(self) -> list[str]:
        """Ids of the videos that were added."""
        return self.index.video_ids

    def add(
        self,
        *videos: str | os.PathLike,
        progress: Callable[[float, int], object] | None = None,
    ) -> list[str]:
        """Encodes videos, and adds them.

        A video whose file has not changed is not encoded again. A video whose
        file has changed replaces the old one. If something fails, the videos
        that were added before stay.

        Args:
            *videos: Files, folders or patterns, see
                `acnn_tf.data.extraction.find_videos`.
            progress: Called with two numbers: the share of the work that is
                done, and how many videos were added.

        Returns:
            Notes on files of which only a part could be read: for each what
            is wrong with it.

        Raises:
            DataError: If files cannot be read: lists them, after all others
                are added. If two files have the same name: lists such names,
                before any video is added.
            WriteError: If the disk is full.
        """
        found, known = find_videos(videos), self.index.sources
        new = {
            video_id: path
            for video_id, path in found.items()
            if video_id not in known or known[video_id] != _state(path)
        }
        there = len(found) - len(new)
        batch = _Batch(self.encoder, self.index)
        notes, problems = [], []
        for done, (video_id, path) in enumerate(new.items()):
            tell = None
            if progress is not None:
                tell = functools.partial(_tell, progress, done, len(new), there)
                tell(0.0)
            try:
                notes += batch.encode(video_id, path, tell)
            except DataError as error:
                problems += error.problems
            if batch.seconds >= _SECONDS:
                batch.keep()
        batch.keep()
        if progress is not None and new:
            progress(1.0, len(found))
        if problems:
            raise DataError(problems)
        return notes

    def add_encoded(
        self,
        video_id: str,
        video: EncodedVideo,
        path: str | os.PathLike | None = None,
    ) -> None:
        """Adds a video that was encoded already, under an id of its own.

        Args:
            video_id: Id of the video. A video that has this id is replaced.
            video: What `acnn_tf.data.encode_video` returned for it, with the
                `encoder` of this retriever.
            path: The file of the video, so that `has` can say whether it has
                changed. Default: the state of the file is not kept.
        """
        batch = _Batch(self.encoder, self.index)
        batch.put(video_id, video, path and _state(path))
        batch.keep()

    def has(self, video_id: str, path: str | os.PathLike) -> bool:
        """Whether a video was added whose file has not changed since."""
        known = self.index.sources
        return video_id in known and known[video_id] == _state(path)

    def remove(self, video_id: str) -> None:
        """Removes a video.

        Raises:
            UnknownIdError: If it is not there.
        """
        self.index.remove([video_id])

    def search(
        self, sentence: str | Sequence[str], top: int = 5, **settings
    ) -> FoundMoments | list[FoundMoments]:
        """Finds the best moments of all videos that were added.

        Args:
            sentence: A sentence, or a list of sentences for a list of
                answers.
            top: How many moments a sentence gets at most.
            **settings: Arguments of `MomentIndex.search_encoded`, such as
                `video_ids`, to search in these videos only.

        Returns:
            `FoundMoments`: a list of moments, best first, each with its
            `video_id`, `start`, `end` (seconds) and `score`. Its
            `unknown_words` are those that the model does not know; if it
            knows none, there are no moments. If it knows no more than half of
            the words, `is_mostly_known` is false, and scores are no
            likelihoods: they only order the moments.
        """
        return self._search(self.index, sentence, top, settings)

    def localize(
        self,
        video: str | os.PathLike,
        sentence: str | Sequence[str],
        top: int = 5,
        **settings,
    ) -> FoundMoments | list[FoundMoments]:
        """Finds the best moments of one video.

        Args:
            video: Id of a video that was added, or a file. A file that was
                not added is encoded for this answer.
            sentence: A sentence, or a list of sentences for a list of
                answers.
            top: How many moments a sentence gets at most.
            **settings: Arguments of `MomentIndex.search_encoded`, except
                `video_ids`.

        Returns:
            `FoundMoments`, as `search` returns them.

        Raises:
            DataError: If the file cannot be read.
        """
        if video not in self.video_ids:
            found = find_videos(video)
            if len(found) > 1:
                raise ValueError(
                    f"`video` must be one. Received: {video}, which are "
                    f"{len(found)}; `add` them, and `search`"
                )
            ((video_id, path),) = found.items()
            if not self.has(video_id, path):
                return self._localize(video_id, path, sentence, top, settings)
            video = video_id
        settings["video_ids"] = [video]
        return self._search(self.index, sentence, top, settings)

    def curve(
        self, video_id: str, sentence: str, max_points: int = 2000
    ) -> tuple[np.ndarray, np.ndarray]:
        """How well each moment of a video answers a sentence.

        Args:
            video_id: Id of a video that was added.
            sentence: What to look for.
            max_points: How many times the curve has at most, for a long video.

        Returns:
            `(times, scores)`: arrays `[N]`. The times, in seconds, are the
            middles of clips; a score is that of the best moment that holds the
            clip, on the scale of `search`. Both are empty if the model knows
            no word of the sentence.

        Raises:
            UnknownIdError: If the video is not there.
        """
        scored = self.index.scored_windows(sentence, video_id)
        if scored is None:
            return np.zeros(0), np.zeros(0)
        indexed, segments, scores = scored
        seconds = indexed.duration
        step = max(self.index.model.clip_seconds, seconds / max_points)
        times, best = score_curve(segments, scores, seconds, step)
        if self.calibration is not None:
            best = self.calibration.likelihood(best)
        return times, best

    def attention(
        self,
        video_id: str,
        sentence: str,
        segment: tuple[float, float],
        video: EncodedVideo,
    ) -> dict | None:
        """Where the model looked for a moment: the widths of its context.

        Args:
            video_id: Id of a video that was added.
            sentence: What was looked for.
            segment: `(start, end)`, seconds, of a moment that `search` found.
            video: What was given to `add_encoded`.

        Returns:
            Dictionary: `"kernel_sizes"`, the widths in windows; `"weights"`,
            how much each counts, which add up to 1; `"window"`, the window
            that became this moment. `None` where the model has no such
            weights, or knows no word of the sentence.

        Raises:
            UnknownIdError: If the video is not there.
        """
        model = self.index.model
        scored = self.index.scored_windows(sentence, video_id)
        if scored is None:
            return None
        indexed, segments, scores = scored
        away = np.abs(segments - np.asarray(segment, float)).max(axis=1)
        near = np.flatnonzero(away <= away.min() + 1e-3)
        row = near[np.argmax(scores[near])]
        # With the windows beside it, which are its context.
        hops = model.grid.dilation * (model.context_size // 2)
        first = max(row - hops, 0)
        windows = indexed.windows[first : row + hops + 1]
        clips = _Clips(self.encoder)
        clips[video_id] = video.clips
        inputs = encoder_inputs(
            model, clips, {video_id: video.duration}, {video_id: windows}
        )
        weights = model.attention_weights(inputs)
        if weights is None:
            return None
        return {
            "kernel_sizes": list(model.kernel_sizes),
            "weights": to_numpy(weights)[0, row - first].tolist(),
            "window": indexed.windows[row].tolist(),
        }

    def _localize(self, video_id, path, sentence, top, settings):
        """In a video that is not in the index, nor will be."""
        with self._alone:
            if self._other is None:  # which keeps its graphs
                self._other = MomentIndex(self.index.model)
            batch = _Batch(self.encoder, self._other)
            batch.encode(video_id, path)
            batch.keep()
            try:
                return self._search(self._other, sentence, top, settings)
            finally:
                self._other.remove([video_id])

    def _search(self, index, sentence, top, settings):
        is_one = isinstance(sentence, str)
        sentences = [sentence] if is_one else list(sentence)
        answers = [
            FoundMoments(
                map(self._rated, moments),
                moments.query,
                moments.unknown_words,
                moments.recall,
                moments.is_mostly_known,
            )
            for moments in index.search(sentences, top_n=top, **settings)
        ]
        return answers[0] if is_one else answers

    def _sentence_encoder(self):
        """The encoder of frames, if it encodes the model's sentences too."""
        described = self.index.model.query_description
        if hasattr(self.encoder, "encode_sentences"):
            with contextlib.suppress(DataError):
                encoders.check_space(self.encoder.description, described)
                return self.encoder
        return encoders.sentence_encoder(described)

    def _rated(self, moment):
        if self.calibration is None:
            return moment
        score = self.calibration.likelihood(moment.score)
        return moment._replace(score=score)


def make_encoder(
    learned_from: Mapping | None,
    clip_seconds: float,
    encoder: encoders.Encoder | str | None = None,
) -> encoders.Encoder:
    """Makes the encoder of frames for a model.

    Args:
        learned_from: Description of the encoder that made the clips that the
            model learned from, see `acnn_tf.encoders.descriptions`; `None` if
            it is not known.
        clip_seconds: Seconds of one clip of the model.
        encoder: Encoder, or its name for `acnn_tf.encoders.make`. Default: the
            one that is described.

    Raises:
        DataError: If `encoder` is not the one that the model learned from.
        ValueError: If neither the description nor the name is given.

    Example:

    >>> from acnn_tf import encoders, retriever
    >>> pixels = encoders.make("pixels")
    >>> encoder = retriever.make_encoder(pixels.description, clip_seconds=1.0)
    >>> encoder.dim == pixels.dim
    True
    """
    rate = learned_from and learned_from.get("frame_rate")
    if encoder is None:
        if learned_from is None:
            raise ValueError(
                "The model does not say which encoder it learned from: name "
                'it, such as `encoder="pixels"`.'
            )
        encoder = encoders.make_described(learned_from, "the model", rate)
    elif isinstance(encoder, str):
        encoder = encoders.make(encoder, rate)
        if learned_from is None:
            # All that is known of its frames.
            encoder.frame_rate = encoder.clip_frames / clip_seconds
    encoders.check(encoder.description, learned_from, "the encoder")
    return encoder


class _Clips(dict):
    """Clips by the ids of their videos, and what made them."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder.description
        self.clip_seconds = encoder.clip_seconds


class _Batch:
    """Videos that are encoded together with their windows, and then kept."""

    def __init__(self, encoder, index):
        self._encoder, self._index = encoder, index
        self._clear()

    def _clear(self):
        self._clips = _Clips(self._encoder)
        self._durations, self._states = {}, {}

    @property
    def seconds(self):
        return sum(self._durations.values())

    def encode(self, video_id, path, progress=None):
        state = _state(path)
        video = encode_video(path, self._encoder, progress=progress)
        self.put(video_id, video, state)
        return [f"{path}: {note}" for note in video.notes]

    def put(self, video_id, video, state):
        self._clips[video_id] = video.clips
        self._durations[video_id] = video.duration
        self._states[video_id] = state

    def keep(self):
        if self._durations:
            self._index.update(self._clips, self._durations, self._states)
        self._clear()


def _state(path):
    """`file_state` as text; of a file that is gone, reading it will tell."""
    state = file_state(path)
    return state and "{} bytes, {} ns".format(*state)


def _tell(progress, done, total, there, share):
    """Tells of a share of one video as a share of all."""
    if share < 1:  # or else the next video tells, or the end
        progress((done + share) / total, there + done)
