"""From video files to clip features: decoding, and each encoder.

By default one minute of 640 x 360 pixels, 25 frames a second, H.264: a camera
that pans over a picture of blurred noise. One frame a second is wanted. The
others read every frame as RGB and keep one in 25, as scripts do, or are
ffmpeg's own `-r 1`; their colours are rounded otherwise.

CLIP, EfficientNetV2B0 and C3D have random weights, which take as long as
others and need not be fetched.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile

import numpy as np

from acnn_tf import encoders
from acnn_tf.data import open_video
from acnn_tf.data.extraction import encode_video
from experiments.benchmarks import measure

RATE = 25
HEIGHT, WIDTH = 360, 640
# Of the real networks, and of those to see that it runs.
CLIP_LAYERS, TINY_CLIP_LAYERS = 12, 1
C3D_FILTERS, TINY_C3D_FILTERS = 64, 4


def rows(smoke, rounds, videos=None):
    """`open_video`, and `encode_video` with what is installed.

    `real_time` is how many seconds of video go through in one second. An
    encoder stands against its parts alone: decoding, resizing, network.
    """
    with tempfile.TemporaryDirectory() as folder:
        pan, short = (
            os.path.join(folder, f"{n}.mp4") for n in ("pan", "short")
        )
        write(pan, 2 if smoke else 60)
        # For C3D.
        write(short, 2 if smoke else 10)
        paths = videos or [pan]
        case, seconds = _about(paths)
        measure.progress(f"video: {case}")
        found = measure.in_turn(candidates(paths), rounds)
        made = _rows(f"{case}, 1 fps", found, seconds)
        for name, write_weights in ENCODERS.items():
            weights = os.path.join(folder, "weights")
            try:
                if write_weights:
                    weights = write_weights(weights, smoke)
                    name = f"{name}:{weights}"
                encoder = encoders.make(name)
            except (FileNotFoundError, ImportError):
                continue
            if encoder.kind == "c3d" and videos:
                continue  # the network alone takes as long as the video
            those = [short] if encoder.kind == "c3d" else paths
            case, seconds = _about(those)
            case = f"{case}, {encoder.name.partition(':weights')[0]}"
            measure.progress(f"video: {case}")
            found = measure.in_turn(parts(those, encoder), rounds)
            made += _rows(case, found, seconds)
    return made


def _about(paths):
    """What videos are, in words, and their seconds."""
    seconds = sum(open_video(path).duration for path in paths)
    height, width = open_video(paths[0]).size
    what = f"{width} x {height}" if len(paths) == 1 else f"{len(paths)} files"
    return f"{seconds:.4g} s of {what}", seconds


def _rows(case, found, seconds):
    """Rows that hold the first of what was timed against each other."""
    (_, ours), *others = found.items()
    return [
        measure.row(
            "video",
            case,
            name,
            ours,
            other,
            real_time=seconds / ours,
            other_real_time=seconds / other,
        )
        for name, other in others
    ]


def parts(paths, encoder):
    """Functions from files to features, and that do one part of it alone."""
    videos = []
    for path in paths:
        frames = list(open_video(path).frames(encoder.frame_rate))
        clips = np.stack(list(map(encoder.preprocess, frames)))
        whole = len(clips) // encoder.clip_frames * encoder.clip_frames
        clips = clips[:whole].reshape(-1, encoder.clip_frames, *clips.shape[1:])
        starts = range(0, len(clips), encoder.batch_size)
        batches = [clips[i : i + encoder.batch_size] for i in starts]
        videos.append((path, frames, batches))

    def each(function):
        return lambda: [function(*video) for video in videos]

    return {
        "encode_video": each(lambda path, *_: encode_video(path, encoder)),
        "decoding": each(
            lambda path, *_: list(open_video(path).frames(encoder.frame_rate))
        ),
        "resizing": each(
            lambda _, frames, __: list(map(encoder.preprocess, frames))
        ),
        "network": each(
            lambda *video: list(encoder.encode_batches(iter(video[-1])))
        ),
    }


def write_clip(path, smoke):
    """Writes CLIP ViT-B/32, of random weights, as a preset."""
    from keras_hub import models

    layers = TINY_CLIP_LAYERS if smoke else CLIP_LAYERS
    vision = models.CLIPVisionEncoder(
        patch_size=32,
        hidden_dim=768,
        num_layers=layers,
        num_heads=12,
        intermediate_dim=3072,
        image_shape=(224, 224, 3),
    )
    text = models.CLIPTextEncoder(
        vocabulary_size=49408,
        embedding_dim=512,
        hidden_dim=512,
        num_layers=layers,
        num_heads=8,
        intermediate_dim=2048,
    )
    backbone = models.CLIPBackbone(vision, text, projection_dim=512)
    backbone.save_to_preset(path)
    return path


def write_c3d(path, smoke):
    """Writes C3D, of random weights."""
    n = TINY_C3D_FILTERS if smoke else C3D_FILTERS
    widths = {"conv1a": n, "conv2a": 2 * n, "conv3a": 4 * n, "conv3b": 4 * n}
    widths |= dict.fromkeys(["conv4a", "conv4b", "conv5a", "conv5b"], 8 * n)
    rng = np.random.default_rng(0)
    arrays, before = {"mean": np.full(3, 100.0)}, 3
    for name, width in widths.items():
        shape = 3, 3, 3, before, width
        arrays[f"{name}_kernel"] = rng.normal(0, 0.02, shape)
        arrays[f"{name}_bias"] = np.zeros(width)
        before = width
    arrays["fc6_kernel"] = rng.normal(0, 0.02, (16 * before, 64 * n))
    arrays["fc6_bias"] = np.zeros(64 * n)
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    np.savez(f"{path}.npz", **halves)
    return f"{path}.npz"


# By name, what writes weights for it, if it does not bring its own.
ENCODERS = {
    "pixels": None,
    "efficientnet_lite0": None,
    "applications:EfficientNetV2B0:none": None,
    "clip": write_clip,
    "c3d": write_c3d,
}


def candidates(paths):
    """Functions that read the frames of whole seconds, by name."""
    functions = {
        "open_video": lambda path: list(open_video(path).frames(1.0)),
        "every_frame_pyav": _every_frame,
    }
    if importlib.util.find_spec("cv2"):
        functions["every_frame_opencv"] = _every_frame_opencv
    if shutil.which("ffmpeg"):
        functions["ffmpeg_r_1"] = _ffmpeg
    return {
        name: lambda function=function: list(map(function, paths))
        for name, function in functions.items()
    }


def _every_frame(path):
    import av

    with av.open(path) as container:
        (stream,) = container.streams.video
        stream.thread_type = "AUTO"
        every = round(stream.average_rate)
        frames = (
            frame.to_ndarray(format="rgb24")
            for frame in container.decode(stream)
        )
        return [one for i, one in enumerate(frames) if not i % every]


def _every_frame_opencv(path):
    import cv2

    capture, found, number = cv2.VideoCapture(path), [], 0
    every = round(capture.get(cv2.CAP_PROP_FPS))
    while True:
        is_there, frame = capture.read()
        if not is_there:
            return found
        if not number % every:
            found.append(frame[..., ::-1])
        number += 1


def _ffmpeg(path):
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", path, "-r", "1"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"]
    return subprocess.run(command, check=True, capture_output=True).stdout


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
