"""The page in a process of its own, over videos of built-in scenes."""

import re
import time

import requests

from acnn_tf.data import Vocabulary, annotations, synthetic
from acnn_tf.models import save_model
from tests import small_acnn
from tests.processes import Started

# Of the sentences of the scenes, and one that they do not have.
SENTENCE = "the red circle moves to the right"
OTHER = "a blue square appears"
UNKNOWN = "xyzzy"


def make_library(folder, num_videos=3):
    """Writes `run/model.keras`, `videos` and `truth.jsonl`; untrained."""
    moments = synthetic.write_videos(folder / "videos", num_videos)
    annotations.write_jsonl(moments, folder / "truth.jsonl")
    sentences = [SENTENCE, OTHER, *(moment.query for moment in moments)]
    words = Vocabulary.from_sentences(sentences).words
    model = small_acnn.make_model(130, clip_seconds=0.5, vocabulary=words)
    (folder / "run").mkdir()
    save_model(model, folder / "run" / "model.keras")


class Page:
    """`python -m demo` over what `make_library` wrote."""

    def __init__(self, folder, *flags, **environment):
        self.process = Started(
            "demo",
            f"--workdir={folder / 'run'}",
            f"--videos={folder / 'videos'}",
            f"--annotations={folder / 'truth.jsonl'}",
            "--encoder=pixels",
            "--port=0",
            *flags,
            **environment,
        )
        line = self.process.first_line()
        found = re.search(r"http://[\w.:\[\]]+/(\?token=\S+)?", line)
        assert found, self.process.printed
        self.url = found[0]

    def videos(self):
        """`/api/videos`, its videos by their ids."""
        listed = requests.get(f"{self.url}api/videos", timeout=20).json()
        return {video["video_id"]: video for video in listed["videos"]}

    def wait_until_ready(self):
        end = time.monotonic() + 60
        while {v["state"] for v in self.videos().values()} != {"ready"}:
            assert time.monotonic() < end, self.videos()
            time.sleep(0.05)

    def close(self):
        self.process.kill()
        self.process.finish()
