"""How a main starts, and how it ends where its input is bad."""

import sys

from absl import app, flags, logging


def run(function, other_flags=False):
    """Runs the function of a main once the flags are read.

    An error that names a bad input is printed without a traceback
    (`--verbosity=1` logs it), and the exit code is 2.

    Args:
        function: Function without arguments.
        other_flags: Bool: give `function` the list of flags that are not
            absl's, in place of ending there.
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


def _known_flags(argv):
    try:
        flags.FLAGS.set_gnu_getopt()
        return flags.FLAGS(argv, known_only=True)
    except flags.Error as error:
        raise SystemExit(f"FATAL Flags parsing error: {error}") from None
