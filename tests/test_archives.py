"""Arrays in .npz and .pt, by name, without running or unpacking too much."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from acnn_tf.data.features import open_features
from acnn_tf.data.sentences import read_sentence_vectors
from acnn_tf.files.manifests import digest
from acnn_tf.files.problems import FeatureError

CLIPS = np.arange(12, dtype=np.float32).reshape(4, 3)
CALL = b"cos\nsystem\nX\1\0\0\0a\x85R"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(values):
    return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in values) + b"t"


def storage(key="0", kind="FloatStorage", size=12):
    said = text("storage") + f"ctorch\n{kind}\n".encode() + text(key)
    return b"(" + said + text("cpu") + b"J" + struct.pack("<i", size) + b"tQ"


def tensor(stored=None, first=0, shape=(4, 3), steps=(3, 1)):
    """A tensor as torch.save writes it."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + (stored or storage())
        + b"J"
        + struct.pack("<i", first)
        + numbers(shape)
        + numbers(steps)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def torch_file(path, value, packing=zipfile.ZIP_STORED, **storages):
    storages = storages or {"0": CLIPS.tobytes()}
    with zipfile.ZipFile(path, "w", packing) as file:
        file.writestr("archive/data.pkl", b"\x80\2" + value + b".")
        file.writestr("archive/byteorder", b"little")
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)


def dictionary(**values):
    items = (text(name) + value for name, value in values.items())
    return b"}(" + b"".join(items) + b"u"


def read(path, video="v"):
    with open_features(path, clip_seconds=1.0) as features:
        return features[video]


def test_arrays_of_archives_are_read_by_name(tmp_path):
    np.savez_compressed(tmp_path / "all.npz", v=CLIPS, w=2 * CLIPS)
    np.testing.assert_array_equal(read(tmp_path / "all.npz", "w"), 2 * CLIPS)
    torch_file(tmp_path / "all.pt", dictionary(v=tensor()))
    np.testing.assert_array_equal(read(tmp_path / "all.pt"), CLIPS)
    for name in ("npz", "pt", "two_npz", "two_pt"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "npz" / "v.npz", CLIPS)
    torch_file(tmp_path / "pt" / "v.pt", tensor())
    np.savez(tmp_path / "two_npz" / "v.npz", features=CLIPS, other=CLIPS[:1])
    torch_file(
        tmp_path / "two_pt" / "v.pt",
        dictionary(features=tensor(), other=b"N"),
    )
    for name in ("npz", "pt", "two_npz:features", "two_pt:features"):
        np.testing.assert_array_equal(read(tmp_path / name), CLIPS)
    digests = {
        digest(f"{tmp_path}/two_npz{end}")
        for end in ("", ":features", ":other")
    }
    assert len(digests) == 3
    np.savez(tmp_path / "npz" / "w.npz", CLIPS[0])
    assert read_sentence_vectors(tmp_path / "npz").dim == 3


def test_tensors_may_be_parts_of_a_storage_of_any_kind(tmp_path):
    path = tmp_path / "x.pt"
    # The second and third row, transposed.
    torch_file(path, dictionary(v=tensor(None, 3, (3, 2), (1, 3))))
    np.testing.assert_array_equal(read(path), CLIPS[1:3].T)
    half = np.array([0x3FC0, 0xC000], "<u2").tobytes()  # 1.5 and -2
    stored = storage("7", "BFloat16Storage", 2)
    value = tensor(stored, 0, (1, 2), (2, 1))
    torch_file(path, dictionary(v=value), **{"7": half})
    assert read(path).tolist() == [[1.5, -2.0]]
    double = storage("0", "DoubleStorage", 2)
    value = tensor(double, 0, (2, 1), (1, 1))
    torch_file(path, dictionary(v=value), **{"0": np.ones(2).tobytes()})
    assert read(path).tolist() == [[1.0], [1.0]]


def npz(path, name, data, packing=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packing) as file:
        file.writestr(name, data)


def test_bad_archives_are_named(tmp_path, subtests):
    large = io.BytesIO()
    np.save(large, np.zeros((1 << 20, 8), np.float32))
    objects = io.BytesIO()
    np.save(objects, np.array([print]), allow_pickle=True)
    far = 1 << 30
    for suffix, write, message in (
        ("npz", lambda p: p.write_bytes(b"x"), "File is not a zip file"),
        (
            "npz",
            lambda p: npz(p, "v.npy", large.getvalue()),
            "33,554,560 bytes",
        ),
        ("npz", lambda p: npz(p, "v.npy", objects.getvalue()), "found object"),
        (
            "npz",
            lambda p: npz(p, "v.npy", b"", zipfile.ZIP_LZMA),
            "packed in an unknown way",
        ),
        ("pt", lambda p: p.write_bytes(pickle.dumps(CLIPS)), "save it again"),
        ("pt", lambda p: torch_file(p, CALL), "names 'os.system'"),
        (
            "pt",
            lambda p: torch_file(p, dictionary(v=tensor(steps=(0, 0)), w=CALL)),
            "names 'os.system'",
        ),
        (
            "pt",
            lambda p: torch_file(
                p, dictionary(v=tensor(shape=(far, 3), steps=(0, 0)))
            ),
            "in a storage of 12 numbers",
        ),
        (
            "pt",
            lambda p: torch_file(p, dictionary(v=tensor(first=1))),
            "in a storage of 12 numbers",
        ),
        (
            "pt",
            lambda p: torch_file(p, dictionary(v=tensor(shape=(-1, 3)))),
            "whose shape is none",
        ),
        (
            "pt",
            lambda p: torch_file(p, dictionary(v=tensor(storage(size=99)))),
            "is not of 99",
        ),
        (
            "pt",
            lambda p: torch_file(p, dictionary(v=tensor(storage(kind="Size")))),
            "names 'torch.Size'",
        ),
        (
            "pt",
            lambda p: torch_file(
                p, dictionary(v=tensor()), zipfile.ZIP_DEFLATED
            ),
            "has not its own bytes",
        ),
        ("pt", lambda p: torch_file(p, dictionary(v=b"N")), "found None"),
    ):
        path = tmp_path / f"x.{suffix}"
        write(path)
        with subtests.test(message), pytest.raises(FeatureError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: is not a whole .{suffix}")
        assert message in str(error.value)
    folder = tmp_path / "two"
    folder.mkdir()
    np.savez(folder / "v.npz", a=CLIPS, b=CLIPS)
    with pytest.raises(FeatureError, match=r"\('a', 'b'\); choose one of them"):
        read(folder)
    with pytest.raises(FeatureError, match="it has no array 'c'"):
        read(f"{folder}:c")
    np.save(folder / "w.npy", CLIPS)
    with pytest.raises(FeatureError, match=r"kinds, \.npy and \.npz; keep"):
        read(folder)
