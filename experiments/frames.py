"""A few frames of a video, from all its length, for pictures of it."""

import numpy as np

import acnn_tf

# So many, and no higher: more than a strip of them shows.
_NUM_FRAMES, _HEIGHT = 24, 180


def sample(path, duration):
    """Reads frames of a video file.

    Args:
        path: Path of the file.
        duration: Float, seconds of the video.

    Returns:
        `uint8 [F, H, W, 3]`, about 24 frames of at most 359 rows, the same
        time apart. The file is decoded once, to its end.
    """
    video = acnn_tf.data.open_video(path)
    step = max(video.size[0] // _HEIGHT, 1)
    return np.stack(
        [
            frame[::step, ::step].copy()
            for frame in video.frames(_NUM_FRAMES / duration)
        ]
    )


def of_split(dataset, patterns=None):
    """Where the frames of a split's videos come from.

    Args:
        dataset: Its name. Those of `"synthetic"` are rendered.
        patterns: List of files, folders and patterns of video files.

    Returns:
        Function of a `Moment`, which returns the frames of its video or, where
        there is no file with the name of the video, `None`.
    """
    if patterns:
        paths = acnn_tf.data.find_videos(patterns)
        return lambda moment: (
            sample(paths[moment.video_id], moment.duration)
            if moment.video_id in paths
            else None
        )
    if dataset == "synthetic":
        from acnn_tf.data import scenes

        return lambda moment: scenes.render(moment.video_id)
    return lambda moment: None
