"""How a main starts, and how it ends where its input is bad."""

import sys

from absl import app, flags, logging


def run(function):
    """Runs the function of a main once the flags are read.

    An error that names a bad input is printed without a traceback
    (`--verbosity=1` logs it), and the exit code is 2.

    Args:
        function: Function without arguments.
    """

    def main(argv):
        if len(argv) > 1:
            raise app.UsageError(f"Not a flag: {argv[1:]}")
        # TensorFlow tells what it writes, in the middle of progress bars.
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            function()
        except (KeyError, OSError, ValueError) as error:
            logging.debug("Where it happened:", exc_info=True)
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(main)
