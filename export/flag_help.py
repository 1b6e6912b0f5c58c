"""What `--help` prints: the flags of a main, grouped by subject."""

import sys
import textwrap

from absl import flags

_COLUMN, _WIDTH = 26, 80
# Subjects, by the names of flags.
_SUBJECTS = {}
_EVERYWHERE = {
    "--flagfile": "File of flags, one a line; a later flag wins.",
    "--verbosity": "1 also shows where in the code an error happened.",
    "--help": "Show this.",
}


def subject(title, *names):
    """Says what some flags are about.

    Args:
        title: What `--help` prints above them.
        *names: Names of flags that are defined.
    """
    _SUBJECTS.update((flags.FLAGS[name].name, title) for name in names)


def is_asked_for(arguments):
    """Whether a command line asks for help."""
    # Those that absl knows, and one that others do.
    known = {"--help", "-help", "--helpshort", "--helpfull", "-h"}
    return not known.isdisjoint(arguments)


def show(main):
    """Prints what a main does, and its flags.

    Flags of other modules are shown if they are key flags of the main. The
    first ones are those without a subject.

    Args:
        main: Name of its module for absl, `sys.argv[0]`.
    """
    shown = flags.FLAGS.get_key_flags_for_module(main)
    groups = {"Flags": {}}
    for name in flags.FLAGS:  # in the order in which they were defined
        if (flag := flags.FLAGS[name]) in shown:
            group = groups.setdefault(_SUBJECTS.get(name, "Flags"), {})
            group[f"--{'[no]' * flag.boolean}{name}"] = _explain(flag)
    print(sys.modules["__main__"].__doc__)
    for title, explained in (groups | {"Every command": _EVERYWHERE}).items():
        if explained:
            print(f"{title}:", *_lines(explained), sep="\n")


def _explain(flag):
    """The help of a flag, with what it takes and its default."""
    words = [flag.help.partition("; repeat this option")[0]]
    if values := getattr(flag.parser, "enum_values", None):
        # absl writes them in front.
        words = [flag.help.partition(">: ")[2], f"One of {', '.join(values)}."]
    if any("other than None" in one.message for one in flag.validators):
        words.append("Required.")
    default = flag.default
    if default not in (None, False, []) and "Default:" not in flag.help:
        if isinstance(default, list):
            default = ",".join(map(str, default))
        elif isinstance(default, float):
            default = f"{default:g}"
        words.append(f"Default: {default}.")
    return " ".join(words)


def _lines(explained):
    for name, text in explained.items():
        name = f"  {name} "
        if len(name) > _COLUMN:
            yield name.rstrip()
            name = ""
        yield from textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=name.ljust(_COLUMN),
            subsequent_indent=" " * _COLUMN,
            break_long_words=False,
            break_on_hyphens=False,
        )
    yield ""
