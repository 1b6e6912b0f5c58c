"""From a video file to clip features: decoding, and each encoder.

A minute of 640 x 360 pixels, 25 frames a second, H.264: a camera that pans over
a picture of blurred noise. One frame a second is wanted. The others read every
frame as RGB and keep one in 25, as scripts do; their colours are rounded
otherwise.
"""

import importlib.util
import os
import tempfile

import numpy as np

from acnn_tf import encoders
from acnn_tf.data import open_video
from acnn_tf.data.extraction import encode_video
from experiments.benchmarks import measure

RATE = 25
HEIGHT, WIDTH = 360, 640


def rows(smoke, rounds):
    """`open_video`, and `encode_video` with what is installed.

    `real_time` is how many seconds of video go through in one second. An
    encoder stands against decoding alone.
    """
    seconds = 2 if smoke else 60
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pan.mp4")
        write(path, seconds)
        case = f"{seconds} s of {WIDTH} x {HEIGHT}"
        measure.progress(f"video: {case}")
        readers = candidates(path)
        found = measure.in_turn(readers, rounds)
        ours = found["open_video"]
        made = [
            measure.row(
                "video",
                f"{case}, 1 fps",
                name,
                ours,
                other,
                real_time=seconds / ours,
                other_real_time=seconds / other,
            )
            for name, other in found.items()
            if name != "open_video"
        ]
        for name in ("pixels", "efficientnet_lite0"):
            measure.progress(f"video: {name}")
            try:
                encoder = encoders.make(name, 1.0)
            except (FileNotFoundError, ImportError):
                continue
            both = {
                name: lambda encoder=encoder: encode_video(path, encoder),
                "decoding": readers["open_video"],
            }
            found = measure.in_turn(both, rounds)
            made.append(
                measure.row(
                    "video",
                    f"{case}, {name}",
                    "decoding",
                    found[name],
                    found["decoding"],
                    real_time=seconds / found[name],
                    other_real_time=seconds / found["decoding"],
                )
            )
    return made


def candidates(path):
    """Functions that read the frames of whole seconds, by name."""
    functions = {
        "open_video": lambda: list(open_video(path).frames(1.0)),
        "every_frame_pyav": lambda: _every_frame(path),
    }
    if importlib.util.find_spec("cv2"):
        functions["every_frame_opencv"] = lambda: _every_frame_opencv(path)
    return functions


def _every_frame(path):
    import av

    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        frames = (
            frame.to_ndarray(format="rgb24")
            for frame in container.decode(video=0)
        )
        return [one for i, one in enumerate(frames) if not i % RATE]


def _every_frame_opencv(path):
    import cv2

    capture, found, number = cv2.VideoCapture(path), [], 0
    while True:
        is_there, frame = capture.read()
        if not is_there:
            return found
        if not number % RATE:
            found.append(frame[..., ::-1])
        number += 1


def write(path, seconds):
    """Writes the video."""
    import av

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (HEIGHT // 8, (WIDTH + 4 * RATE) // 4, 3))
    picture = np.kron(noise.astype(np.uint8), np.ones((8, 8, 1), np.uint8))
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuv420p"
        for number in range(seconds * RATE):
            first = number % (picture.shape[1] - WIDTH)
            part = np.ascontiguousarray(picture[:, first : first + WIDTH])
            frame = av.VideoFrame.from_ndarray(part, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
