"""Random damage to data files is told, or else does no harm.

`NUM_MUTATIONS` says how many are tried, `pytest -rP` shows what came of them.
"""

import collections
import json
import os
import re
import sys

import numpy as np
import pytest

from acnn_tf.data.annotations import Moment, read_moments, write_jsonl
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.inspection import save_manifests
from acnn_tf.files.problems import DataError, UnknownIdError
from acnn_tf.search import IndexFileError
from tests.mutations import MUTATIONS
from tests.test_index_files import contents, make_index

NUM_MUTATIONS = int(os.environ.get("NUM_MUTATIONS", "200"))
VIDEOS = ("v0", "v1", "v2", "v3")
# So many that HDF5 keeps their names in a tree.
MANY = tuple(f"v{number:02d}" for number in range(30))
SENTENCES = [f"somebody does thing {number}" for number in range(6)]


def clips_of(group, videos=VIDEOS):
    rng = np.random.default_rng(len(group))
    return {
        f"{group}{video}": rng.normal(size=(3, 4)).astype(np.float32)
        for video in videos
    }


class Features:
    """Two files, or two folders, of features."""

    def __init__(self, suffix, videos=VIDEOS):
        self.suffix, self.videos = suffix, videos

    def write(self, folder):
        for group in ("a", "bb"):
            path = folder / f"{group}{self.suffix}"
            write_features(path, clips_of(group, self.videos), 0.5)

    def read(self, folder):
        return [
            self.read_one(
                folder / f"{group}{self.suffix}", clips_of(group, self.videos)
            )
            for group in ("a", "bb")
        ]

    def read_one(self, path, expected):
        with open_features(path) as features:
            values = {v: features[v].tobytes() for v in expected}
            shapes = {v: features[v].shape for v in expected}
            return list(features), features.clip_seconds, values, shapes


class Set(Features):
    """A folder of TFRecord files, with a manifest of all."""

    def __init__(self):
        super().__init__(".tfrecord")

    def write(self, folder):
        super().write(folder)
        with open_features(folder) as features:
            features.save_manifest()

    def read(self, folder):
        return self.read_one(folder, clips_of("a") | clips_of("bb"))


class Index:
    """Two folders of an index."""

    def write(self, folder):
        for dtype in ("float32", "bfloat16"):
            make_index(folder / dtype, dtype)

    def read(self, folder):
        return [contents(folder / name) for name in ("float32", "bfloat16")]


class Annotations:
    """Two annotation files, with what else they need."""

    def __init__(self, dataset, suffix, content, **others):
        self.dataset, self.suffix, self.content = dataset, suffix, content
        self.others = others

    def arguments(self, folder):
        return {
            kind: str(folder / name) for kind, (name, _) in self.others.items()
        }

    def write(self, folder):
        for name, text in self.others.values():
            (folder / name).write_text(text)
        for number in (0, 1):
            path = str(folder / f"{number}{self.suffix}")
            if self.content is None:
                write_jsonl(moments_of(number), path)
                continue
            with open(path, "w") as file:
                file.write(self.content(number))
            arguments = self.arguments(folder)
            moments = read_moments(path, self.dataset, **arguments)
            assert len(moments) >= len(SENTENCES)
            save_manifests(moments, [], [path, *arguments.values()])

    def read(self, folder):
        return [
            read_moments(
                folder / f"{number}{self.suffix}",
                self.dataset,
                **self.arguments(folder),
            )
            for number in (0, 1)
        ]


def moments_of(number):
    return [
        Moment(f"{number}_{i}", query, f"v{i}", 30.0, ((i, i + 9.5),))
        for i, query in enumerate(SENTENCES)
    ]


def charades(number):
    return "".join(
        f"v{i % 4} {i}.5 {i + number + 3}.0##{query}\n"
        for i, query in enumerate(SENTENCES)
    )


def tacos(number):
    return "".join(
        f"v{i % 4}.avi_{i}_{i + number + 30}:{query}#{query} too#\n"
        for i, query in enumerate(SENTENCES)
    )


def by_video(number, **values):
    return json.dumps(
        {
            video: {
                **values,
                "timestamps": [[i, i + number + 3] for i in range(6)],
                "sentences": SENTENCES,
            }
            for video in VIDEOS
        },
        indent=1,
    )


def didemo(number):
    return json.dumps(
        [
            {
                "annotation_id": i,
                "video": f"v{i % 4}",
                "description": query,
                "num_segments": 6,
                "times": [[number, 2], [1, 3]],
            }
            for i, query in enumerate(SENTENCES)
        ],
        indent=1,
    )


DURATIONS = json.dumps(dict.fromkeys(VIDEOS, 30.5), indent=1)
CSV = "id,length\n" + "".join(f"{video},30.5\n" for video in VIDEOS)
FRAMES = json.dumps(dict.fromkeys(VIDEOS, 900), indent=1)
CASES = {
    "tfrecord": Features(".tfrecord"),
    "set of tfrecord": Set(),
    "hdf5": Features(".hdf5"),
    "hdf5 of many": Features(".hdf5", MANY),
    "npy": Features(""),
    "index": Index(),
    "jsonl": Annotations("jsonl", ".jsonl", None),
    "charades_sta": Annotations(
        "charades_sta", ".txt", charades, durations=("d.json", DURATIONS)
    ),
    "charades_sta csv": Annotations(
        "charades_sta", ".txt", charades, durations=("d.csv", CSV)
    ),
    "tacos": Annotations("tacos", ".txt", tacos, num_frames=("n.json", FRAMES)),
    "tacos json": Annotations(
        "tacos", ".json", lambda n: by_video(n, num_frames=900, fps=29.4)
    ),
    "activitynet_captions": Annotations(
        "activitynet_captions", ".json", lambda n: by_video(n, duration=30.5)
    ),
    "didemo": Annotations("didemo", ".json", didemo),
}


def all_files(folder):
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def outcome(case, folder, expected, changed):
    """`"detected"` or `"harmless"`; anything else is a failure."""
    try:
        values = case.read(folder)
    except (DataError, UnknownIdError, IndexFileError) as error:
        told = str(error)
        assert re.search("restore|again|extract", told), told
    except FileNotFoundError as error:
        told = str(error)
    else:
        assert values == expected
        return "harmless"
    named = [path.removesuffix(".manifest.json") for path in changed]
    assert any(path in told for path in named), told
    return "detected"


def with_changes(case, folder, files, expected, changed):
    """The outcome of reading with other bytes in some files."""
    try:
        for path, data in changed.items():
            if data is None:
                os.remove(path)
            else:
                with open(path, "wb") as file:
                    file.write(data)
        return outcome(case, folder, expected, changed)
    finally:
        for path in changed:
            with open(path, "wb") as file:
                file.write(files[path])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """For each case `(folder, files, what is read)`."""
    made = {}
    for name, case in CASES.items():
        folder = tmp_path_factory.mktemp("data")
        case.write(folder)
        made[name] = folder, all_files(folder), case.read(folder)
    return made


@pytest.mark.parametrize("name", CASES)
def test_every_mutation_is_told_or_harmless(name, written, record_property):
    folder, files, expected = written[name]
    counts = collections.Counter()
    number = -(-NUM_MUTATIONS // len(CASES))
    first = list(CASES).index(name) * 1_000_000
    for seed in range(first, first + number):
        rng = np.random.default_rng(seed)
        mutate = MUTATIONS[seed % len(MUTATIONS)]
        changed = mutate(files, rng)
        try:
            found = with_changes(CASES[name], folder, files, expected, changed)
        except Exception as error:
            error.add_note(f"{mutate.__name__} of {list(changed)}, seed {seed}")
            raise
        same = all(files[path] == data for path, data in changed.items())
        counts["unchanged" if same else found] += 1
    sys.stdout.write(f"{name}: {dict(counts)}\n")
    record_property("mutations", dict(counts))
    assert counts["detected"] > number / 2
    assert sum(counts.values()) == number


@pytest.mark.parametrize("name", CASES)
def test_no_file_may_change_in_a_byte_or_go_unseen(name, written):
    folder, files, expected = written[name]
    seed = np.random.default_rng(0)
    for path, data in files.items():
        if path.endswith("manifest.json"):
            continue
        changes = [None, b""]
        for place in seed.choice(len(data), min(5, len(data)), replace=False):
            changes.append(bytearray(data))
            changes[-1][place] ^= 0x10
        for change in changes:
            found = with_changes(
                CASES[name], folder, files, expected, {path: change}
            )
            assert found == "detected"
