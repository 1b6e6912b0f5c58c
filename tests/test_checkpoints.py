"""Checkpoints that are damaged are told of; none is read wrong."""

import itertools
import os

import numpy as np
import pytest
import tensorflow as tf

from acnn_tf.checkpoints import Checkpoints
from tests import mutations


class Note(tf.train.experimental.PythonState):
    text = "none"

    def serialize(self):
        return self.text

    def deserialize(self, text):
        self.text = text.decode()


def make(folder):
    variables = [tf.Variable(tf.zeros([40])), tf.Variable([0, 0])]
    note = Note()
    return Checkpoints(folder, variables, note), variables, note


def state(variables, note):
    return [variable.numpy().tolist() for variable in variables], note.text


@pytest.mark.parametrize(
    "number", [60, pytest.param(3000, marks=pytest.mark.soak)]
)
def test_any_damage_is_told_or_harmless(tmp_path, number):
    checkpoints, variables, note = make(tmp_path)
    variables[0].assign(tf.range(40.0) + 0.1)
    note.text = "the first of two"
    checkpoints.save()
    first = state(variables, note)
    variables[1].assign([3, 4])
    note.text = "the second of two"
    checkpoints.save()
    second = state(variables, note)
    files = {
        str(path): path.read_bytes()
        for path in tmp_path.iterdir()
        if path.name.startswith("ckpt-2")
    }
    assert len(files) == 2
    rng = np.random.default_rng(0)
    told = 0
    kinds = (
        mutations.flip,
        mutations.truncate,
        mutations.empty,
        mutations.remove,
        mutations.swap_files,
        mutations.swap_blocks,
    )
    for mutate in itertools.islice(itertools.cycle(kinds), number):
        if mutate is mutations.swap_files:
            names = list(files)
            changed = dict(zip(names, reversed(files.values())))
        else:
            changed = mutate(files, rng)
        for path, content in {**files, **changed}.items():
            if content is None:
                os.remove(path)
            else:
                with open(path, "wb") as file:
                    file.write(content)
        fresh, *found = make(tmp_path)
        path = fresh.restore()
        is_newest = path.endswith("ckpt-2")
        assert state(*found) == (second if is_newest else first), mutate
        told += not is_newest
    assert told > number / 2


def test_the_folder_has_the_last_two_and_nothing_else(tmp_path):
    checkpoints, _, _ = make(tmp_path)
    checkpoints.save()
    (tmp_path / "ckpt-2_temp").mkdir()
    (tmp_path / "ckpt-2_temp" / "part-00000").write_bytes(b"x")
    (tmp_path / "ckpt-9.data-00000-of-00001").write_bytes(b"x")
    (tmp_path / "mine.txt").write_bytes(b"x")
    fresh, _, _ = make(tmp_path)
    assert fresh.restore().endswith("ckpt-1")
    fresh.save()
    fresh.save()
    assert sorted(os.listdir(tmp_path)) == [
        "checkpoint",
        "ckpt-2.data-00000-of-00001",
        "ckpt-2.index",
        "ckpt-3.data-00000-of-00001",
        "ckpt-3.index",
        "mine.txt",
    ]


def test_without_the_file_that_names_them_they_are_found(tmp_path):
    checkpoints, _, note = make(tmp_path / "new")
    assert checkpoints.restore() is None
    note.text = "found"
    checkpoints.save()
    os.remove(tmp_path / "new" / "checkpoint")
    fresh, _, note = make(tmp_path / "new")
    assert fresh.restore().endswith("ckpt-1")
    assert note.text == "found"


@pytest.mark.parametrize(
    "number", [20, pytest.param(1000, marks=pytest.mark.soak)]
)
def test_the_file_that_names_them_may_be_damaged(tmp_path, caplog, number):
    checkpoints, _, note = make(tmp_path)
    note.text = "found"
    checkpoints.save()
    names = tmp_path / "checkpoint"
    whole, rng = names.read_bytes(), np.random.default_rng(number)
    kinds = mutations.flip, mutations.truncate, mutations.swap_blocks
    for mutate in itertools.islice(itertools.cycle(kinds), number):
        (data,) = mutate({"checkpoint": whole}, rng).values()
        names.write_bytes(data)
        fresh, _, note = make(tmp_path)
        assert fresh.restore().endswith("ckpt-1")
        assert note.text == "found"
    caplog.clear()
    names.write_bytes(b"")
    fresh, _, _ = make(tmp_path)
    assert f"{names} is damaged" in caplog.text
    assert fresh.restore().endswith("ckpt-1")
    fresh.save()
    assert make(tmp_path)[0].restore().endswith("ckpt-2")


def test_other_shapes_are_an_error(tmp_path):
    make(tmp_path)[0].save()
    for other in ([1], [1, 2, 3]):
        variables = [tf.Variable(tf.zeros([40])), tf.Variable(other)]
        with pytest.raises(ValueError, match="does not fit this model"):
            Checkpoints(tmp_path, variables, Note()).restore()
