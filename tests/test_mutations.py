"""Random damage to data files is told, or else does no harm."""

import collections
import json
import os
import re

import numpy as np
import pytest

from acnn_tf.data.annotations import Moment, read_moments, write_jsonl
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.inspection import save_manifests
from acnn_tf.data.sentences import (
    read_glove,
    read_sentence_vectors,
    write_sentence_vectors,
)
from acnn_tf.files.manifests import save_manifest
from acnn_tf.files.problems import DataError, UnknownIdError
from acnn_tf.search import IndexFileError
from tests.mutations import MUTATIONS
from tests.test_index_files import contents, make_index

VIDEOS = ("v0", "v1", "v2", "v3")
# So many that HDF5 keeps their names in a tree.
MANY = tuple(f"v{number:02d}" for number in range(30))
MADE_BY = {"encoder": "mine", "name": "mine", "size": [8, 8], "dim": 4}
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
            clips = clips_of(group, self.videos)
            write_features(path, clips, 0.5, MADE_BY)

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
            about = features.clip_seconds, features.encoder
            return list(features), about, values, shapes


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


class SentenceVectors:
    """Two files of sentence vectors."""

    def write(self, folder):
        for group in ("a", "bb"):
            path = folder / f"{group}.hdf5"
            write_sentence_vectors(path, clips_of(group))

    def read(self, folder):
        return [
            self.read_one(folder / f"{group}.hdf5", clips_of(group))
            for group in ("a", "bb")
        ]

    def read_one(self, path, expected):
        vectors = read_sentence_vectors(path)
        try:
            rows = [f"{name}_{row}" for name in expected for row in range(3)]
            return {row: vectors[row].tobytes() for row in rows}
        finally:
            vectors.close()


class WordVectors:
    """Two files of word vectors."""

    def write(self, folder):
        for name in ("a.txt", "bb.txt"):
            lines = [
                f"{word}{name[0]} {' '.join(map(str, numbers))}\n"
                for word, values in clips_of(name).items()
                for numbers in values[:1]
            ]
            path = folder / name
            path.write_text("".join(lines))
            save_manifest(path, {path: len(lines)})

    def read(self, folder):
        found = [read_glove(folder / name) for name in ("a.txt", "bb.txt")]
        return [(words, vectors.tobytes()) for words, vectors in found]


class Moments:
    """Two files of moments."""

    def write(self, folder):
        for number in (0, 1):
            moments = [
                Moment(f"{number}_{i}", query, f"v{i}", 30.0, ((i, i + 9.5),))
                for i, query in enumerate(SENTENCES)
            ]
            write_jsonl(moments, folder / f"{number}.jsonl")

    def read(self, folder):
        paths = [folder / f"{number}.jsonl" for number in (0, 1)]
        return [read_moments(path, "jsonl") for path in paths]


class Charades:
    """Two annotation files, and one of durations.

    Manifests are read before any format is, so that one format is enough.
    """

    def __init__(self, name, durations):
        self.name, self.durations = name, durations

    def write(self, folder):
        (folder / self.name).write_text(self.durations)
        for number in (0, 1):
            text = "".join(
                f"v{i % 4} {i}.5 {i + number + 3}.0##{query}\n"
                for i, query in enumerate(SENTENCES)
            )
            (folder / f"{number}.txt").write_text(text)
        for number, moments in enumerate(self.read(folder)):
            assert len(moments) == len(SENTENCES)
            paths = [str(folder / f"{number}.txt"), str(folder / self.name)]
            save_manifests(moments, [], paths)

    def read(self, folder):
        durations = folder / self.name
        paths = [folder / f"{number}.txt" for number in (0, 1)]
        return [
            read_moments(path, "charades_sta", durations=durations)
            for path in paths
        ]


DURATIONS = json.dumps(dict.fromkeys(VIDEOS, 30.5), indent=1)
CSV = "id,length\n" + "".join(f"{video},30.5\n" for video in VIDEOS)
CASES = {
    "tfrecord": Features(".tfrecord"),
    "set of tfrecord": Set(),
    "hdf5": Features(".hdf5"),
    "hdf5 of many": Features(".hdf5", MANY),
    "npy": Features(""),
    "index": Index(),
    "sentence vectors": SentenceVectors(),
    "word vectors": WordVectors(),
    "jsonl": Moments(),
    "charades_sta": Charades("d.json", DURATIONS),
    "charades_sta csv": Charades("d.csv", CSV),
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
    # Of a manifest, the file or the folder that it speaks of.
    named = [re.sub(r"[./]manifest\.json$", "", path) for path in changed]
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


@pytest.mark.parametrize(
    "number", [17, pytest.param(1000, marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("name", CASES)
def test_every_mutation_is_told_or_harmless(name, number, tmp_path):
    case = CASES[name]
    case.write(tmp_path)
    files, expected = all_files(tmp_path), case.read(tmp_path)
    counts = collections.Counter()
    first = list(CASES).index(name) * 1_000_000
    for seed in range(first, first + number):
        mutate = MUTATIONS[seed % len(MUTATIONS)]
        changed = mutate(files, np.random.default_rng(seed))
        try:
            found = with_changes(case, tmp_path, files, expected, changed)
        except Exception as error:
            error.add_note(f"{mutate.__name__} of {list(changed)}, seed {seed}")
            raise
        same = all(files[path] == data for path, data in changed.items())
        counts["unchanged" if same else found] += 1
    assert counts["detected"] > number / 2, counts
    # With its manifest no file may change in a byte, or go, unseen.
    rng = np.random.default_rng(0)
    for path, data in files.items():
        if path.endswith("manifest.json"):
            continue
        changes = [None, b""]
        for place in rng.choice(len(data), min(5, len(data)), replace=False):
            changes.append(bytearray(data))
            changes[-1][place] ^= 0x10
        for change in changes:
            found = with_changes(
                case, tmp_path, files, expected, {path: change}
            )
            assert found == "detected", path
