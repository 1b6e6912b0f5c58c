import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from acnn_tf import encoders
from acnn_tf.data import extraction, find_files, open_features, open_video
from acnn_tf.data.durations import read_durations, video_seconds, videos_path
from acnn_tf.data.extraction import (
    encode_video,
    extract,
    find_videos,
    not_looked_into,
)
from acnn_tf.data.video import VideoError
from acnn_tf.files.problems import DataError, summarize
from experiments import shard_work
from export import progress
from tests.processes import Started, run_module
from tests.video_files import (
    RATE,
    draw,
    resident_bytes,
    shortened,
    write,
    write_sound,
)

PIXELS = encoders.make("pixels", frame_rate=5)


def touch(folder, *names):
    for name in names:
        path = Path(folder, name)
        path.parent.mkdir(exist_ok=True)
        path.touch()


# Videos by name


def test_files_folders_and_patterns_name_videos(
    subtests, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    touch("a", "two.mp4", "one.MKV", ".hidden.mp4", "notes.txt", "d.mp4/x.webm")
    touch("b", "[1].mp4", "v.1.mp4", "odd.dat")
    both = {"one": "a/one.MKV", "two": "a/two.mp4"}
    for patterns, expected in (
        ("a", both),
        (Path("a"), both),
        ("a/*.mp4", {"two": "a/two.mp4"}),
        (["a/*o*", "./a/two.mp4"], both | {"notes": "a/notes.txt"}),
        ("**/*.webm", {"x": "a/d.mp4/x.webm"}),
        ("b/[1].mp4", {"[1]": "b/[1].mp4"}),
        (["b/v.1.mp4", "b/odd.dat"], {"odd": "b/odd.dat", "v.1": "b/v.1.mp4"}),
    ):
        with subtests.test(patterns=patterns):
            found = find_videos(patterns)
            assert found == expected
            assert list(found) == sorted(found)


def test_what_names_no_video_or_two_is_refused(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch("a", "v.mp4", "w.mp4")
    touch("b", "v.webm")
    touch("empty", "notes.txt")
    for patterns, message in (
        ("empty", "^empty: is a folder without videos .*mp4"),
        ("a/*.avi", r"^a/\*\.avi: matches no file"),
        ("a/x.mp4", r"^a/x\.mp4: is not there"),
        (["a", "b"], r"^b/v\.webm: has the name of a/v\.mp4.*'v'; rename"),
        # All that is wrong is said at once.
        (["a", "b/*", "c"], r"b/v\.webm: .*\nc: is not there"),
    ):
        with refused(DataError, f"(?s){message}"):
            find_videos(patterns)
    Path(os.fsdecode(b"a/\xff.mp4")).touch()
    with refused(DataError, "not a line of UTF-8; rename"):
        find_videos("a")


# From a file to clips


def test_a_video_is_encoded_as_its_frames_are(tmp_path):
    path = write(tmp_path / "a.mp4")
    video = open_video(path)
    # 12 frames at 5 a second, 2 to a clip.
    expected = PIXELS.encode(np.stack(list(video.frames(5))))
    encoded = encode_video(path, PIXELS)
    assert encoded.clips.shape == (6, PIXELS.dim)
    np.testing.assert_array_equal(encoded.clips, expected)
    assert encoded.duration == video.duration == pytest.approx(2.4)
    assert encoded.notes == []
    in_ones = encode_video(path, PIXELS, batch_size=1)
    np.testing.assert_array_equal(in_ones.clips, expected)


def test_a_shortened_video_lasts_as_long_as_what_is_left(tmp_path):
    path = write(tmp_path / "a.mkv", pictures=map(draw, range(250)))
    encoded = encode_video(shortened(path, 0.6), PIXELS)
    assert 1 < encoded.duration < 10
    # Each clip has 0.4 s; the last may be begun.
    assert encoded.duration == pytest.approx(0.4 * len(encoded.clips), abs=0.5)
    (note,) = (note for note in encoded.notes if "cut short" in note)
    assert f"decoded {encoded.duration:.1f} of 10.0 s" in note


def test_a_video_lasts_as_long_as_its_frames_whatever_its_file_says(tmp_path):
    # By its file 4.2 s, of which it shows 12.
    times = [*range(50), 75, 76, 100, 101, 250, 251]
    path = write(
        tmp_path / "a.mp4", pictures=map(draw, range(len(times))), times=times
    )
    assert open_video(path).duration < 5
    clips, duration, notes = encode_video(path, PIXELS)
    assert abs(len(clips) * 0.4 - duration) <= 1
    assert duration > 10.08
    assert notes == []
    # By another count it lasted longer.
    video = open_video(path)
    video.duration = duration + 2
    assert encode_video(path, PIXELS, open_video=lambda _: video)[1] == duration


def test_a_single_frame_is_a_clip(tmp_path):
    path = write(tmp_path / "a.mp4", pictures=[draw(5)])
    encoded = encode_video(path, PIXELS)
    assert encoded.clips.shape == (1, PIXELS.dim)
    assert encoded.duration == pytest.approx(1 / RATE)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    class Broken(type(PIXELS)):
        def encode_batches(self, batches):
            for clips in super().encode_batches(batches):
                yield np.log(clips - 1)

    path = write(tmp_path / "a.mp4")
    with (
        np.errstate(invalid="ignore", divide="ignore"),
        pytest.raises(VideoError, match=r"a\.mp4: pixels makes numbers that"),
    ):
        encode_video(path, Broken())


def test_real_videos_are_encoded(shared_data):
    encoder = encoders.make("pixels", frame_rate=1)
    videos = find_videos(shared_data / "videos")
    assert list(videos) == ["OHOFG", "Y1HGC"]
    # 36 and 31 frames, 2 to a clip.
    for (_, path), count in zip(videos.items(), (18, 16), strict=True):
        assert encode_video(path, encoder).clips.shape == (count, encoder.dim)


@pytest.mark.soak
def test_two_hours_take_no_more_memory_than_seconds(tmp_path):
    pictures = (draw(i % 1024) for i in range(2 * 3600 * 10))
    path = write(tmp_path / "a.mp4", pictures=pictures, rate=10)
    encode_video(write(tmp_path / "b.mp4"), PIXELS)
    before = resident_bytes()
    encoded = encode_video(path, PIXELS)
    # 5 frames a second, 2 to a clip, 130 numbers of 4 bytes: 9 MB, twice.
    assert encoded.clips.shape == (18_000, PIXELS.dim)
    assert encoded.duration == 7200
    assert resident_bytes() - before < 40 * 2**20


# A file of features


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Five videos of 1 to 3 s."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(5):
        pictures = map(
            draw, range(100 * number, 100 * number + 30 + 10 * number)
        )
        write(folder / f"v{number}.mp4", pictures=pictures)
    return folder


@pytest.fixture
def moved(videos, tmp_path):
    """The same, which a test may change."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in videos.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def extract_all(folder, out, **arguments):
    return extract(find_videos(folder), PIXELS, out, **arguments)


def make_parts(folder, out):
    """Does as one that is killed before it writes the features."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        extraction.extracting(find_videos(folder), PIXELS, out) as work,
    ):
        for video, path in work.missing.items():
            extraction.encode_part(work.folder, video, path, PIXELS)
        raise KeyboardInterrupt
    return Path(work.folder)


def bytes_of(out):
    """Bytes of the features, and of what stands beside them."""
    paths = Path(out).parent.glob(f"{Path(out).name}*")
    return {path.name: path.read_bytes() for path in paths}


def test_features_are_those_of_each_video(subtests, videos, tmp_path):
    for name in ("a.hdf5", "a.tfrecord"):
        with subtests.test(name):
            out = tmp_path / name
            assert extract_all(videos, out) == []
            with open_features(out) as features:
                assert list(features) == ["v0", "v1", "v2", "v3", "v4"]
                assert features.encoder == PIXELS.description
                assert features.clip_seconds == 0.4
                for video, path in find_videos(videos).items():
                    clips, duration, _ = encode_video(path, PIXELS)
                    np.testing.assert_array_equal(features[video], clips)
                    seconds = video_seconds(features)
                    assert seconds[video] == pytest.approx(duration)
            # It is such a file as --durations names, and is found without.
            assert read_durations(videos_path(out)) == seconds
            files = {"annotations": "own.jsonl", "features": str(out)}
            found = find_files("jsonl", None, "train", **files)
            assert found == {**files, "durations": videos_path(out)}
            assert find_files("tacos", None, "train", **files) == files


def test_the_bytes_do_not_tell_what_was_killed(videos, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole" / "a.hdf5", tmp_path / "a.hdf5"
    extract_all(videos, whole)
    encode, told = extraction.encode_video, []
    for count in (2, 1, 5):
        left = iter(range(count))

        def killed(*arguments, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return encode(*arguments)

        monkeypatch.setattr(extraction, "encode_video", killed)
        told.clear()
        try:
            extract_all(videos, out, progress=lambda *now: told.append(now))
        except KeyboardInterrupt:
            assert not out.exists()
    # Three were done before.
    assert told[0] == (0.0, 3)
    assert told[-1] == (1.0, 5)
    assert bytes_of(out) == bytes_of(whole)
    assert list(left) == [2, 3, 4]
    monkeypatch.setattr(extraction, "encode_video", encode)
    # Killed between the features and what is said of them.
    fewer = find_videos(videos / "v[012].mp4")

    def killed_writing(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "_write_rows", killed_writing)
        with pytest.raises(KeyboardInterrupt):
            extract(fewer, PIXELS, out)
    extract(fewer, PIXELS, out)
    with open_features(out) as features:
        assert list(features) == list(fewer)
    extract_all(videos, out)
    assert bytes_of(out) == bytes_of(whole)


def test_only_what_is_new_or_changed_is_encoded(moved, tmp_path, monkeypatch):
    out, seen = tmp_path / "a.hdf5", []
    encode = extraction.encode_video

    def watched(path, *arguments):
        seen.append(os.path.basename(path))
        return encode(path, *arguments)

    monkeypatch.setattr(extraction, "encode_video", watched)

    def encoded():
        seen.clear()
        assert extract_all(moved, out) == []
        return seen

    assert len(encoded()) == 5
    before = out.stat().st_mtime_ns
    # A later time alone is no change.
    os.utime(moved / "v0.mp4")
    assert encoded() == []
    assert out.stat().st_mtime_ns == before
    write(moved / "v1.mp4", pictures=map(draw, range(900, 950)))
    write(moved / "w.mp4")
    (moved / "v2.mp4").unlink()
    assert encoded() == ["v1.mp4", "w.mp4"]
    with open_features(out) as features:
        assert list(features) == ["v0", "v1", "v3", "v4", "w"]
    extract_all(moved, tmp_path / "again" / "a.hdf5")
    assert bytes_of(out) == bytes_of(tmp_path / "again" / "a.hdf5")


def test_one_that_changed_after_its_part_was_made_is_done_again(
    moved, tmp_path
):
    out = tmp_path / "a.hdf5"
    make_parts(moved, out)
    write(moved / "v1.mp4", pictures=map(draw, range(900, 950)))
    with extraction.extracting(find_videos(moved), PIXELS, out) as work:
        assert list(work.missing) == ["v1"]
        extraction.encode_part(work.folder, "v1", str(moved / "v1.mp4"), PIXELS)
    with open_features(out) as features:
        clips = encode_video(moved / "v1.mp4", PIXELS).clips
        np.testing.assert_array_equal(features["v1"], clips)


def test_another_encoder_is_refused_by_name(refused, videos, tmp_path):
    found = find_videos(videos)
    out = tmp_path / "a.hdf5"
    extract(found, PIXELS, out)
    faster = encoders.make("pixels")
    message = "made by pixels at 5 fps, now it would be pixels at 4 fps; choose"
    with refused(DataError, rf"a\.hdf5: {message}"):
        extract(found, faster, out)
    begun = tmp_path / "b.hdf5"
    make_parts(videos, begun)
    with refused(DataError, rf"b\.hdf5\.parts: {message}"):
        extract(found, faster, begun)


def test_files_of_others_are_not_touched(refused, videos, tmp_path):
    with refused(ValueError, "There are no videos"):
        extract_all({}, tmp_path / "none.hdf5")
    found = find_videos(videos)
    for name, error, message in (
        ("a.hdf5", FileExistsError, r"no .*a\.hdf5\.videos\.csv says of what"),
        ("a.txt", ValueError, r"into a \.hdf5, \.h5 or \.tfrecord file"),
    ):
        path = tmp_path / name
        path.write_text("mine")
        with refused(error, message):
            extract(found, PIXELS, path)
        assert path.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_fails_is_told_and_the_others_are_kept(moved, tmp_path):
    out = tmp_path / "a.hdf5"
    for number in range(6):
        (moved / f"empty{number}.mp4").touch()
    (moved / "text.mp4").write_text("Thank you for your order")
    write_sound(moved / "sound.mp4", "aac")
    shortened(write(moved / "cut.mkv", pictures=map(draw, range(250))), 0.6)
    shortened(write(moved / "no index.mp4"))
    write(moved / "one.mp4", pictures=[draw(5)])
    problems = extract_all(moved, out)
    failed = summarize([p for p in problems if p.dropped])
    (note,) = summarize([p for p in problems if not p.dropped])
    for line, expected in zip(
        sorted(failed),
        (
            "'empty0.mp4' is empty, 0 bytes; .* 5 more like this: 'empty1.mp4'",
            "'no index.mp4' is an MP4 or MOV file without its index",
            "'sound.mp4' holds no video but audio alone",
            "'text.mp4' is text, not a video; it begins with 'Thank you",
        ),
        strict=True,
    ):
        assert re.match(f"{re.escape(str(moved))}: {expected}", line)
    assert re.search(r"'cut\.mkv' .*decoded .* of 10\.0 s", note)
    whole = ["v0", "v1", "v2", "v3", "v4"]
    with open_features(out) as features:
        assert list(features) == ["cut", "one", *whole]
    # They fail again, and the notes stay; the file is not written anew.
    before = out.stat().st_mtime_ns
    assert extract_all(moved, out) == problems
    assert out.stat().st_mtime_ns == before
    # If nothing is left there is no file.
    empty = tmp_path / "empty.hdf5"
    assert len(extract_all(moved / "empty?.mp4", empty)) == 6
    assert bytes_of(empty) == {}


def test_a_second_process_waits_and_finds_all_done(videos, tmp_path):
    out = tmp_path / "a.hdf5"
    with extraction.extracting(find_videos(videos), PIXELS, out) as work:
        other = threading.Thread(target=extract_all, args=(videos, out))
        other.start()
        for video, path in work.missing.items():
            extraction.encode_part(work.folder, video, path, PIXELS)
        assert other.is_alive()
        assert not out.exists()
    before = out.stat().st_mtime_ns
    other.join(timeout=60)
    assert not other.is_alive()
    assert out.stat().st_mtime_ns == before
    assert len(bytes_of(out)) == 3


def test_damage_is_told(moved, tmp_path):
    out = tmp_path / "a.hdf5"
    part = make_parts(moved, out) / "v1.npz"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1  # of its clips
    for damaged in (data, data[:-99]):
        part.write_bytes(damaged)
        with pytest.raises(DataError, match=r"v1\.npz: is damaged .*; remove"):
            extract_all(moved, out)
    assert not out.exists()
    part.unlink()
    extract_all(moved, out)
    Path(videos_path(out)).write_text("id,length\nv0,3\n")
    with pytest.raises(DataError, match="expected the columns id, length, byt"):
        extract_all(moved, out)


def test_a_video_that_changes_while_it_is_read_is_told(moved, tmp_path):
    path = moved / "v1.mp4"
    encoder = encoders.make("pixels")

    def touched(*arguments):
        os.utime(path, (1, 1))
        return type(encoder).encode(encoder, *arguments)

    encoder.encode = touched
    (problem,) = extract(find_videos(path), encoder, tmp_path / "a.hdf5")
    assert "'v1.mp4' has changed while it was read" in str(problem)


# The command


def extract_features(*arguments, code=0):
    return run_module("experiments.extract_features", *arguments, code=code)


def test_the_command_tells_what_it_made_and_what_it_left_out(moved, tmp_path):
    out = tmp_path / "a.hdf5"
    flags = f"--videos={moved}", f"--out={out}", "--fps=5"
    done = extract_features(*flags)
    assert done.stdout == (
        f"{out}: 5 of 5 videos by pixels at 5 fps, 130 numbers for every "
        "0.4 s\n"
    )
    assert "5 of 5 videos in 0:0" in done.stderr
    extract_all(moved, tmp_path / "b" / "a.hdf5")
    assert bytes_of(out) == bytes_of(tmp_path / "b" / "a.hdf5")
    (moved / "empty.mp4").touch()
    shortened(write(moved / "cut.mkv", pictures=map(draw, range(250))), 0.6)
    done = extract_features(*flags)
    (last,) = done.stdout.splitlines()
    note, left_out = done.stderr.splitlines()[-2:]
    assert note.startswith(f"note: {moved}: 'cut.mkv' ")
    assert left_out.startswith(f"left out: {moved}: 'empty.mp4' is empty")
    assert last.startswith(f"{out}: 6 of 7 videos")
    only = f"--videos={moved / 'empty.mp4'}", f"--out={tmp_path / 'c.hdf5'}"
    assert "left out: " in extract_features(*only, code=2).stderr
    done = extract_features(*flags[:2], code=2)
    assert done.stderr.startswith(f"DataError: {out}: made by pixels at 5 fps")


def test_folders_of_a_folder_are_named_if_they_have_videos(tmp_path):
    for name in ("a/text", "b/one", "c/deep/two"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "notes.txt").touch()
    assert not_looked_into([tmp_path, tmp_path / "none"]) == []
    (tmp_path / "b" / "x.MOV").touch()
    (note,) = not_looked_into(tmp_path)
    assert "folders in it, such as 'b', have videos" in note
    # The pattern that it gives takes all of them.
    (tmp_path / "c" / "deep" / "y.MOV").touch()
    assert set(find_videos(note.split("'")[3])) == {"x", "y"}


def test_who_interrupts_the_work_is_told_how_it_goes_on(videos, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="same command goes on"):
        with extraction.extracting(
            find_videos(videos), PIXELS, tmp_path / "a.hdf5"
        ):
            raise KeyboardInterrupt


def test_a_killed_command_goes_on(videos, tmp_path):
    out, parts = tmp_path / "a.hdf5", tmp_path / "a.hdf5.parts"
    flags = f"--videos={videos}/*.mp4", f"--out={out}", "--fps=5"
    process = Started("experiments.extract_features", *flags)
    while process.returncode is None and len(list(parts.glob("*.npz"))) < 2:
        time.sleep(0.001)
    process.kill()
    assert process.finish().returncode == -signal.SIGKILL
    done = {p: p.stat().st_mtime_ns for p in parts.glob("*.npz")}
    assert done
    extract_features(*flags)
    extract_all(videos, tmp_path / "b" / "a.hdf5")
    assert bytes_of(out) == bytes_of(tmp_path / "b" / "a.hdf5")
    assert {p.name for p in tmp_path.iterdir()} == {"b", *bytes_of(out)}


@pytest.mark.slow
def test_a_pipeline_makes_the_same_bytes(moved, tmp_path):
    pytest.importorskip("apache_beam", reason="needs acnn_tf[beam]")
    (moved / "empty.mp4").touch()
    out = tmp_path / "a.hdf5"
    flags = f"--videos={moved}", f"--out={out}", "--fps=5"
    elsewhere = (
        "--runner=DirectRunner",
        "--direct_num_workers=1",
        "--direct_running_mode=multi_processing",
    )
    done = extract_features(*flags, *elsewhere)
    assert "6 videos in 6 shards, 0 of them found done" in done.stderr
    assert "left out" in done.stderr
    assert f"{out}: 5 of 6 videos by pixels at 5 fps" in done.stdout
    extract_all(moved, tmp_path / "b" / "a.hdf5")
    assert bytes_of(out) == bytes_of(tmp_path / "b" / "a.hdf5")
    (moved / "empty.mp4").unlink()
    done = extract_features(*flags, *elsewhere)
    assert "5 videos in 5 shards, 5 of them found done" in done.stderr


def test_a_worker_with_another_encoder_is_told(videos, tmp_path):
    description = {**PIXELS.description, "dim": 5}
    with pytest.raises(ValueError, match=r"pixels at 5 fps \(dim 130\), where"):
        shard_work.extract(
            (find_videos(videos / "v0.mp4"), {"number": 0}),
            name="pixels",
            description=description,
            batch_size=None,
            parts=str(tmp_path),
        )


def test_progress_is_a_bar_or_lines(monkeypatch, capsys):
    clock = iter([0, 10, 10.1, 60, 60, 7321, 7322])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    tell = progress.Progress(3000, "videos")
    for share, done in ((0.0, 0), (0.01, 1), (0.5, 1500), (1.0, 2999)):
        tell(share, done)  # of the last one all is read, and it is not done
    tell(1.0, 3000)
    tell(1.0, 3000)
    assert capsys.readouterr().err == (
        "1,500 of 3,000 videos, 1:00 so far, 1:00 left\n"
        "3,000 of 3,000 videos in 2:02:01\n"
    )
    clock = iter([0, 10, 10.1, 60, 7321])
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    tell = progress.Progress(3, "videos")
    for share, done in ((0.0, 0), (0.01, 1), (0.5, 1), (1.0, 3)):
        tell(share, done)
    bars = capsys.readouterr().err.split("\x1b[K")
    assert bars == [
        "\r[" + 30 * "." + "] 0 of 3 videos, 0:10 so far",
        "\r[" + 9 * "#" + 10 * "." + "] 1 of 3 videos, 1:00 so far, 1:00 left",
        "\r[" + 32 * "#" + "] 3 of 3 videos in 2:02:01",
        "\n",
    ]
    clock = iter([0, 60])
    monkeypatch.setenv("COLUMNS", "200")
    tell = progress.Progress(62, "steps", "epoch 1/2: ")
    tell(0.5, 31)
    tell.clear()
    bar, cleared, end = capsys.readouterr().err.split("\x1b[K")
    assert bar.endswith("] epoch 1/2: 31 of 62 steps, 1:00 so far, 1:00 left")
    assert len(bar) == 100
    assert (cleared, end) == ("\r", "")
