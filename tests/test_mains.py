"""What mains are made of, as a notebook may use it: without flags."""

import pytest
from absl import flags

from acnn_tf.data import synthetic
from acnn_tf.data.features import write_features
from acnn_tf.files.problems import DataError
from experiments import (
    losses_and_optimizer,
    model_flags,
    per_query_csv,
    splits,
    training_batches,
)


@pytest.fixture
def no_flags():
    """Flags as they are in a notebook: none is read."""
    was_parsed = flags.FLAGS.is_parsed()
    flags.FLAGS.unparse_flags()
    yield
    if was_parsed:
        flags.FLAGS.mark_as_parsed()


def test_a_notebook_can_train_with_the_helpers(no_flags):
    split = splits.load_split("train", dataset="synthetic", num_scenes=2)
    model = model_flags.make_model(
        split, "acnn", filters=4, embedding_dim=4, query_encoder="mean"
    )
    model.adapt(split.features.values())
    batches = training_batches.make_batches(model, split, batch_size=4)
    model(next(iter(batches.dataset))[0])
    losses_and_optimizer.compile_model(model, num_steps=1, learning_rate=0.01)
    model.run_eagerly = True  # quicker, for one step
    history = model.fit(
        batches.dataset, steps_per_epoch=1, shuffle=False, verbose=0
    )
    assert history.history["loss"][0] > 0


def test_splits_are_loaded_from_files_by_name_or_by_folder(no_flags, tmp_path):
    scenes = synthetic.make_scenes(2, split="val")
    synthetic.write(scenes, tmp_path, "val")
    by_folder = splits.load_split("val", dataset="jsonl", data_dir=tmp_path)
    by_name = splits.load_split(
        "train",
        dataset="jsonl",
        annotations=str(tmp_path / "val.jsonl"),
        features=str(tmp_path / "features_val.hdf5"),
        data_dir=None,
    )
    assert by_folder.moments == by_name.moments
    assert set(by_folder.features) == set(by_name.features)
    held = splits.preload(by_name._replace(moments=by_name.moments[:1]))
    assert list(held.features) == [by_name.moments[0].video_id]
    assert held.features.clip_seconds == scenes.clip_seconds


def test_what_a_split_lacks_is_said(no_flags, tmp_path):
    (tmp_path / "val.jsonl").write_text(
        '{"qid": 1, "vid": "v", "query": "a", "duration": 9, '
        '"relevant_windows": [[1, 2]]}'
    )
    for settings, message in (
        ({}, "--dataset must say"),
        ({"dataset": "jsonl"}, "no annotations of the val split"),
        ({"dataset": "jsonl", "data_dir": tmp_path}, "no features of the val"),
    ):
        with pytest.raises(ValueError, match=message):
            splits.load_split("val", **settings)


def test_bad_videos_are_left_out_if_asked(no_flags, tmp_path, capsys):
    scenes = synthetic.make_scenes(2, split="val")
    synthetic.write(scenes, tmp_path, "val")
    (kept, clips), (lost, _) = scenes.features.items()
    features = tmp_path / "one.hdf5"
    write_features(features, {kept: clips}, scenes.clip_seconds)
    settings = {"dataset": "jsonl", "data_dir": tmp_path, "features": features}
    whole = splits.load_split("val", **settings)
    assert {moment.video_id for moment in whole.moments} == {kept, lost}
    split = splits.load_split("val", **settings, skip_bad=True)
    assert {moment.video_id for moment in split.moments} == {kept}
    assert f"left out: {tmp_path / 'val.jsonl'}:" in capsys.readouterr().err
    (tmp_path / "val.jsonl").write_text("no JSON")
    (tmp_path / "val.jsonl.manifest.json").unlink()
    with pytest.raises(DataError, match=r"val\.jsonl:1"):
        splits.load_split("val", **settings)


def test_hits_of_queries_are_read_also_as_they_were_headed_at_first(tmp_path):
    path = tmp_path / "queries.csv"
    for ids in ("query_id,video_id", "qid,vid"):
        path.write_text(f'{ids},iou,"R@1,IoU=0.5"\n7,v,0.25,0\n8,w,0.75,1\n')
        query_ids, video_ids, hits = per_query_csv.read_per_query(path)
        assert (query_ids, video_ids) == (["7", "8"], ["v", "w"])
        assert {name: list(values) for name, values in hits.items()} == {
            "iou": [0.25, 0.75],
            "R@1,IoU=0.5": [0, 1],
        }


def test_a_run_says_what_it_was_trained_on(tmp_path):
    lines = [
        "--dataset=jsonl",
        f"--data_dir={tmp_path}",
        "--noskip_bad",
        "--num_scenes=40",
        "--annotations=a=b.jsonl",
        "--val_features=v.hdf5",
        "--epochs=3",
        "--clip_seconds=0.5",
        "--sentence_vectors=s.hdf5",
    ]
    (tmp_path / "flags.txt").write_text("\n".join(lines) + "\n")
    names = "a=b.jsonl", "v.hdf5", "s.hdf5"
    a, v, s = (str(tmp_path / name) for name in names)
    for path in (a, v, s):
        open(path, "w").close()
    common = {
        "dataset": "jsonl",
        "data_dir": str(tmp_path),
        "num_scenes": 40,
        "clip_seconds": 0.5,
        "sentence_vectors": s,
        "skip_bad": False,
    }
    for split, own in (
        ("train", {"annotations": a}),
        ("val", {"features": v}),
        ("test", {}),
    ):
        assert splits.settings_of_run(tmp_path, split) == common | own
