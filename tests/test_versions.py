import os
import shutil

import pytest

from export.protocol import versions as versions_module
from export.protocol.errors import ServingError
from export.protocol.signatures import Servable
from export.protocol.versions import Versions
from tests.small_model import X, request, save


def test_a_bad_warm_up_keeps_a_version_out(small_models, tmp_path):
    shutil.copytree(small_models / "1", tmp_path / "1")
    versions = Versions("acnn", tmp_path, 2**20)
    versions.poll()
    save(tmp_path, 2, 3, warm_up=request(z=X))
    versions.poll()
    assert versions.available == [1]
    spec = request().model_spec
    new, old = versions.status(spec).model_version_status
    assert (new.version, new.state, old.version) == (2, new.END, 1)
    assert "Missing: ['x']" in new.status.error_message
    # Mended, it is taken without a restart.
    file = tmp_path / "2" / "assets.extra" / "tf_serving_warmup_requests"
    os.unlink(file)
    versions.poll()
    assert versions.available == [2]


def test_an_old_version_leaves_memory_with_its_last_request(
    small_models, tmp_path
):
    shutil.copytree(small_models / "1", tmp_path / "1")
    versions = Versions("acnn", tmp_path, 2**20)
    versions.poll()
    spec = request().model_spec
    held = versions.find(spec)
    save(tmp_path, 2, 3)
    versions.poll()
    versions.poll()
    status = versions.status(spec).model_version_status[1]
    assert status.state == status.UNLOADING
    assert held.run("serving_default", {"x": X})["y"].tolist() == (
        (2 * X).tolist()
    )
    del held
    versions.poll()
    status = versions.status(spec).model_version_status[1]
    assert status.state == status.END


def test_several_versions_are_served_where_that_is_asked_for(
    small_models, tmp_path
):
    for version in "123":
        shutil.copytree(small_models / "1", tmp_path / version)
    versions = Versions("acnn", tmp_path, 2**20, num_versions=2)
    versions.poll()
    assert versions.available == [2, 3]
    (tmp_path / "1").rename(tmp_path / "4")
    versions.poll()
    assert versions.available == [3, 4]
    spec = request().model_spec
    assert versions.find(spec).version == 4
    spec.version.value = 3
    assert versions.find(spec).version == 3
    spec.version.value = 2
    with pytest.raises(ServingError, match=r"the versions \[3, 4\]"):
        versions.find(spec)


def test_only_integers_of_64_bits_are_versions(small_models, tmp_path, caplog):
    bad = ["0001", str(2**63), "9" * 99, "\N{SUPERSCRIPT TWO}", "-1", "1.0"]
    for name in (*bad, str(2**63 - 1), "7"):
        shutil.copytree(small_models / "1", tmp_path / name)
    versions = Versions("acnn", tmp_path, 2**20)
    with caplog.at_level("WARNING"):
        for _ in range(3):
            versions.poll()
    assert versions.available == [2**63 - 1]
    status = versions.status(request().model_spec)
    assert len(status.model_version_status) == 1
    told = [r.getMessage() for r in caplog.records if "no version" in r.msg]
    assert len(told) == 3  # of those that look like numbers, once
    assert any("0001 is no version: expected an integer" in t for t in told)


def test_a_number_of_rows_that_is_fixed_is_not_merged(small_models):
    servable = Servable(str(small_models / "1"), 1)
    assert servable.unmergeable == {"slow", "total"}


def test_a_failed_version_is_tried_again_only_when_its_files_change(
    tmp_path, monkeypatch
):
    tries = []

    def fail(path, version):
        tries.append(version)
        raise ValueError("no model")

    monkeypatch.setattr(versions_module, "Servable", fail)
    (tmp_path / "1").mkdir()
    file = tmp_path / "1" / "saved_model.pb"
    file.write_bytes(b"not whole")
    versions = Versions("acnn", tmp_path, 2**20)
    for _ in range(3):
        versions.poll()
    assert tries == [1]
    file.write_bytes(b"copied a bit further")
    for _ in range(3):
        versions.poll()
    assert tries == [1, 1]
