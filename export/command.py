"""How a main starts and ends, and how it passes its flags on.

Only mains read flags. The functions that they call take plain arguments, so
that a notebook or a worker process can call them as well.
"""

import sys

from absl import app, flags, logging


def run(function, other_flags=False):
    """Runs the function of a main once the flags are read.

    An error that names a bad input is printed without a traceback
    (`--verbosity=1` logs it), and the exit code is 2. With `other_flags` the
    function is given the list of flags that are not absl's.
    """

    def main(argv):
        if len(argv) > 1 and not other_flags:
            raise app.UsageError(f"Not a flag: {argv[1:]}")
        # TensorFlow tells what it writes, in the middle of progress bars.
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            function(argv[1:]) if other_flags else function()
        except (KeyError, OSError, ValueError) as error:
            logging.debug("Where it happened:", exc_info=True)
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(main, **({"flags_parser": _known_flags} if other_flags else {}))


def flag_values(module):
    """The flags that a module defines, as keyword arguments.

    It leaves out those whose value is `None`: for them the function that takes
    the arguments has its own default.
    """
    return {
        flag.name: flag.value
        for flag in flags.FLAGS.get_key_flags_for_module(module)
        if flag.value is not None
    }


def given(*names):
    """The values of some flags, by name, without those that are `None`."""
    values = {name: flags.FLAGS[name].value for name in names}
    return {name: value for name, value in values.items() if value is not None}


def flag_words(module, only_given=False):
    """The flags of a module as one types them, for another process or a file.

    `module` may be the name of a main, `sys.argv[0]`. Those whose value is
    `None` are left out; with `only_given`, all that are not on the command
    line.
    """
    return [
        word
        for flag in flags.FLAGS.get_key_flags_for_module(module)
        if flag.value is not None and (flag.present or not only_given)
        for word in flag.serialize().split("\n")
    ]


def _known_flags(argv):
    try:
        flags.FLAGS.set_gnu_getopt()
        return flags.FLAGS(argv, known_only=True)
    except flags.Error as error:
        raise SystemExit(f"FATAL Flags parsing error: {error}") from None
