"""Features of several encoders, joined clip by clip."""

import numpy as np
import pytest

from acnn_tf.data.annotations import Moment
from acnn_tf.data.features import open_features, write_features
from acnn_tf.data.inspection import with_usable_features
from acnn_tf.files.manifests import digest
from acnn_tf.files.problems import FeatureError, UnknownIdError
from experiments import run_settings
from export import command

CLIPS = {
    "v": np.array([[3, 4], [0, 0], [5, 12]], np.float32),
    "w": np.ones((4, 2), np.float32),
}
SLOW = {
    "v": np.array([[0, 2, 0]] * 4, np.float32),
    "w": np.ones((2, 3), np.float32),
}
MADE_BY = {"encoder": "clip", "name": "clip", "frame_rate": 1.0}
MADE_SLOW = {"encoder": "slow", "name": "slow"}


@pytest.fixture
def path(tmp_path):
    write_features(tmp_path / "clip.hdf5", CLIPS, 1.0, MADE_BY)
    write_features(tmp_path / "slow", {**SLOW, "x": SLOW["v"]}, 1.0, MADE_SLOW)
    return f"{tmp_path}/clip.hdf5,{tmp_path}/slow"


def test_clips_are_of_unit_length_and_those_past_the_shorter_are_cut(path):
    with open_features(path) as features:
        assert features.dim == 5
        np.testing.assert_allclose(
            features["v"],
            [[0.6, 0.8, 0, 1, 0], [0, 0, 0, 1, 0], [5 / 13, 12 / 13, 0, 1, 0]],
            rtol=1e-6,
        )
        assert list(features) == ["v", "w"]
        assert features.encoder["name"] == "clip + slow"


def test_what_does_not_fit_is_named(path, tmp_path):
    moments = [
        Moment("1", "he runs", "v", 3.0, ((0.0, 2.0),)),
        Moment("2", "he runs", "w", 3.0, ((0.0, 2.0),)),
    ]
    message = "video 'w' has 4 in .*clip.hdf5 and 2 in .*slow clips, which may"
    with open_features(path) as features:
        with pytest.raises(FeatureError, match=message):
            features["w"]
        with pytest.raises(
            UnknownIdError, match=r"clip\.hdf5 has no video 'x'"
        ):
            features["x"]
        usable, problems = with_usable_features(moments, features)
    assert usable == moments[:1]
    told = [(p.message.partition(";")[0][:30], p.dropped) for p in problems]
    assert ("video 'w' has 4 in", True) in [(t[:18], d) for t, d in told]
    assert any("'x' is not in all" in p.message for p in problems)
    write_features(tmp_path / "half.hdf5", CLIPS, 0.5)
    with pytest.raises(FeatureError, match=r"its clips last 0\.5 s, those of"):
        open_features(f"{path},{tmp_path}/half.hdf5")
    (tmp_path / "windows").mkdir()
    np.save(tmp_path / "windows" / "v_1_65.npy", np.ones(3, np.float32))
    with pytest.raises(FeatureError, match="only features of clips are joined"):
        open_features(f"{path},{tmp_path}/windows", clip_seconds=1.0)


def test_a_run_finds_all_of_them_and_tells_that_one_has_changed(
    path, tmp_path, monkeypatch
):
    before = digest(path)
    relative = "clip.hdf5,slow"
    (tmp_path / "run").mkdir()
    assert run_settings.find(relative, tmp_path / "run") == path
    monkeypatch.chdir(tmp_path)
    assert command.absolute(relative) == path
    (tmp_path / "slow" / "v.npy").write_bytes(b"changed")
    assert digest(path) != before
