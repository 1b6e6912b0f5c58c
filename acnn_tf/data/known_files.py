"""What the files of a dataset are called, given the folder they lie in."""

import os

_FEATURES = (
    "clip_vitb32_1fps_{split}.hdf5",
    "features_{split}.hdf5",
    "features_{split}.h5",
    "features_{split}.tfrecord",
    "features_{split}",
    "features.hdf5",
    "features.h5",
    "features.tfrecord",
    "features",
)
_ANNOTATIONS = {
    "tacos": ("TACoS_{split}_samples.txt", "{split}.json"),
    "charades_sta": ("charades_sta_{split}.txt",),
    "activitynet_captions": ("{split}.json",),
    "didemo": ("{split}_data.json",),
    "jsonl": ("{split}.jsonl",),
    "synthetic": ("{split}.jsonl",),
}
# The two validation files of ActivityNet Captions serve as val and test.
_ACTIVITYNET = {"val": ("val_1.json",), "test": ("val_2.json",)}
_DURATIONS = (
    "durations_{split}.json",
    "durations.json",
    "Charades_v1_{split}.csv",
)
SPLITS = ("train", "val", "test")


def known_files(dataset, data_dir, split, annotations=None):
    """Finds the files of one split by their known names.

    Args:
        dataset: One of `acnn_tf.data.annotations.DATASETS`.
        data_dir: Folder.
        split: `"train"`, `"val"` or `"test"`.
        annotations: Path of the annotations where the folder need not hold
            them.

    Returns:
        Dictionary with `"annotations"` and whichever of `"durations"`,
        `"num_frames"` and `"features"` are there: paths.

    Raises:
        FileNotFoundError: If there are no annotations; says what was looked
            for.
    """
    if dataset not in _ANNOTATIONS:
        raise ValueError(
            f"`dataset` must be one of {tuple(_ANNOTATIONS)}. "
            f"Received: {dataset}"
        )
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {SPLITS}. Received: {split}")
    usual = _ANNOTATIONS[dataset]
    if dataset == "activitynet_captions":
        usual = _ACTIVITYNET.get(split, ()) + usual
    names = {"features": _FEATURES}
    if annotations is None:
        names["annotations"] = usual
    if dataset == "tacos":
        names["num_frames"] = ("num_frames.json",)
    else:
        names["durations"] = _DURATIONS
    files = {} if annotations is None else {"annotations": annotations}
    for kind, candidates in names.items():
        for name in candidates:
            path = os.path.join(data_dir, name.format(split=split))
            if os.path.exists(path):
                files[kind] = path
                break
    if "annotations" not in files:
        looked_for = " or ".join(n.format(split=split) for n in usual)
        raise FileNotFoundError(
            f"{os.fspath(data_dir)} holds no {split} annotations of "
            f"{dataset}: looked for {looked_for}. Name the file of "
            "annotations, or choose another folder or split."
        )
    return files
