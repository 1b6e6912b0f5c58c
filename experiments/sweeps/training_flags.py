"""The flags of `experiments.train`, on the command line of another main.

That main has adopted them: `flags.adopt_module_key_flags(train)`.
"""

import re

from absl import flags
from absl.testing import flagsaver

from experiments import model_flags, train
from export import command

FLAGS = flags.FLAGS

# What every training has of its own.
OWN = ("workdir", "seed")


def _names():
    return {flag.name for flag in FLAGS.get_key_flags_for_module(train)}


def given_flags():
    """Those that were given, without `OWN`, as one types them: list."""
    given = [
        FLAGS[name].serialize()
        for name in sorted(_names() - set(OWN))
        if FLAGS[name].present
    ]
    return [flag for flag in given if flag]


def check_flags(words):
    """Raises a `ValueError` unless flags can follow those that were given."""
    known = _names()
    for word in words:
        match = re.match(r"--(\w+)(=|$)", word)
        if not match:
            raise ValueError(
                f"expected flags, --name=value or --noname, found {word!r:.80}"
                "; join a flag and its value by =, and quote what has spaces"
            )
        name = match[1]
        plain = name if name in known else name.removeprefix("no")
        if plain in OWN:
            raise ValueError(
                f"expected flags that runs may differ in, found {word!r:.80}, "
                "which every run has of its own; leave it out"
            )
        if plain not in known and name != "flagfile":
            raise ValueError(
                "expected flags of experiments.train, found "
                f"{word!r:.80}; `python -m experiments.train --help` has a list"
            )
    with flagsaver.flagsaver():
        try:
            left = FLAGS(["", *words])[1:]
            settings = command.flag_values(model_flags)
            model_flags.constructor_arguments(**settings)
        except (flags.Error, OSError, ValueError) as error:
            raise ValueError(
                "expected values that experiments.train takes, found "
                f"{' '.join(words)!r:.200}: {error}; correct the value"
            ) from None
    if left:
        raise ValueError(f"expected flags, found {left}; write --name=value")
