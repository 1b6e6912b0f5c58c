"""The settings of a run: written, read, compared, and its files found."""

import pytest

from experiments import run_settings
from export import run_models

WORDS = ["--epochs=12", "--seed=0", "--noskip_bad", "--features=a.h5"]
MADE_BY = {"encoder": "a", "name": "a"}


@pytest.fixture
def run(tmp_path):
    """A run with one file, which `run_settings` are called with."""
    path = tmp_path / "a.h5"
    path.write_text("features")
    workdir = tmp_path / "run"
    workdir.mkdir()
    run_settings.write_flags(workdir, WORDS, {"features": path}, MADE_BY)
    return workdir, {"features": path}


def test_they_come_back(run):
    assert run_settings.read_flags(run[0]) == {
        "epochs": "12",
        "seed": "0",
        "skip_bad": "False",
        "features": "a.h5",
    }


def test_a_slip_in_the_name_of_a_run_is_told(run, tmp_path, monkeypatch):
    for folder, words in (
        (tmp_path / "rum", f"no folder {tmp_path}/rum. Is it {run[0]}?"),
        (tmp_path / "gone" / "rum", f"no folder {tmp_path}/gone/rum."),
    ):
        with pytest.raises(FileNotFoundError) as raised:
            run_models.check_choice(workdir=str(folder))
        assert str(raised.value) == f"There is {words}"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"rum\. Is it run"):
        run_models.check_run("rum")


def test_what_changes_nothing_may_differ(run, tmp_path):
    workdir, files = run
    run_settings.check_same(tmp_path / "new", WORDS, files)
    run_settings.check_same(workdir, WORDS, files)
    run_settings.check_same(workdir, WORDS, files, {**MADE_BY, "versions": {}})
    more = ["--epochs=13", *WORDS[1:], "--checkpoint_steps=3"]
    run_settings.check_same(workdir, more, files)
    moved = files["features"].rename(tmp_path / "b.h5")
    words = [*WORDS[:-1], "--features=b.h5"]
    run_settings.check_same(workdir, words, {"features": moved})


def test_what_would_make_another_model_is_listed(run):
    workdir, files = run
    words = ["--epochs=11", "--seed=7", "--skip_bad", WORDS[-1]]
    with pytest.raises(ValueError, match="other settings") as error:
        run_settings.check_same(workdir, words, files)
    for line in (
        "--epochs: 12 then, 11 now",
        "--seed: 0 then, 7 now",
        "--skip_bad: False then, True now",
        f"--flagfile={workdir}/flags.txt",
    ):
        assert line in str(error.value)
    # A setting that is not given any more.
    with pytest.raises(ValueError, match="--seed: 0 then, None now"):
        run_settings.check_same(workdir, WORDS[:1] + WORDS[2:], files)
    with pytest.raises(ValueError, match=r"a\.h5: made by b, the run learned"):
        run_settings.check_same(
            workdir, WORDS, files, dict.fromkeys(MADE_BY, "b")
        )
    files["features"].write_text("others")
    with pytest.raises(ValueError, match=r"a\.h5 is not the file of then"):
        run_settings.check_same(workdir, WORDS, files)
    with pytest.raises(ValueError, match="features: no file now"):
        run_settings.check_same(workdir, WORDS, {})


def test_a_file_that_there_was_not_is_listed(run):
    workdir, files = run
    vectors = workdir.parent / "glove.txt"
    vectors.write_text("a 1\n")
    words = [*WORDS, f"--word_vectors={vectors}"]
    more = {**files, "word_vectors": vectors}
    for then in (files, {}):  # as of built-in scenes
        run_settings.write_flags(workdir, WORDS, then)
        with pytest.raises(ValueError, match=r"word_vectors: no file then"):
            run_settings.check_same(workdir, words, more)
    # A run of before kept no digests.
    run_settings.check_same(workdir, WORDS, files)


def test_checkpoints_of_unknown_settings_are_refused(run):
    workdir, files = run
    (workdir / "checkpoints").mkdir()
    (workdir / "checkpoints" / "ckpt-1.index").touch()
    run_settings.check_same(workdir, WORDS, files)
    for change in ("flags.txt", None):
        if change:
            (workdir / change).write_text("")
        else:
            (workdir / "flags.txt").unlink()
        with pytest.raises(ValueError, match=r"checkpoints, but no flags\.txt"):
            run_settings.check_same(workdir, WORDS, files)


def test_files_are_found_from_any_folder(run, tmp_path, monkeypatch):
    workdir, _ = run
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run_settings.find("a.h5", workdir) == str(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError) as error:
        run_settings.find("c.h5", workdir)
    assert str(elsewhere) in str(error.value)
    assert str(workdir) in str(error.value)
    monkeypatch.chdir(tmp_path)
    assert run_settings.find("a.h5", workdir) == "a.h5"
    assert run_settings.find("s3://a/b.h5", workdir) == "s3://a/b.h5"
