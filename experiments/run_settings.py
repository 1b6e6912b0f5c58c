"""What a run was trained with: written beside it, compared when it goes on.

`flags.txt` has a line `--name=value` for each setting, also for those that
were not given, and so repeats the run as a --flagfile. Comments after them
hold the SHA-256 of the files that the run learned from, and what made its
features.
"""

import glob
import json
import os

from acnn_tf.encoders import descriptions
from acnn_tf.files.atomic import write_text
from acnn_tf.files.manifests import digest
from acnn_tf.files.names import array_of, paths_of

NAME = "flags.txt"
# Flags that change neither what is learned nor what is kept. `epochs` may
# grow; files are told by what they hold, wherever they are.
_FREE = ("workdir", "checkpoint_steps", "strategy", "num_replicas", "data_dir")
_FILES = ("annotations", "durations", "num_frames", "features")
_FILES += tuple(f"val_{name}" for name in _FILES)
_FILES += ("sentence_vectors", "word_vectors", "init_from")
_SHA256, _ENCODER = "# sha256 of ", "# encoder: "


def read_flags(workdir):
    """The settings of a run.

    Args:
        workdir: Folder of a run of experiments.train.

    Returns:
        Dictionary from names of flags to text; of `--no...` to `"False"`.
    """
    return _parse(_lines(workdir))[0]


def write_flags(workdir, words, files, encoder=None):
    """Writes the settings of a run.

    Args:
        workdir: Folder.
        words: List of `--name=value`, from `export.command.flag_words`.
        files: Dictionary from the kind of a file to its path.
        encoder: What made the features, a dictionary, or `None`.
    """
    lines = [*words, *(f"{_SHA256}{k}: {d}" for k, d in _digests(files))]
    if encoder is not None:
        lines.append(_ENCODER + json.dumps(encoder))
    write_text(os.path.join(workdir, NAME), "\n".join([*lines, ""]))


def check_same(workdir, words, files, encoder=None):
    """Refuses to go on with a run whose settings were others.

    Args:
        workdir: Folder; may be empty, or not be there yet.
        words: See `write_flags`, as `files`.
        files: Likewise.
        encoder: Likewise.

    Raises:
        ValueError: Lists what differs.
    """
    path = os.path.join(workdir, NAME)
    then, digests_then, encoder_then = {}, {}, None
    if os.path.exists(path):
        then, digests_then, encoder_then = _parse(_lines(workdir))
    if not then:
        begun = os.path.join(glob.escape(os.fspath(workdir)), "*", "*.index")
        if glob.glob(begun):
            raise ValueError(
                f"{workdir} holds checkpoints, but no {NAME}, or an empty one, "
                "to say with which settings they were made. Bring it back, or "
                "choose an empty --workdir."
            )
        return
    now, *_ = _parse(words)
    # Flags that there were not yet say nothing.
    differing = [
        f"--{name}: {value} then, {now.get(name)} now"
        for name, value in then.items()
        if now.get(name) != value
        and name not in (*_FREE, *_FILES)
        and not (name == "epochs" and int(now[name]) > int(value))
    ]
    if encoder is not None and encoder_then is not None:
        encoder_then = descriptions.parse(encoder_then.encode(), path)
        differs = descriptions.difference(
            encoder, encoder_then, "the run learned from"
        )
        if differs:
            differing.append(f"{files.get('features', 'features')}: {differs}")
    digests_now = dict(_digests(files))
    differing += [
        f"{kind}: {files.get(kind, 'no file now')} is not the file of then"
        for kind, one in digests_then.items()
        if digests_now.get(kind) != one
    ]
    new = [kind for kind in digests_now if kind not in digests_then]
    if not digests_then:  # of built-in scenes, or of an older run
        new = [kind for kind in new if kind in now and kind not in then]
    differing += [f"{kind}: no file then, {files[kind]} now" for kind in new]
    if differing:
        raise ValueError(
            f"{workdir} holds a run with other settings:\n  "
            + "\n  ".join(differing)
            + f"\nGo on with its own (--flagfile={path}), or choose an empty "
            "--workdir."
        )


def find(path, workdir):
    """Where a file is that a run names.

    A relative path counts from the current folder or, where the run is
    evaluated from another one, from the run's own and those above it.

    Args:
        path: As `flags.txt` has it.
        workdir: Folder of the run.

    Returns:
        Path.

    Raises:
        FileNotFoundError: Says where it was looked for.
    """
    if len(paths_of(path)) > 1:
        return ",".join(find(one, workdir) for one in paths_of(path))
    there = os.path.exists(array_of(path)[0])
    if there or os.path.isabs(path) or "://" in path:
        return path
    folders, folder = [], os.path.abspath(workdir)
    while folder not in folders:
        folders.append(folder)
        if os.path.exists(array_of(os.path.join(folder, path))[0]):
            return os.path.join(folder, path)
        folder = os.path.dirname(folder)
    raise FileNotFoundError(
        f"{path}, which {os.path.join(workdir, NAME)} names, is not in the "
        f"current folder, {os.getcwd()}, nor in {', '.join(folders)}. Name it "
        "by a flag, or run this where the training ran."
    )


def _lines(workdir):
    with open(os.path.join(workdir, NAME), encoding="utf-8") as lines:
        return lines.read().splitlines()


def _parse(lines):
    values, digests, encoder = {}, {}, None
    for line in lines:
        if line.startswith(_SHA256):
            kind, _, one = line.removeprefix(_SHA256).partition(": ")
            digests[kind] = one
        elif line.startswith(_ENCODER):
            encoder = line.removeprefix(_ENCODER)
        elif line.startswith("--"):
            name, has_value, value = line[2:].partition("=")
            if not has_value:  # of a flag that is on or off
                value = str(not name.startswith("no"))
                name = name.removeprefix("no")
            values[name] = value
    return values, digests, encoder


def _digests(files):
    return [(kind, digest(path)) for kind, path in sorted(files.items())]
